"""The server's own directory: its lock, and the secrets that it makes for itself."""

from __future__ import annotations

import fcntl
import os
import secrets
import uuid
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path

from albatros.errors import ConfigError

KEY_BYTES = 32


def lock_data(data: Path) -> TextIOWrapper:
    """Make the data directory and hold it: two servers on one SQLite, one set of keys and runners would fight."""
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o711)
        lock = (data / "lock").open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"server.data = {data} cannot be used: {error.strerror}; set it elsewhere") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise ConfigError(f"another server runs on {data}; stop it, or set server.data to another directory") from error
    return lock


def new_key() -> bytes:
    """A key that nobody can guess."""
    return secrets.token_bytes(KEY_BYTES)


def new_id() -> bytes:
    """The identity of a server."""
    return uuid.uuid4().hex.encode()


def secret_file(path: Path, make: Callable[[], bytes]) -> bytes:
    """Read a file that only this user can read, made whole at the first start."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        return path.read_bytes()
