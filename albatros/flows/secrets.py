"""Secrets: which of them a Build is given, and the rotation of the key that keeps them."""

from __future__ import annotations

from collections.abc import Callable

from albatros.db import secrets, shared_keys
from albatros.db.keyring import Keyring
from albatros.db.models import Build
from albatros.db.session import Database
from albatros.domain.secrets import Place, is_variable, may_have
from albatros.errors import SecretsUnreadableError

BATCH = 100
MAX_TOGETHER = 1 << 20


def access_tokens(database: Database, keyring: Keyring, build: Build) -> dict[str, str]:
    """The tokens by host that a Build may have. Raises SecretsUnreadableError."""
    return _given(database, keyring, build, lambda name: not is_variable(name))


def script_secrets(database: Database, keyring: Keyring, build: Build) -> dict[str, str]:
    """What the script of a Build may have, by variable. Raises SecretsUnreadableError."""
    given = _given(database, keyring, build, is_variable)
    if sum(len(value.encode()) for value in given.values()) > MAX_TOGETHER:
        raise SecretsUnreadableError(
            f"the secrets for {build.repo.full_name} have more than {MAX_TOGETHER >> 10} KiB together; remove some"
        )
    return given


def _given(database: Database, keyring: Keyring, build: Build, wanted: Callable[[str], bool]) -> dict[str, str]:
    """Secrets that a Build may have, the repo's own before its owner's and the server's."""
    if not build.trusted:
        return {}
    repo = Place(build.repo.forge, build.repo.owner, build.repo.name)
    with database.read() as session:
        rows = secrets.around(session, repo)
    allowed = [row for row in rows if wanted(row.name) and may_have(row.refs, build.ref, trusted=build.trusted)]
    nearest = {row.name: row for place in repo.around() for row in allowed if secrets.place_of(row) == place}
    return {name: secrets.open_value(keyring, row) for name, row in nearest.items()}


def rotate(database: Database, keyring: Keyring) -> int:
    """Encrypt every secret with a new key; returns how many were encrypted again.

    A rotation that was killed is finished with the key that it made: every row opens at each moment of it. Raises
    SecretsUnreadableError for a row whose key is gone; those before it are done.
    """
    current = keyring.current()
    with keyring.locked():
        with database.read() as session:
            unfinished = secrets.under_old_keys(session, current, 1)
        if not unfinished:
            keyring.add()
        total = 0
        with database.write() as session:
            shared_keys.remember(session, keyring.name, keyring.current())
        while count := _encrypt_some(database, keyring):
            total += count
        keyring.forget()
    return total


def _encrypt_some(database: Database, keyring: Keyring) -> int:
    """One bounded transaction of a rotation."""
    with database.write() as session:
        rows = secrets.under_old_keys(session, keyring.current(), BATCH)
        for row in rows:
            secrets.seal_again(keyring, row)
    return len(rows)
