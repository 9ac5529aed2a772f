"""What endpoints are given: the server's parts, and who is calling.

A caller is a bearer token, or on a safe method the cookie of somebody logged in on the dashboard. Without either, only
public repos are seen, and only where `server.public` says so; what a caller may not see does not exist (404).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Protocol

from fastapi import Depends, Request

from albatros.db import tokens
from albatros.db.models import Token
from albatros.db.session import Database
from albatros.db.signals import Signals
from albatros.db.writer import Writer
from albatros.domain.access import Scope
from albatros.errors import DatabaseUnavailableError, ForbiddenError, UnauthorizedError
from albatros.forges.base import Forge
from albatros.http.sessions import COOKIE, signer
from albatros.http.uploads import Uploads
from albatros.log import get_logger
from albatros.settings import Settings
from albatros.store.base import BlobStore

log = get_logger(__name__)
MAX_TOKEN_LENGTH = 256
_SAFE_METHODS = frozenset({"GET", "HEAD"})


class RunnerBundle(Protocol):
    """The runner's zipapp."""

    @property
    def content(self) -> bytes:
        """Its bytes."""
        ...

    @property
    def digest(self) -> str:
        """`sha256:…` of its bytes."""
        ...


@dataclass(frozen=True)
class AppContext:
    """The parts of a server that the web needs; bootstrap fills it."""

    settings: Settings
    database: Database
    store: BlobStore
    forges: Mapping[str, Forge]
    writer: Writer
    signals: Signals
    runner: RunnerBundle
    version: str
    uploads: Uploads = field(default_factory=Uploads)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the name and scope of a token, or nobody."""

    name: str = ""
    scope: Scope | None = None

    @property
    def public_only(self) -> bool:
        """Nobody sees private repos."""
        return self.scope is None

    def may(self, needed: Scope) -> bool:
        """True when the caller's scope reaches as far as `needed`."""
        return self.scope is not None and self.scope.covers(needed)


NOBODY = Caller()


async def context_of(request: Request) -> AppContext:
    """The server's parts."""
    context: AppContext = request.app.state.context
    return context


Context = Annotated[AppContext, Depends(context_of)]


def caller_of(request: Request, context: Context) -> Caller:
    """Who calls: a good token, or NOBODY when none was sent. Raises UnauthorizedError for a bad one."""
    header = request.headers.get("authorization")
    if header is not None:
        return _by_token(context, header)
    cookie = request.cookies.get(COOKIE)
    if cookie is not None and request.method in _SAFE_METHODS:
        return caller_by_cookie(context, cookie, at_most=Scope.READ)
    return NOBODY


def caller_by_cookie(context: AppContext, cookie: str, *, at_most: Scope) -> Caller:
    """Who logged in on the dashboard, with no more than one scope; NOBODY when the session is over or forged."""
    session = signer(context.settings.server.data).read(cookie)
    if session is None:
        return NOBODY
    with context.database.read() as transaction:
        token = tokens.find_by_id(transaction, session.token_id)
    if token is None or not session.belongs_to(token.token_hash):
        return NOBODY
    scope = Scope(token.scope)
    return Caller(token.name, at_most if scope.covers(at_most) else scope)


def find_token(context: AppContext, value: str) -> Token | None:
    """The row of a valid token, whose use is recorded."""
    if not value or len(value) > MAX_TOKEN_LENGTH:
        return None
    with context.database.read() as session:
        token = tokens.find(session, value)
    if token is not None and tokens.needs_touch(token):
        token_id = token.id
        try:
            context.writer.submit(lambda session: tokens.touch(session, token_id))
        except DatabaseUnavailableError as error:
            log.warning("the use of a token was not recorded", token=token.name, error=error.detail)
    return token


def _by_token(context: AppContext, header: str) -> Caller:
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "bearer":
        raise UnauthorizedError("only bearer tokens are taken: send `Authorization: Bearer alb_…`")
    token = find_token(context, value.strip())
    if token is None:
        raise UnauthorizedError(
            "this token is not known, was revoked or has expired; make one with `albatros token create`"
        )
    return Caller(token.name, Scope(token.scope))


AnyCaller = Annotated[Caller, Depends(caller_of)]


def reader(caller: AnyCaller, context: Context) -> Caller:
    """A caller who may read: any token, or anybody on a public server. Raises UnauthorizedError."""
    if caller.scope is None and not context.settings.server.public:
        raise UnauthorizedError("reading needs a token here: send `Authorization: Bearer alb_…`")
    return caller


def writer(caller: AnyCaller) -> Caller:
    """A caller who may trigger, cancel and rerun. Raises UnauthorizedError or ForbiddenError."""
    return _with_scope(caller, Scope.WRITE)


def admin(caller: AnyCaller) -> Caller:
    """A caller who may change what is built. Raises UnauthorizedError or ForbiddenError."""
    return _with_scope(caller, Scope.ADMIN)


def _with_scope(caller: Caller, needed: Scope) -> Caller:
    if caller.scope is None:
        raise UnauthorizedError(f"this needs a token of scope {needed}: send `Authorization: Bearer alb_…`")
    if not caller.may(needed):
        raise ForbiddenError(f"token {caller.name!r} has scope {caller.scope}, and this needs {needed}")
    return caller


Reader = Annotated[Caller, Depends(reader)]
WriteCaller = Annotated[Caller, Depends(writer)]
AdminCaller = Annotated[Caller, Depends(admin)]
