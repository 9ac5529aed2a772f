"""Templates and static files: read once, served under a content security policy that lets nothing in from outside."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from albatros import __version__
from albatros.assets import web_dir
from albatros.domain.states import BuildState, JobState, PublicationState
from albatros.errors import NotFoundError

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}

# What changes a page; a browser hears only the kinds that it names.
EVENT_KINDS = " ".join(
    f"{what}.{state}"
    for what, states in (("build", BuildState), ("job", JobState), ("publication", PublicationState))
    for state in states
)

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at a page."""

    name: str = ""
    form_token: str = ""
    """Empty unless logged in by a cookie: what the forms of this session carry."""


@dataclass(frozen=True, slots=True)
class _StaticFile:
    content: bytes
    media_type: str
    digest: str


@lru_cache(maxsize=1)
def _static_files() -> dict[str, _StaticFile]:
    """All of them in memory: they are few, small, and never change while the server runs."""
    found = {}
    for path in sorted((web_dir() / "static").iterdir()):
        content = path.read_bytes()
        media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        found[path.name] = _StaticFile(content, media_type, hashlib.sha256(content).hexdigest()[:16])
    return found


@lru_cache(maxsize=1)
def _templates() -> Environment:
    """Every template is compiled here, so that a broken one shows at the first page and not at the rarest."""
    environment = Environment(
        loader=FileSystemLoader(web_dir() / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sentence"] = sentence
    environment.globals.update(static=_static_url, version=__version__, event_kinds=EVENT_KINDS)
    for name in environment.list_templates():
        environment.get_template(name)
    return environment


def sentence(text: str) -> str:
    """A message as a sentence: errors begin small, since they are also printed after a colon."""
    first = text.split(" ", 1)[0]
    begun = text[:1].upper() + text[1:] if first.isalpha() else text
    return begun if not begun or "\n" in begun or begun[-1] in ".!?…" else f"{begun}."


def _static_url(name: str) -> str:
    return f"/static/{name}?v={_static_files()[name].digest}"


def page(
    template: str, *, viewer: Viewer, here: str = "", status: HTTPStatus = HTTPStatus.OK, **values: object
) -> HTMLResponse:
    """Render a template into an answer; `here` is the entry of the navigation that it belongs to."""
    html = _templates().get_template(template).render(viewer=viewer, here=here, **values)
    return HTMLResponse(html, status_code=status, headers=SECURITY_HEADERS)


def error_page(request: Request, status: HTTPStatus, title: str, detail: str) -> Response:
    """An error as a page for a person; who is not logged in and has to be is sent to the form."""
    path = request.url.path
    if status is HTTPStatus.UNAUTHORIZED and request.method == "GET":
        target = path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?next={quote(target)}", HTTPStatus.SEE_OTHER)
    return page(
        "error.html", viewer=Viewer(), here="error", status=status, code=int(status), title=title, detail=detail
    )


def wants_html(request: Request) -> bool:
    """True for a browser that opens a page; the API and runners are never answered with one."""
    path = request.url.path
    return "text/html" in request.headers.get("accept", "") and not path.startswith(("/api/", "/runner/", "/webhooks/"))


@router.get("/static/{name}")
async def static_file(request: Request, name: str, v: str = "") -> Response:
    """A file of `web/static`; under its own digest it may be cached for ever."""
    found = _static_files().get(name)
    if found is None:
        raise NotFoundError(f"there is no static file {name[:80]!r}")
    headers = {
        "ETag": f'"{found.digest}"',
        "Cache-Control": "public, max-age=31536000, immutable" if v == found.digest else "no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)


@router.get("/favicon.ico")
async def favicon(request: Request) -> Response:
    """For browsers that ask without reading the page."""
    return await static_file(request, "favicon.svg")
