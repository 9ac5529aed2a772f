"""Child processes under limits: wall clock, silence, memory, and an end when the Attempt is stopped.

Children are started by the main thread only: the kernel sends their parent-death signal when the thread that made
them ends. It is SIGTERM, because Nix ends its builders on that; a killed Nix leaves them running.
"""

import ctypes
import os
import resource
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from albatros.runner.failure import JobFailedError, Reason
from albatros.runner.order import Limits

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
POLL_SECONDS = 0.2
GRACE_SECONDS = 5.0
LEFT_BEHIND_SECONDS = 2.0
LINE_LIMIT = 64 << 10
STOP_SENTENCES = {
    Reason.CANCELLED: "The Build was cancelled.",
    Reason.SUPERSEDED: "A newer Build took the place of this one.",
    Reason.HANDBACK: "The Attempt was given back to the queue.",
}

LineSink = Callable[[str], None]


class Done(NamedTuple):
    """A child that has ended: its exit status (negative: a signal) and its bounded standard output."""

    status: int
    stdout: bytes


class Task(NamedTuple):
    """What to run: `stdout_limit` bytes are kept; `memory_bytes` bounds the address space, 0 does not.

    With `all_lines` standard output is lines like the rest and not kept. `most_processes` bounds what the user runs.
    """

    argv: list[str]
    env: Mapping[str, str]
    cwd: str
    on_line: LineSink
    stdout_limit: int = 1 << 20
    memory_bytes: int = 0
    stdin: str = os.devnull
    all_lines: bool = False
    most_processes: int = 0


class Children:
    """Starts the Attempt's child processes one at a time, and ends them when time runs out or somebody says stop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._deadline = time.monotonic() + limits.wall_seconds
        self._stop_reason: Reason | None = None
        self._current: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl
        # Builders whose Nix died come to us, so that we can find and end them.
        self._prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def stop(self, reason: Reason) -> None:
        """Ask the running child, and whatever would follow, to end. From any thread; the first reason stays."""
        with self._lock:
            self._stop_reason = self._stop_reason or reason

    def check(self) -> None:
        """Raise JobFailedError when the Attempt was stopped or its wall clock has run out."""
        if self._stop_reason is not None:
            raise JobFailedError(self._stop_reason, STOP_SENTENCES[self._stop_reason])
        if time.monotonic() > self._deadline:
            seconds = self._limits.wall_seconds
            raise JobFailedError(Reason.TIMEOUT, f"The Job took longer than {seconds} s, its limit of wall-clock time.")

    def run(self, task: Task) -> Done:
        """Run a child to its end. Raises JobFailedError for a stop, a timeout, or a program that is not there."""
        self.check()
        process = self._start(task)
        try:
            stdout = _Reader(task, self._limits, self.check).read(process)
            return Done(process.wait(), stdout)
        finally:
            self._end(process)

    def kill_all(self) -> None:
        """End everything this runner has started, gently first. From any thread."""
        process = self._current
        if process is not None:
            self._end(process)
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            if signal_number == signal.SIGKILL:
                _hold_still()
            waited = time.monotonic() + GRACE_SECONDS
            while (pids := _below_us()) and time.monotonic() < waited:
                for pid in pids:
                    _kill(pid, signal_number)
                _reap()
                time.sleep(0.05)

    def _start(self, task: Task) -> subprocess.Popen[bytes]:
        def prepare() -> None:
            self._prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if task.memory_bytes:
                resource.setrlimit(resource.RLIMIT_AS, (task.memory_bytes, task.memory_bytes))
            if task.most_processes:
                resource.setrlimit(resource.RLIMIT_NPROC, (task.most_processes, task.most_processes))

        try:
            with open(task.stdin, "rb") as stdin:
                self._current = subprocess.Popen(
                    task.argv,
                    env=dict(task.env),
                    cwd=task.cwd,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT if task.all_lines else subprocess.PIPE,
                    start_new_session=True,
                    preexec_fn=prepare,  # noqa: PLW1509 - no lock of another thread is needed between fork and exec
                )
        except FileNotFoundError as error:
            text = f"{task.argv[0]} is not on the runner's PATH; install it on this machine."
            raise JobFailedError(Reason.DRIVER, text) from error
        except OSError as error:
            raise JobFailedError(Reason.DRIVER, f"{task.argv[0]} could not be started: {error.strerror}") from error
        return self._current

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Make sure that a child and its process group are gone."""
        if process.poll() is None:
            _kill(-process.pid, signal.SIGTERM)
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                _kill(-process.pid, signal.SIGKILL)
                process.wait()
        self._current = None
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


class _Reader:
    """Reads a child's two pipes until both end, and keeps time while it does."""

    def __init__(self, task: Task, limits: Limits, check: Callable[[], None]) -> None:
        self._task = task
        self._silence = limits.silence_seconds
        self._check = check
        self._stdout = bytearray()
        self._partial = b""

    def read(self, process: subprocess.Popen[bytes]) -> bytes:
        """What the child wrote on standard output; its other lines went to the task's sink."""
        last_sound = time.monotonic()
        ended: float | None = None
        with selectors.DefaultSelector() as selector:
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                # Something the child left behind may hold the pipes open for ever.
                if ended is None and process.poll() is not None:
                    ended = time.monotonic()
                if ended is not None and time.monotonic() - ended > LEFT_BEHIND_SECONDS:
                    break
                for key, _ in selector.select(POLL_SECONDS):
                    last_sound = time.monotonic()
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    self._take(data, is_stdout=key.fileobj is process.stdout and not self._task.all_lines)
                self._check()
                if time.monotonic() - last_sound > self._silence:
                    text = f"{self._task.argv[0]} printed nothing for {self._silence} s, the limit of silence."
                    raise JobFailedError(Reason.SILENT, text)
        return bytes(self._stdout)

    def _take(self, data: bytes, *, is_stdout: bool) -> None:
        if is_stdout:
            self._stdout += data
            if len(self._stdout) > self._task.stdout_limit:
                name, limit = " ".join(self._task.argv[:2]), self._task.stdout_limit
                text = f"{name} answered with more than {limit} bytes, which is more than a flake may give."
                raise JobFailedError(Reason.EVALUATION_FAILED, text)
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > LINE_LIMIT or (not data and self._partial):
            lines.append(self._partial)
            self._partial = b""
        for line in lines:
            self._task.on_line(line.decode("utf-8", "replace"))


def _hold_still() -> None:
    """Stop everything below this process: what forks faster than it is found could not be killed otherwise."""
    held: set[int] = set()
    waited = time.monotonic() + GRACE_SECONDS
    while (new := _below_us() - held) and time.monotonic() < waited:
        for pid in new:
            _kill(pid, signal.SIGSTOP)
        held |= new


def _below_us() -> set[int]:
    """Every process below this one: looked for twice, since one whose parent ends meanwhile is seen below nobody."""
    return {*descendants(os.getpid()), *descendants(os.getpid())}


def descendants(root: int) -> list[int]:
    """Every living process below `root`, deepest last. Zombies are left out."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = _stat(int(name))
            if stat is not None and stat[0] != "Z":
                parents.setdefault(stat[1], []).append(int(name))
    found, queue = [], [root]
    while queue:
        below = parents.get(queue.pop(0), [])
        found += below
        queue += below
    return found


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and parent of a process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[0].decode(), int(fields[1])


def _kill(pid: int, signal_number: int) -> None:
    try:
        os.kill(pid, signal_number)
    except (ProcessLookupError, PermissionError):
        # PermissionError: a sandbox's set-up helper of another user namespace, which ends with its parent.
        return


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return
