"""Starting a program as another user.

Python forks for that, which copies the page tables of the whole server while its threads stall: some 5 ms a start.
`chroot` (GNU coreutils), with the root as it is, changes the user in the new process instead, so that Python can use
vfork. It gives up every privilege before it looks for the program; setpriv keeps them until the program runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

TRY_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Start:
    """What to pass to `subprocess`: the arguments, and the keywords `user`, `group` and `extra_groups`."""

    argv: list[str]
    user: int | None = None
    group: int | None = None
    extra_groups: tuple[int, ...] | None = None


def as_user(uid: int, gid: int, argv: Sequence[str]) -> Start:
    """How root starts a program as this user, with this group and no other."""
    chroot = _chroot()
    if chroot is None:
        return Start(list(argv), uid, gid, ())
    return Start([*_prefix(chroot, uid, gid), *argv])


def _prefix(chroot: str, uid: int, gid: int) -> list[str]:
    return [chroot, f"--userspec=+{uid}:+{gid}", "--groups=", "--skip-chdir", "/"]


@cache
def _chroot() -> str | None:
    """Where a chroot lies that changes users (that of BusyBox does not); None without one."""
    found = shutil.which("chroot", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        return None
    command = [*_prefix(found, 0, 0), "true"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TRY_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found if done.returncode == 0 else None
