"""Secrets as rows: their values are sealed, and a seal holds only for the row's own identity."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, delete, or_, select
from sqlalchemy.orm import Session

from albatros.db.keyring import Keyring, Sealed
from albatros.db.models import Secret
from albatros.db.session import now
from albatros.db.upsert import insert
from albatros.domain.secrets import Place
from albatros.errors import NotFoundError, SecretsUnreadableError

_KEY = ("forge", "owner", "repo", "name")


def put(session: Session, keyring: Keyring, place: Place, name: str, refs: Sequence[str], value: str) -> Secret:
    """Set a secret, whatever it was before."""
    sealed = keyring.seal(value, _identity(place, name, refs))
    at = now()
    row = {"refs": list(refs), "key_id": sealed.key_id, "sealed": sealed.data, "updated_at": at}
    statement = insert(session, Secret).values(
        forge=place.forge, owner=place.owner, repo=place.repo, name=name, created_at=at, **row
    )
    session.execute(statement.on_conflict_do_update(index_elements=_KEY, set_=row))
    return session.scalars(select(Secret).where(_is(place), Secret.name == name)).one()


def remove(session: Session, place: Place, name: str) -> None:
    """Delete a secret. Raises NotFoundError."""
    gone = session.scalar(delete(Secret).where(_is(place), Secret.name == name).returning(Secret.id))
    if gone is None:
        raise NotFoundError(f"{place} has no secret named {name!r}; `albatros secret list` shows them")


def list_some(session: Session, place: Place | None, before: int | None, limit: int) -> Sequence[Secret]:
    """Secrets of one place or of all, the newest first."""
    query = select(Secret).order_by(Secret.id.desc()).limit(limit)
    if place is not None:
        query = query.where(_is(place))
    if before is not None:
        query = query.where(Secret.id < before)
    return session.scalars(query).all()


def around(session: Session, place: Place) -> Sequence[Secret]:
    """Every secret of a repo, its owner and the server."""
    return session.scalars(select(Secret).where(or_(*(_is(one) for one in place.around())))).all()


def under_old_keys(session: Session, key_id: str, limit: int) -> Sequence[Secret]:
    """Secrets that another key than this one encrypts, held for this transaction."""
    old = select(Secret).where(Secret.key_id != key_id).order_by(Secret.id).limit(limit)
    return session.scalars(old.with_for_update()).all()


def open_value(keyring: Keyring, row: Secret) -> str:
    """A secret's value. Raises SecretsUnreadableError."""
    try:
        return keyring.open(Sealed(row.key_id, row.sealed), _identity(place_of(row), row.name, row.refs))
    except SecretsUnreadableError as error:
        raise SecretsUnreadableError(f"secret {row.name} of {place_of(row)}: {error.detail}") from error


def seal_again(keyring: Keyring, row: Secret) -> None:
    """Encrypt a secret with the newest key. Raises SecretsUnreadableError."""
    sealed = keyring.seal(open_value(keyring, row), _identity(place_of(row), row.name, row.refs))
    row.key_id, row.sealed = sealed.key_id, sealed.data


def place_of(row: Secret) -> Place:
    """Whose a secret is."""
    return Place(row.forge, row.owner, row.repo)


def _identity(place: Place, name: str, refs: Sequence[str]) -> list[str]:
    """What a seal is bound to: whoever writes to the database can neither move a secret nor loosen what binds it."""
    return [place.forge, place.owner, place.repo, name, *refs]


def _is(place: Place) -> ColumnElement[bool]:
    return and_(Secret.forge == place.forge, Secret.owner == place.owner, Secret.repo == place.repo)
