"""API tokens as rows: made, listed, revoked, and looked up by their hash. A token itself is never stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from albatros.db.models import Token
from albatros.db.session import now
from albatros.domain.access import Scope, token_hash
from albatros.domain.refs import ANY_REPO, RepoFilter
from albatros.errors import BadInputError, ConflictError, NotFoundError

USED_EVERY = timedelta(minutes=1)
"""`last_used_at` is written at most this often, so that reading does not become writing."""


MAX_TOKENS = 100
"""Of one person."""
MAX_NAME = 100


def check_name(name: str) -> str:
    """A token's name without spaces around it. Raises BadInputError."""
    stripped = name.strip()
    if not 1 <= len(stripped) <= MAX_NAME or not stripped.isprintable():
        raise BadInputError(f"a token's name has 1 to {MAX_NAME} printable characters")
    return stripped


def create(
    session: Session,
    name: str,
    token: str,
    scope: Scope,
    expires_at: datetime | None,
    *,
    person_id: int | None = None,
    bound: RepoFilter = ANY_REPO,
) -> Token:
    """Keep the hash of a new token. Raises ConflictError when its owner has one of that name, or MAX_TOKENS.

    Without a person it is one of the server's own, of which no forge is asked what it may do.
    """
    if person_id is not None and len(list_of(session, person_id)) >= MAX_TOKENS:
        raise ConflictError(f"you have {MAX_TOKENS} tokens already; revoke one that is not used any more")
    row = Token(
        name=name,
        token_hash=token_hash(token),
        scope=scope,
        bound=str(bound),
        person_id=person_id,
        created_at=now(),
        expires_at=expires_at,
    )
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


def list_of(session: Session, person_id: int | None) -> Sequence[Token]:
    """The tokens of a person, or those that were made on the server's machine, oldest first."""
    return session.scalars(select(Token).where(_owned(person_id)).order_by(Token.id)).all()


def revoke(session: Session, name: str, owner: str = "") -> None:
    """Delete the token of this name, of `FORGE/LOGIN` or of the server: from the next call on nobody gets in with it.

    Raises NotFoundError.
    """
    found = [row for row in list_all(session) if row.name == name and owner_of(row) == owner]
    if not found:
        whose = f" of {owner}" if owner else ""
        raise NotFoundError(f"there is no token named {name!r}{whose}; `albatros token list` shows them")
    session.execute(delete(Token).where(Token.id.in_([row.id for row in found])))


def revoke_own(session: Session, token_id: int, person_id: int | None) -> None:
    """Delete one of a person's tokens, or one of the server's. Raises NotFoundError."""
    deleted = delete(Token).where(Token.id == token_id, _owned(person_id)).returning(Token.id)
    if session.scalar(deleted) is None:
        raise NotFoundError(f"you have no token {token_id}")


def owner_of(token: Token) -> str:
    """`FORGE/LOGIN` of whoever made it; empty for one that was made on the server's machine."""
    if token.person_id is None or token.person is None:
        return ""
    return f"{token.person.forge}/{token.person.login}"


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


def _owned(person_id: int | None) -> ColumnElement[bool]:
    return Token.person_id.is_(None) if person_id is None else Token.person_id == person_id


def _valid() -> Select[Token]:
    return select(Token).where(or_(Token.expires_at.is_(None), Token.expires_at > now()))
