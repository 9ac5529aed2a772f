"""Bytes that can be asked for in part: one range of a file or log (RFC 9110, section 14)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from albatros.http.problems import problem

_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes to be sent: `open` gives those from one place up to another, in pieces.

    `etag` is empty where the bytes may still grow.
    """

    size: int
    media_type: str
    open: Callable[[int, int], Iterator[bytes]]
    etag: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def answer(request: Request, content: Content) -> Response:
    """The whole of it, the one range that was asked for, or nothing when the client has it already.

    Several ranges in one, and what is no range, are answered with the whole, as the RFC allows.
    """
    headers = {"Accept-Ranges": "bytes", **content.headers}
    if content.etag:
        headers["ETag"] = f'"{content.etag}"'
        if _has_it(request, headers["ETag"]):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    start, stop, status = 0, content.size, HTTPStatus.OK
    match = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if match is not None and _is_range(match[1], match[2]) and _range_holds(request, headers.get("ETag")):
        start, stop = _bounds(match[1], match[2], content.size)
        if start >= stop:
            return _unsatisfiable(content.size)
        status = HTTPStatus.PARTIAL_CONTENT
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{content.size}"
    headers["Content-Length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=content.media_type)
    return StreamingResponse(content.open(start, stop), status, headers, content.media_type)


def _has_it(request: Request, etag: str) -> bool:
    known = request.headers.get("if-none-match", "")
    return known.strip() == "*" or etag in (item.strip().removeprefix("W/") for item in known.split(","))


def _range_holds(request: Request, etag: str | None) -> bool:
    """False when the range was meant for other bytes than these."""
    condition = request.headers.get("if-range")
    return condition is None or condition == etag


def _is_range(first: str, last: str) -> bool:
    return bool(first or last) and not (first and last and int(last) < int(first))


def _bounds(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


def _unsatisfiable(size: int) -> Response:
    status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    detail = f"there are {size} bytes, and the range lies outside of them"
    headers = {"Content-Range": f"bytes */{size}"}
    return problem(status, "range", "Range not satisfiable", detail, headers)
