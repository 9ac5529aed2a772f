"""The server's own directory: its lock, and the secrets that it makes for itself or shares with others."""

from __future__ import annotations

import fcntl
import secrets
import uuid
from io import TextIOWrapper
from pathlib import Path

from albatros.db import shared_keys as known
from albatros.db.keyring import Keyring
from albatros.db.session import Database
from albatros.errors import ConfigError
from albatros.http.sessions import KEY_FILE, secret_file, signer
from albatros.settings import Settings

KEY_BYTES = 32
ATTEMPT_KEY = "attempt.key"


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


def shared_keys(settings: Settings, database: Database) -> bytes:
    """Make the keys that all servers on a database share where there are none; the one of Attempts' tokens.

    Raises ConfigError when the servers on this database have others.
    """
    directory = settings.keys
    try:
        key = secret_file(directory / ATTEMPT_KEY, lambda: secrets.token_bytes(KEY_BYTES))
        found = {
            ATTEMPT_KEY: [known.fingerprint(key)],
            KEY_FILE: [signer(directory).mac("fingerprint", "")],
            settings.secrets_key.name: Keyring(settings.secrets_key).ids(),
        }
    except OSError as error:
        raise ConfigError(f"server.keys = {directory} cannot be used: {error.strerror}; check its owner") from error
    known.check(database, directory, found)
    return key


def new_id() -> bytes:
    """The identity of a server."""
    return uuid.uuid4().hex.encode()
