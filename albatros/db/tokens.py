"""API tokens as rows: made, listed, revoked, and looked up by their hash. A token itself is never stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Select, delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from albatros.db.models import Token
from albatros.db.session import now
from albatros.domain.access import Scope, token_hash
from albatros.errors import ConflictError, NotFoundError

USED_EVERY = timedelta(minutes=1)
"""`last_used_at` is written at most this often, so that reading does not become writing."""


def create(session: Session, name: str, token: str, scope: Scope, expires_at: datetime | None) -> Token:
    """Keep the hash of a new token. Raises ConflictError when the name is taken."""
    row = Token(name=name, token_hash=token_hash(token), scope=scope, created_at=now(), expires_at=expires_at)
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError as error:
        raise ConflictError(
            f"there is a token named {name!r} already; revoke it first, or take another name"
        ) from error
    return row


def list_all(session: Session) -> Sequence[Token]:
    """Every token, oldest first."""
    return session.scalars(select(Token).order_by(Token.id)).all()


def revoke(session: Session, name: str) -> None:
    """Delete a token: from the next call on nobody gets in with it. Raises NotFoundError."""
    revoked = session.scalar(delete(Token).where(Token.name == name).returning(Token.id))
    if revoked is None:
        raise NotFoundError(f"there is no token named {name!r}; `albatros token list` shows them")


def find(session: Session, token: str) -> Token | None:
    """The row of a token that is valid now."""
    return session.scalar(_valid().where(Token.token_hash == token_hash(token)))


def find_by_id(session: Session, token_id: int) -> Token | None:
    """The row with this id, when its token is valid now."""
    return session.scalar(_valid().where(Token.id == token_id))


def needs_touch(token: Token) -> bool:
    """True when its use should be recorded."""
    return token.last_used_at is None or now() - token.last_used_at >= USED_EVERY


def touch(session: Session, token_id: int) -> None:
    """Record that a token is being used."""
    at = now()
    stale = or_(Token.last_used_at.is_(None), Token.last_used_at <= at - USED_EVERY)
    session.execute(update(Token).where(Token.id == token_id, stale).values(last_used_at=at))


def _valid() -> Select[Token]:
    return select(Token).where(or_(Token.expires_at.is_(None), Token.expires_at > now()))
