"""Errors as answers: problem+json (RFC 9457) for programs, a page for browsers.

A problem says what happened and what to do next. What nobody expected is logged with its trace and told as a bare 500;
what is the server's own fault is logged too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from albatros.errors import AlbatrosError, BadInputError, LogGapError, TooLargeError, UnauthorizedError
from albatros.http.render import error_page, wants_html
from albatros.http.schemas import ProblemOut
from albatros.log import get_logger

log = get_logger(__name__)
PROBLEM_TYPE = "urn:albatros:problem:"
RETRY_AFTER_SECONDS = 5
MAX_REPORTED = 5

DOCUMENTED = {
    "description": "A problem (RFC 9457)",
    "content": {"application/problem+json": {"schema": ProblemOut.model_json_schema()}},
}
"""How OpenAPI shows every error."""


class ProblemResponse(JSONResponse):
    """An RFC 9457 problem."""

    media_type = "application/problem+json"


def problem(
    status: HTTPStatus, slug: str, title: str, detail: str, headers: Mapping[str, str] | None = None, **members: object
) -> ProblemResponse:
    """Build a problem; `members` are its extension members."""
    body = {"type": PROBLEM_TYPE + slug, "title": title, "status": int(status), "detail": detail, **members}
    return ProblemResponse(body, status_code=status, headers=dict(headers or {}))


def problem_of(error: AlbatrosError) -> ProblemResponse:
    """The problem of one of our errors, with the headers that its status asks for."""
    members = {"expected": error.expected} if isinstance(error, LogGapError) else {}
    return problem(error.status, error.slug, error.title, error.detail, _headers_of(error), **members)


def unexpected() -> ProblemResponse:
    """What is told of an error that nobody expected: the log has the rest."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return problem(status, "internal", "Internal error", "something unexpected went wrong; the server's log says what")


def install(app: FastAPI) -> None:
    """Have every error of `app` answered this way."""
    app.add_exception_handler(AlbatrosError, _on_albatros_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


def _headers_of(error: AlbatrosError) -> dict[str, str]:
    if isinstance(error, UnauthorizedError):
        return {"WWW-Authenticate": 'Bearer realm="albatros"'}
    if error.status is HTTPStatus.SERVICE_UNAVAILABLE:
        return {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return {}


async def _on_albatros_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, AlbatrosError):
        raise error
    return answer_error(request, error)


def answer_error(request: Request, error: AlbatrosError) -> Response:
    """The answer to a call that ended with one of our errors."""
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("a call failed", method=request.method, path=request.url.path, error=error.detail)
    if wants_html(request):
        page = error_page(request, error.status, error.title, error.detail)
        page.headers.update(_headers_of(error))
        return page
    return problem_of(error)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return answer_error(request, BadInputError(_explain(error.errors())))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """What the framework itself raises: no such path, a method that a path does not take, a body over its limit."""
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    detail = _FRAMEWORK_DETAILS.get(status, str(error.detail))
    if wants_html(request):
        page = error_page(request, status, status.phrase, detail)
        page.headers.update(error.headers or {})
        return page
    return problem(status, status.phrase.lower().replace(" ", "-"), status.phrase, detail, error.headers)


_FRAMEWORK_DETAILS = {
    HTTPStatus.NOT_FOUND: "there is nothing at this path; /api/v1/openapi.json lists what there is",
    HTTPStatus.METHOD_NOT_ALLOWED: "this path does not take this method; the Allow header lists those it takes",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the body is larger than this path takes",
}


def _explain(errors: Sequence[object]) -> str:
    """One sentence of the first few errors, without the values: they may hold anything."""
    parts = []
    for item in errors[:MAX_REPORTED]:
        if isinstance(item, dict):
            where = ".".join(str(part) for part in item.get("loc", ())) or "the request"
            parts.append(f"{where}: {item.get('msg', 'is wrong')}")
    more = len(errors) - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def too_large(limit: int) -> ProblemResponse:
    """A body of more than `limit` bytes."""
    return problem_of(TooLargeError(f"this path takes a body of at most {limit} bytes"))
