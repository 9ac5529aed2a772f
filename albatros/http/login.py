"""Logging in on the dashboard with an API token, and who looks at a page.

A cookie alone changes nothing: a form must come from this site (Origin) and from a page of this session (form token).
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated
from urllib.parse import parse_qs, urlencode, urlsplit

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from albatros.db import people
from albatros.errors import BadInputError, ForbiddenError, TooLargeError, UnauthorizedError
from albatros.http.caller import Caller
from albatros.http.deps import AppContext, Context, caller_of, find_token, who_by_cookie
from albatros.http.render import Viewer, page
from albatros.http.sessions import (
    LIFETIME_SECONDS,
    Session,
    SessionKind,
    cookie_name,
    is_https,
    signer,
    token_proof,
)
from albatros.settings import Settings

router = APIRouter(include_in_schema=False)
MAX_FORM_BYTES = 4096
MAX_TARGET = 1000


def page_caller(request: Request, context: Context) -> Caller:
    """Who opens a page or sends a form: somebody logged in, a bearer token, or nobody."""
    cookie = request.cookies.get(cookie_name(context.settings), "")
    if request.headers.get("authorization") or not cookie:
        return caller_of(request, context)
    return Caller(context, who_by_cookie(context, cookie))


AnyPageCaller = Annotated[Caller, Depends(page_caller)]


def viewer_of(request: Request, context: Context, caller: AnyPageCaller) -> Viewer:
    """How the frame of every page sees them."""
    if caller.who.scope is None or request.headers.get("authorization"):
        return Viewer(caller.name)
    cookie = request.cookies.get(cookie_name(context.settings), "")
    return Viewer(caller.name, form_token=signer(context.settings.keys).form_token(cookie))


PageViewer = Annotated[Viewer, Depends(viewer_of)]


def reading_caller(caller: AnyPageCaller, context: Context) -> Caller:
    """Who looks at builds: somebody logged in, or anybody on a public server. Raises UnauthorizedError."""
    if caller.who.scope is None and not context.settings.server.public:
        raise UnauthorizedError("this server shows its builds to those who log in")
    return caller


PageCaller = Annotated[Caller, Depends(reading_caller)]


async def form_of(request: Request, context: Context) -> Mapping[str, str]:
    """The fields of a form that this site sent. Raises ForbiddenError, BadInputError or TooLargeError."""
    _check_origin(request, context.settings.server.url)
    if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
        raise BadInputError("the body is not a form")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise TooLargeError(f"the form is larger than {MAX_FORM_BYTES} bytes")
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=16)
    except ValueError as error:
        raise BadInputError(f"the form cannot be read: {error}") from error
    return {name: values[-1] for name, values in fields.items()}


Form = Annotated[Mapping[str, str], Depends(form_of)]


def _check_origin(request: Request, server_url: str) -> None:
    """Browsers send Origin with every form; a referrer of this host is taken from those few that do not."""
    origin = request.headers.get("origin") or request.headers.get("referer", "")
    host = urlsplit(origin).netloc
    if not host or host not in {request.headers.get("host", ""), urlsplit(server_url).netloc}:
        raise ForbiddenError(
            "the form does not come from a page of this server; open the page here and repeat the step"
        )


def form_caller(request: Request, context: Context, caller: AnyPageCaller, viewer: PageViewer, form: Form) -> Caller:
    """Who sent a form of their session. Raises UnauthorizedError or ForbiddenError."""
    if not viewer.form_token:
        raise UnauthorizedError("your login is over; log in again")
    keys = signer(context.settings.keys)
    keys.check_form_token(request.cookies.get(cookie_name(context.settings), ""), form.get("form_token", ""))
    return caller


FormCaller = Annotated[Caller, Depends(form_caller)]


def local_path(target: str) -> str:
    """Where to go after the login: a path of this site, whatever the form says."""
    # Browsers read a backslash as a slash, and leave out tabs and line ends before they look.
    safe = target.startswith("/") and not target.startswith("//") and "\\" not in target and target.isprintable()
    return target if safe and len(target) <= MAX_TARGET else "/"


@router.get("/login")
def login_form(context: Context, viewer: PageViewer, next: str = "/") -> Response:  # noqa: A002 - the word in URLs
    """The form."""
    return login_page(context, viewer, local_path(next))


def login_page(
    context: AppContext, viewer: Viewer, target: str, problem: str = "", status: HTTPStatus = HTTPStatus.OK
) -> Response:
    """The ways to log in, and what went wrong with the last one."""
    ways = [(name, f"/login/{name}?{urlencode({'next': target})}") for name in context.logins]
    return page("login.html", viewer=viewer, here="login", status=status, next=target, problem=problem, ways=ways)


@router.post("/login")
def login(context: Context, form: Form) -> Response:
    """Take a token, give a cookie."""
    target = local_path(form.get("next", "/"))
    token = find_token(context, form.get("token", "").strip())
    if token is None:
        problem = "This token is not known, was revoked or has expired."
        return login_page(context, Viewer(), target, problem, HTTPStatus.UNAUTHORIZED)
    answer = RedirectResponse(target, HTTPStatus.SEE_OTHER)
    give_cookie(answer, context.settings, Session(SessionKind.TOKEN, token.id, token_proof(token.token_hash)))
    return answer


def give_cookie(answer: Response, settings: Settings, session: Session) -> None:
    """Log somebody in, in this browser."""
    answer.set_cookie(
        cookie_name(settings),
        signer(settings.keys).issue(session),
        max_age=LIFETIME_SECONDS,
        httponly=True,
        samesite="lax",
        secure=is_https(settings),
    )


@router.post("/logout")
def logout(context: Context, caller: FormCaller) -> Response:
    """Take the cookie back; a person's sessions end in every browser."""
    if caller.who.person is not None and not caller.who.token:
        with context.database.write() as session:
            people.end_sessions(session, caller.who.person.id)
    answer = RedirectResponse("/", HTTPStatus.SEE_OTHER)
    answer.delete_cookie(
        cookie_name(context.settings), httponly=True, samesite="lax", secure=is_https(context.settings)
    )
    return answer
