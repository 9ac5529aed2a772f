"""How a command that runs for long is asked to end."""

from __future__ import annotations

import os
import signal
from types import FrameType


class StopSignal:
    """The first SIGINT or SIGTERM ends `wait`; the second one acts as it does by default."""

    def __init__(self) -> None:
        """Take the signals; only the main thread may."""
        # The kernel may hand a signal to any thread, and then a main thread that waits for a lock sleeps on: what
        # Python's C handler writes here wakes it wherever it ran.
        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _once)

    def wait(self) -> None:
        """Sleep until a signal came, which may be before this is called."""
        os.read(self._reader, 1)


def _once(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
