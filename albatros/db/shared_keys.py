"""That all servers on one database have the same keys and blob store, of which the database knows a fingerprint each.

Another `attempt.key` would give an Attempt that another server intended a wrong token, another `session.key` would log
people out at every other request, another `secrets.key` would seal what the others cannot open; another store would
lack what the database says is there.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping
from pathlib import Path

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from albatros.db.models import KnownKey
from albatros.db.session import Database
from albatros.db.upsert import insert
from albatros.errors import ConfigError

STORE = "store"


def fingerprint(key: bytes) -> str:
    """What tells one random key from another, and nothing about it."""
    return hmac.new(key, b"albatros key fingerprint", "sha256").hexdigest()[:32]


def check(database: Database, directory: Path, found: Mapping[str, Collection[str]]) -> None:
    """Compare the fingerprints in each key file with what the database knows, which the first server tells it.

    A file of several keys names the one in use first, and is right if it has the known one. Raises ConfigError.
    """
    with database.write() as session:
        for name, fingerprints in sorted(found.items()):
            if _learn(session, name, next(iter(fingerprints))) not in fingerprints:
                raise ConfigError(
                    f"{directory / name} is not the key of the other servers on this database: copy theirs, or set "
                    "server.keys to the directory they have it in; if it is lost for all of them, "
                    "`albatros db forget-keys` lets new ones in"
                )


def check_store(database: Database, url: str, identity: str, *, learn: bool = True) -> None:
    """Compare a blob store with the one that the database knows; the first server that may have it `learn` tells it.

    Raises ConfigError.
    """
    with database.write() as session:
        known = _learn(session, STORE, identity) if learn else _known(session, STORE)
    if known not in (None, identity):
        raise ConfigError(
            f"{url} is not the blob store that this database belongs to: set store.url to the directory that all "
            "servers on it see, mounted; if that one is lost, `albatros db forget-store` lets a new one in"
        )


def _learn(session: Session, name: str, fingerprint: str) -> str | None:
    """What is known under a name, which is the fingerprint if nothing was."""
    first = insert(session, KnownKey).values(name=name, fingerprint=fingerprint)
    session.execute(first.on_conflict_do_nothing())
    return _known(session, name)


def _known(session: Session, name: str) -> str | None:
    return session.scalar(select(KnownKey.fingerprint).where(KnownKey.name == name))


def remember(session: Session, name: str, known: str) -> None:
    """A key took another's place, in the caller's transaction."""
    row = insert(session, KnownKey).values(name=name, fingerprint=known)
    session.execute(row.on_conflict_do_update(index_elements=["name"], set_={"fingerprint": known}))


def forget(database: Database) -> int:
    """Let the next server that starts say which keys are right; returns how many were known."""
    return _forget(database, KnownKey.name != STORE)


def forget_store(database: Database) -> int:
    """Let the next server that starts say which blob store is right; returns how many were known."""
    return _forget(database, KnownKey.name == STORE)


def _forget(database: Database, which: ColumnElement[bool]) -> int:
    with database.write() as session:
        return len(session.scalars(delete(KnownKey).where(which).returning(KnownKey.name)).all())
