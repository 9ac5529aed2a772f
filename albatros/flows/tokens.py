"""API tokens that somebody makes for themselves, lists and revokes: a token never reaches further than who made it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from albatros.db import tokens
from albatros.db.models import Token
from albatros.db.session import Database, now
from albatros.domain.access import Scope, Who, new_token
from albatros.domain.refs import ANY_REPO, read_bound
from albatros.errors import BadInputError, ForbiddenError

DAYS = 90
MAX_DAYS = 366


def own_tokens(database: Database, who: Who) -> Sequence[Token]:
    """What they made; for an admin of the server who is no person, the server's. Raises ForbiddenError."""
    owner = _owner(who)
    with database.read() as session:
        return tokens.list_of(session, owner)


def make_token(database: Database, who: Who, name: str, scope: Scope, days: int, only: str) -> tuple[Token, str]:
    """A token for `days`, and the only look at it; `only` is `FORGE[/OWNER[/NAME]]`, or empty.

    Raises BadInputError, ConflictError, or ForbiddenError for what reaches further than they do.
    """
    owner = _owner(who)
    if not who.holds(scope):
        raise ForbiddenError(f"{who.name!r} has scope {who.scope} and cannot make a token of scope {scope}")
    if not 1 <= days <= MAX_DAYS:
        raise BadInputError(f"a token lives for 1 to {MAX_DAYS} days")
    name, bound, token = tokens.check_name(name), read_bound(only), new_token()
    with database.write() as session:
        row = tokens.create(session, name, token, scope, now() + timedelta(days=days), person_id=owner, bound=bound)
    return row, token


def revoke_token(database: Database, who: Who, token_id: int) -> None:
    """End one of their own. Raises NotFoundError or ForbiddenError."""
    owner = _owner(who)
    with database.write() as session:
        tokens.revoke_own(session, token_id, owner)


def _owner(who: Who) -> int | None:
    """Whose tokens they look after: their own, or the server's (None). Raises ForbiddenError."""
    if who.scope is not Scope.ADMIN:
        raise ForbiddenError(f"{who.name or 'nobody'!r} cannot look after tokens: that needs a login, or scope admin")
    if who.bound != ANY_REPO:
        raise ForbiddenError(f"token {who.name!r} is for {who.bound} alone, and cannot look after tokens")
    return who.person.id if who.person is not None else None
