"""What endpoints are given: the server's parts, and who is calling.

A caller is a bearer token, or on a safe method the cookie of somebody logged in on the dashboard. What they may do in a
Repo is asked of the Caller that an endpoint is given: what they may not see does not exist (404).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Protocol

from fastapi import Depends, Request

from albatros.db import people, tokens
from albatros.db.models import Person as Row
from albatros.db.models import Token
from albatros.db.session import Database
from albatros.db.signals import Signals
from albatros.db.writer import Writer
from albatros.domain.access import NOBODY, Person, Scope, Who
from albatros.domain.refs import read_bound
from albatros.errors import DatabaseUnavailableError, ForbiddenError, UnauthorizedError
from albatros.flows.access import Roles
from albatros.flows.operators import is_operator
from albatros.forges.base import ForgeAdapter, Hooks, Login, Permissions
from albatros.http.caller import Caller
from albatros.http.sessions import SessionKind, cookie_name, person_proof, signer, token_proof
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
    forges: Mapping[str, ForgeAdapter]
    writer: Writer
    signals: Signals
    runner: RunnerBundle
    version: str
    permissions: Mapping[str, Permissions] = field(default_factory=dict)
    """What is asked what people may do, by the name of their forge."""
    logins: Mapping[str, Login] = field(default_factory=dict)
    """The forges that people can log in with, by name."""
    hooks: Mapping[str, Hooks] = field(default_factory=dict)
    """The forges whose webhooks can be managed, by name."""
    uploads: Uploads = field(default_factory=Uploads)

    @cached_property
    def roles(self) -> Roles:
        """What decides who may do what."""
        return Roles(self.permissions, public=self.settings.server.public)


async def context_of(request: Request) -> AppContext:
    """The server's parts."""
    context: AppContext = request.app.state.context
    return context


Context = Annotated[AppContext, Depends(context_of)]


def caller_of(request: Request, context: Context) -> Caller:
    """Who calls: a good token, or nobody when none was sent. Raises UnauthorizedError for a bad one."""
    header = request.headers.get("authorization")
    if header is not None:
        return Caller(context, _by_token(context, header))
    cookie = request.cookies.get(cookie_name(context.settings))
    if cookie is not None and request.method in _SAFE_METHODS:
        who = who_by_cookie(context, cookie)
        return Caller(context, replace(who, scope=Scope.READ) if who.scope is not None else who)
    return Caller(context, NOBODY)


def who_by_cookie(context: AppContext, cookie: str) -> Who:
    """Who logged in on the dashboard; NOBODY when the session is over or forged."""
    session = signer(context.settings.keys).read(cookie)
    if session is None:
        return NOBODY
    if session.kind is SessionKind.PERSON:
        with context.database.read() as transaction:
            person = people.find(transaction, session.row_id)
        good = person is not None and session.proof == person_proof(person.sessions)
        return _who_is(context, person) if good and person is not None else NOBODY
    with context.database.read() as transaction:
        token = tokens.find_by_id(transaction, session.row_id)
    good = token is not None and hmac.compare_digest(session.proof, token_proof(token.token_hash))
    return _who_has(context, token) if good and token is not None else NOBODY


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


def _by_token(context: AppContext, header: str) -> Who:
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "bearer":
        raise UnauthorizedError("only bearer tokens are taken: send `Authorization: Bearer alb_…`")
    token = find_token(context, value.strip())
    who = _who_has(context, token) if token is not None else NOBODY
    if who.scope is None:
        raise UnauthorizedError(
            "this token is not known, was revoked or has expired; make one with `albatros token create`"
        )
    return who


def _who_is(context: AppContext, row: Row, scope: Scope = Scope.ADMIN) -> Who:
    """A person, while the forge that they logged in with is configured and they still have their name there."""
    if row.forge not in context.permissions or not row.login:
        return NOBODY
    person = Person(row.id, row.forge, row.login, row.subject)
    return Who(row.login, scope, person, operator=is_operator(context.settings, context.database, person))


def _who_has(context: AppContext, token: Token) -> Who:
    """What a token may do: what its owner may, up to its scope and in the Repos that it is bound to."""
    scope, bound = Scope(token.scope), read_bound(token.bound)
    if token.person_id is None:
        return Who(token.name, scope, bound=bound, token=True)
    who = _who_is(context, token.person, scope) if token.person is not None else NOBODY
    return replace(who, bound=bound, token=True) if who.scope is not None else NOBODY


AnyCaller = Annotated[Caller, Depends(caller_of)]


def reader(caller: AnyCaller, context: Context) -> Caller:
    """Whoever may look around: any token, or anybody on a public server. Raises UnauthorizedError."""
    if caller.who.scope is None and not context.settings.server.public:
        raise UnauthorizedError("reading needs a token here: send `Authorization: Bearer alb_…`")
    return caller


def writer(caller: AnyCaller) -> Caller:
    """A caller of scope write; finding a row asks whether it holds there. Raises UnauthorizedError, ForbiddenError."""
    return _with_scope(caller, Scope.WRITE)


def admin(caller: AnyCaller) -> Caller:
    """A caller who is admin of the whole server. Raises UnauthorizedError or ForbiddenError.

    An admin of one Repo is an AdminSomewhere who finds it with `caller.repo(…, Scope.ADMIN)`.
    """
    if not _with_scope(caller, Scope.ADMIN).who.everywhere:
        raise ForbiddenError(
            f"{caller.who.name!r} is not admin of this server: name them in [[operators]] of its configuration"
        )
    return caller


def admin_somewhere(caller: AnyCaller) -> Caller:
    """A caller of scope admin; finding a row asks whether it holds there. Raises UnauthorizedError, ForbiddenError."""
    return _with_scope(caller, Scope.ADMIN)


def _with_scope(caller: Caller, needed: Scope) -> Caller:
    who = caller.who
    if who.scope is None:
        raise UnauthorizedError(f"this needs a token of scope {needed}: send `Authorization: Bearer alb_…`")
    if not who.holds(needed):
        raise ForbiddenError(f"token {who.name!r} has scope {who.scope}, and this needs {needed}")
    return caller


Reader = Annotated[Caller, Depends(reader)]
WriteCaller = Annotated[Caller, Depends(writer)]
AdminSomewhere = Annotated[Caller, Depends(admin_somewhere)]
AdminCaller = Annotated[Caller, Depends(admin)]
