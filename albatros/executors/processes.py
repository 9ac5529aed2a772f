"""Processes of this machine by what /proc says of them: who runs still, and how to end a whole tree."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
ZOMBIE = "Z"


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that cannot be mistaken for a later one of the same number: its start, in ticks since `boot`."""

    pid: int
    start_ticks: int
    boot: str


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    parent: int
    start_ticks: int


def identify(pid: int) -> Identity | None:
    """The identity of a living process, None when there is none."""
    stat = _stat(pid)
    return None if stat is None or stat.state == ZOMBIE else Identity(pid, stat.start_ticks, boot_id())


def is_alive(identity: Identity) -> bool:
    """Whether exactly this process still runs."""
    return identify(identity.pid) == identity


def when_ended(pid: int, call: Callable[[], None]) -> None:
    """Have `call` called, in a thread of its own, as soon as a process has ended; at once when there is none."""

    def wait() -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            call()
            return
        try:
            select.select([descriptor], [], [])
        finally:
            os.close(descriptor)
        call()

    threading.Thread(target=wait, name=f"runner-{pid}", daemon=True).start()


def boot_id() -> str:
    """Names the time since this machine was started."""
    return (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def find_by_environment(entry: str) -> int | None:
    """The oldest process with this `NAME=value` in its environment, among those whose environment we may read."""
    wanted, found = entry.encode(), []
    for pid in _pids():
        try:
            variables = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        stat = _stat(pid)
        if wanted in variables and stat is not None and stat.state != ZOMBIE:
            found.append((stat.start_ticks, pid))
    return min(found)[1] if found else None


def descendants(root: int) -> list[int]:
    """Every living process below `root`."""
    below: dict[int, list[int]] = {}
    for pid in _pids():
        stat = _stat(pid)
        if stat is not None and stat.state != ZOMBIE:
            below.setdefault(stat.parent, []).append(pid)
    found, queue = [], [root]
    while queue:
        children = below.get(queue.pop(), [])
        found += children
        queue += children
    return found


def program(pid: int) -> str:
    """The name of the program that a process was started as, empty when it is gone."""
    try:
        return Path(os.fsdecode((PROC / str(pid) / "cmdline").read_bytes().split(b"\0")[0])).name
    except OSError:
        return ""


def kill_tree(root: int, seconds: float) -> None:
    """End a process and everything below it, trying for at most so many seconds.

    The root is held still first: a runner adopts what its dying children leave behind, so nothing can slip away.
    """
    send(root, signal.SIGSTOP)
    deadline = time.monotonic() + seconds
    while (pids := descendants(root)) and time.monotonic() < deadline:
        for pid in pids:
            send(pid, signal.SIGKILL)
        time.sleep(0.02)
    send(root, signal.SIGKILL)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def killed_for_memory() -> int:
    """How many processes this machine has killed since its start for want of memory; 0 where it does not say."""
    try:
        lines = (PROC / "vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> _Stat | None:
    try:
        fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return _Stat(fields[0].decode(), int(fields[1]), int(fields[19]))
