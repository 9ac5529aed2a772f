"""Logging in with a forge: out to its page, and back with a code.

What belongs to one login is bound to one browser by a signed cookie that lives for minutes. The PKCE verifier and the
nonce are made of its state with the server's key, so they are kept nowhere; the forge's access token is forgotten as
soon as it has told who came.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote, unquote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from albatros.db import people
from albatros.domain.access import Person
from albatros.domain.refs import one_line
from albatros.errors import AlbatrosError, BadInputError, ForbiddenError, NotFoundError, UnauthorizedError
from albatros.flows import operators
from albatros.forges.base import Login, LoginAttempt
from albatros.http.deps import AppContext, Context
from albatros.http.login import give_cookie, local_path, login_page
from albatros.http.render import Viewer
from albatros.http.sessions import Session, SessionKind, cookie_prefix, is_https, person_proof, signer
from albatros.log import get_logger
from albatros.settings import Settings

log = get_logger(__name__)
router = APIRouter(include_in_schema=False)
ATTEMPT_SECONDS = 600
MAX_TEXT = 4096
_STALE = "this login took too long, or was begun in another browser; begin again"

Text = Annotated[str, Query(max_length=MAX_TEXT)]


@dataclass(frozen=True, slots=True)
class _Begun:
    """What the cookie of a login says."""

    forge: str
    state: str
    target: str

    def __str__(self) -> str:
        return f"{self.forge}:{self.state}:{quote(self.target, safe='')}"


@router.get("/login/{forge}")
def begin(context: Context, forge: str, next: Text = "/") -> Response:  # noqa: A002 - the word in URLs
    """Send the browser to the forge."""
    login = _login_of(context, forge)
    begun = _Begun(forge, secrets.token_urlsafe(32), local_path(next))
    answer = RedirectResponse(login.address(_attempt(context.settings, begun)), HTTPStatus.SEE_OTHER)
    answer.set_cookie(
        _cookie(context.settings),
        signer(context.settings.keys).seal("login", str(begun), ATTEMPT_SECONDS),
        max_age=ATTEMPT_SECONDS,
        httponly=True,
        samesite="lax",
        secure=is_https(context.settings),
    )
    return answer


@router.get("/login/{forge}/callback")
def come_back(
    context: Context,
    request: Request,
    forge: str,
    code: Text = "",
    state: Text = "",
    error: Text = "",
    iss: Text = "",
) -> Response:
    """Take the browser back from the forge, and log its person in."""
    try:
        login = _login_of(context, forge)
        begun = _begun(context.settings, request, forge, state)
        if error:
            raise ForbiddenError(f"{forge} did not let you in ({one_line(error, 80)})")
        if iss and iss.rstrip("/") != login.issuer:
            raise UnauthorizedError(f"the login is from {one_line(iss, 200)!r} and not from {forge}; begin again")
        if not code:
            raise BadInputError(f"{forge} sent you back without a code; begin again")
        answer = _log_in(context, login, begun, code)
    except AlbatrosError as problem:
        log.warning("a login failed", forge=one_line(forge, 80), error=problem.detail)
        answer = login_page(context, Viewer(), "/", problem.detail, problem.status)
    answer.delete_cookie(_cookie(context.settings), httponly=True, samesite="lax", secure=is_https(context.settings))
    return answer


def _log_in(context: AppContext, login: Login, begun: _Begun, code: str) -> Response:
    identity = login.identify(_attempt(context.settings, begun), code)
    with context.database.write() as session:
        person = people.logged_in(session, begun.forge, identity.subject, identity.login)
    operators.remember(
        context.settings, context.database, Person(person.id, begun.forge, identity.login, identity.subject)
    )
    log.info("somebody logged in", forge=begun.forge, person=identity.login, id=identity.subject)
    answer = RedirectResponse(begun.target, HTTPStatus.SEE_OTHER)
    give_cookie(answer, context.settings, Session(SessionKind.PERSON, person.id, person_proof(person.sessions)))
    return answer


def _begun(settings: Settings, request: Request, forge: str, state: str) -> _Begun:
    """The login that this browser began, if it is the one that comes back. Raises ForbiddenError."""
    text = signer(settings.keys).unseal("login", request.cookies.get(_cookie(settings), ""))
    if text is None:
        raise ForbiddenError(_STALE)
    name, expected, target = text.split(":")
    if name != forge or not hmac.compare_digest(expected.encode(), state.encode("utf-8", "replace")):
        raise ForbiddenError(_STALE)
    return _Begun(name, expected, unquote(target))


def _attempt(settings: Settings, begun: _Begun) -> LoginAttempt:
    keys = signer(settings.keys)
    return LoginAttempt(
        # From the settings and never from a Host header, or a stranger would say where the code goes.
        redirect_uri=f"{settings.server.url.rstrip('/')}/login/{begun.forge}/callback",
        state=begun.state,
        nonce=keys.mac("nonce", begun.state),
        verifier=keys.mac("verifier", begun.state),
    )


def _login_of(context: AppContext, forge: str) -> Login:
    login = context.logins.get(forge)
    if login is None:
        raise NotFoundError(f"nobody can log in with {one_line(forge, 80)!r} here")
    return login


def _cookie(settings: Settings) -> str:
    return f"{cookie_prefix(settings)}albatros_login"
