"""The command line of Albatros in a process that kills itself: python -m tests.support.dying ROOT STEP ARGUMENT...

A step is whatever changes files below ROOT, or brings them to the disk. Right before step number STEP, from 1, comes
SIGKILL; with 0 the process lives, and its last line on standard error is how many steps there were.
"""

import os
import signal
import sys

from albatros.cli import main

CHANGES = {"os.mkdir": 0, "os.rename": 0, "os.remove": 0, "os.utime": 0, "open": 0}
"""Audit events and which of their arguments is the path (Python, "Audit events table")."""


class Steps:
    def __init__(self, root: str, last: int) -> None:
        self._root = root
        self._last = last
        self.taken = 0

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if event not in CHANGES or not str(arguments[CHANGES[event]]).startswith(self._root):
            return
        flags = arguments[2] if event == "open" else os.O_CREAT
        if isinstance(flags, int) and flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            self.take()

    def take(self) -> None:
        self.taken += 1
        if self.taken == self._last:
            os.kill(os.getpid(), signal.SIGKILL)


def run(root: str, last: int, arguments: list[str]) -> int:
    steps = Steps(root, last)
    sys.addaudithook(steps.hear)
    to_disk = os.fsync

    def fsync(descriptor: int) -> None:
        steps.take()
        to_disk(descriptor)

    os.fsync = fsync  # type: ignore[assignment] # narrower than any file
    code = main(arguments)
    sys.stderr.write(f"{steps.taken}\n")
    return code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
