"""That all servers on one database have the same keys: the database knows a fingerprint of each, never the key.

Another `attempt.key` would give an Attempt that another server intended a wrong token, another `session.key` would log
people out at every other request, another `secrets.key` would seal what the others cannot open.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping
from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from albatros.db.models import KnownKey
from albatros.db.session import Database
from albatros.db.upsert import insert
from albatros.errors import ConfigError


def fingerprint(key: bytes) -> str:
    """What tells one random key from another, and nothing about it."""
    return hmac.new(key, b"albatros key fingerprint", "sha256").hexdigest()[:32]


def check(database: Database, directory: Path, found: Mapping[str, Collection[str]]) -> None:
    """Compare the fingerprints in each key file with what the database knows, which the first server tells it.

    A file of several keys names the one in use first, and is right if it has the known one. Raises ConfigError.
    """
    with database.write() as session:
        for name, fingerprints in sorted(found.items()):
            first = insert(session, KnownKey).values(name=name, fingerprint=next(iter(fingerprints)))
            session.execute(first.on_conflict_do_nothing())
            known = session.scalar(select(KnownKey.fingerprint).where(KnownKey.name == name))
            if known not in fingerprints:
                raise ConfigError(
                    f"{directory / name} is not the key of the other servers on this database: copy theirs, or set "
                    "server.keys to the directory they have it in; if it is lost for all of them, "
                    "`albatros db forget-keys` lets new ones in"
                )


def remember(session: Session, name: str, known: str) -> None:
    """A key took another's place, in the caller's transaction."""
    row = insert(session, KnownKey).values(name=name, fingerprint=known)
    session.execute(row.on_conflict_do_update(index_elements=["name"], set_={"fingerprint": known}))


def forget(database: Database) -> int:
    """Let the next server that starts say which keys are right; returns how many were known."""
    with database.write() as session:
        return len(session.scalars(delete(KnownKey).returning(KnownKey.name)).all())
