"""Keeps the local runner away from the server's data and keys: as another user, or in a mount namespace.

What a runner evaluates is hostile, and reads what its user may read. Where neither way is open the runner is not
isolated; the server then says so, and builds nothing for strangers.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from albatros.errors import ConfigError
from albatros.users import Start, as_user

DEFAULT_USER = "albatros-runner"
DEFAULT_UID = 64198
TRY_SECONDS = 20
HARMLESS = frozenset({".nix-profile", ".nix-defexpr", ".local"})


class IsolationKind(StrEnum):
    """How the runner is kept away."""

    OTHER_USER = "other-user"
    """It runs as a user who owns nothing but its own home."""
    BWRAP = "bwrap"
    """It runs as the server's user, in namespaces that lack the server's data and processes."""
    NONE = "none"
    """It can read what the server can read."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """What was decided, and `reason` for people; `uid` and `gid` are the runner's."""

    kind: IsolationKind
    uid: int
    gid: int
    reason: str

    @property
    def isolated(self) -> bool:
        """Whether the runner can read neither the server's data nor its keys."""
        return self.kind is not IsolationKind.NONE

    def start(self, argv: Sequence[str], *, hidden: Sequence[Path] = (), shown: Sequence[Path] = ()) -> Start:
        """How to start a program so; bubblewrap shows what is `hidden` empty, except for the directories `shown` of it.

        Another user is kept away by the files' own modes.
        """
        match self.kind:
            case IsolationKind.OTHER_USER:
                return as_user(self.uid, self.gid, argv)
            case IsolationKind.BWRAP:
                return Start(self._in_bwrap(argv, hidden, shown))
            case IsolationKind.NONE:
                return Start(list(argv))

    def _in_bwrap(self, argv: Sequence[str], hidden: Sequence[Path], shown: Sequence[Path]) -> list[str]:
        # Processes are hidden too: through /proc, one of the same user would show its memory and its root directory.
        wrapped = ["bwrap", "--dev-bind", "/", "/", "--unshare-pid", "--unshare-ipc"]
        for path in hidden:
            wrapped += ["--tmpfs", str(path)] if path.is_dir() else ["--ro-bind", "/dev/null", str(path)]
        for path in shown:
            wrapped += ["--bind", str(path), str(path)]
        return [*wrapped, "--proc", "/proc", "--", *argv]


def decide(user: str) -> Isolation:
    """Choose the strongest way that is open to this process; `user` is the setting `executor.user`.

    Raises ConfigError when the setting names a user who does not exist, is root, or cannot be changed to.
    """
    if os.geteuid() == 0:
        uid, gid = _ids_of(user)
        return Isolation(IsolationKind.OTHER_USER, uid, gid, f"the runner is the user {uid}")
    uid, gid = os.geteuid(), os.getegid()
    if user and user not in {str(uid), _name_of(uid)}:
        raise ConfigError(
            f"executor.user = {user!r} needs a server that runs as root; start it so, or remove the setting"
        )
    problem = _bwrap_problem()
    if problem is None:
        return Isolation(IsolationKind.BWRAP, uid, gid, "the runner is the server's user, confined by bubblewrap")
    reason = f"the server is not root and {problem}; run it as root, or make bubblewrap work"
    return Isolation(IsolationKind.NONE, uid, gid, reason)


def _ids_of(user: str) -> tuple[int, int]:
    if user.isdigit() or not user:
        uid = int(user or _uid_of(DEFAULT_USER) or DEFAULT_UID)
        try:
            gid = pwd.getpwuid(uid).pw_gid
        except KeyError:
            gid = uid
    else:
        found = _uid_of(user)
        if found is None:
            raise ConfigError(
                f"executor.user = {user!r} does not exist; create it with useradd --system, or give a number"
            )
        uid, gid = found, pwd.getpwnam(user).pw_gid
    if uid == 0:
        raise ConfigError("executor.user must not be root: the runner works on hostile input; name another user")
    return uid, gid


def _uid_of(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _bwrap_problem() -> str | None:
    if shutil.which("bwrap") is None:
        return "bwrap is not on PATH"
    command = ["bwrap", "--dev-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "--", "/bin/sh", "-c", "exit 0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TRY_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap does not work: {error}"
    return None if done.returncode == 0 else f"bwrap does not work: {done.stderr.strip()[-200:]}"


def secrets_of_user(home: Path, needed: Path) -> list[Path]:
    """What a person keeps in hidden files at home, keys among them; not what leads to the program `needed`."""
    entries = [entry for entry in home.iterdir() if entry.name.startswith(".") and not entry.is_symlink()]
    return [entry for entry in entries if entry.name not in HARMLESS and not needed.is_relative_to(entry)]


def reachable_by_others(directory: Path) -> bool:
    """Whether a user who owns nothing can pass through this directory and all above it."""
    return all(parent.stat().st_mode & 0o001 for parent in (directory, *directory.parents))


def close_to_others(data: Path, keep: frozenset[str]) -> None:
    """Shut everything directly below the server's data directory for other users, except the entries in `keep`.

    The directory itself can be passed through, so that the runner reaches the home it has there.
    """
    data.chmod(0o711)
    for entry in data.iterdir():
        if entry.name not in keep and not entry.is_symlink():
            entry.chmod(entry.stat().st_mode & 0o700)
