"""Logging in on the dashboard with an API token, and who looks at a page.

A cookie alone changes nothing: a form must come from this site (Origin) and from a page of this session (form token).
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from albatros.domain.access import Scope
from albatros.errors import BadInputError, ForbiddenError, TooLargeError, UnauthorizedError
from albatros.http.deps import Caller, Context, caller_by_cookie, caller_of, find_token
from albatros.http.render import Viewer, page
from albatros.http.sessions import COOKIE, LIFETIME_SECONDS, signer

router = APIRouter(include_in_schema=False)
MAX_FORM_BYTES = 4096


def viewer_of(request: Request, context: Context) -> Viewer:
    """Who looks at a page that anybody may see, such as the login form."""
    cookie = request.cookies.get(COOKIE, "")
    caller = _page_caller(request, context, cookie)
    if caller.scope is None or request.headers.get("authorization"):
        return Viewer(caller.name, public_only=caller.public_only)
    return Viewer(
        caller.name,
        public_only=caller.public_only,
        may_write=caller.may(Scope.WRITE),
        form_token=signer(context.settings.server.data).form_token(cookie),
    )


def _page_caller(request: Request, context: Context, cookie: str) -> Caller:
    if request.headers.get("authorization") or not cookie:
        return caller_of(request, context)
    return caller_by_cookie(context, cookie, at_most=Scope.WRITE)


AnyViewer = Annotated[Viewer, Depends(viewer_of)]


def reading_viewer(viewer: AnyViewer, context: Context) -> Viewer:
    """Who looks at builds: somebody logged in, or anybody on a public server. Raises UnauthorizedError."""
    if viewer.public_only and not context.settings.server.public:
        raise UnauthorizedError("this server shows its builds to those who log in; an API token is enough")
    return viewer


PageViewer = Annotated[Viewer, Depends(reading_viewer)]


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


def writing_viewer(request: Request, context: Context, viewer: AnyViewer, form: Form) -> Viewer:
    """Who pressed a button that changes something. Raises UnauthorizedError or ForbiddenError."""
    if not viewer.form_token:
        raise UnauthorizedError("your login is over; log in again")
    keys = signer(context.settings.server.data)
    keys.check_form_token(request.cookies.get(COOKIE, ""), form.get("form_token", ""))
    if not viewer.may_write:
        raise ForbiddenError(f"token {viewer.name!r} may only read; log in with one of scope write")
    return viewer


WritingViewer = Annotated[Viewer, Depends(writing_viewer)]


def _local_path(target: str) -> str:
    """Where to go after the login: a path of this site, whatever the form says."""
    safe = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if safe else "/"


@router.get("/login")
def login_form(viewer: AnyViewer, next: str = "/") -> Response:  # noqa: A002 - the word that everybody knows from URLs
    """The form."""
    return page("login.html", viewer=viewer, here="login", next=_local_path(next), problem="")


@router.post("/login")
def login(context: Context, form: Form) -> Response:
    """Take a token, give a cookie."""
    target = _local_path(form.get("next", "/"))
    token = find_token(context, form.get("token", "").strip())
    if token is None:
        problem = "This token is not known, was revoked or has expired."
        status = HTTPStatus.UNAUTHORIZED
        return page("login.html", viewer=Viewer(), here="login", status=status, next=target, problem=problem)
    answer = RedirectResponse(target, HTTPStatus.SEE_OTHER)
    answer.set_cookie(
        COOKIE,
        signer(context.settings.server.data).issue(token.id, token.token_hash),
        max_age=LIFETIME_SECONDS,
        httponly=True,
        samesite="lax",
        secure=context.settings.server.url.startswith("https://"),
    )
    return answer


@router.post("/logout")
def logout(request: Request, context: Context, form: Form) -> Response:
    """Take the cookie back."""
    cookie = request.cookies.get(COOKIE, "")
    signer(context.settings.server.data).check_form_token(cookie, form.get("form_token", ""))
    answer = RedirectResponse("/", HTTPStatus.SEE_OTHER)
    answer.delete_cookie(COOKIE, httponly=True, samesite="lax")
    return answer
