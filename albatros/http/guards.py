"""What stands around every endpoint: security headers, a limit on bodies, and the last catch of an unexpected error."""

from __future__ import annotations

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from albatros.http.problems import too_large, unexpected
from albatros.log import get_logger

log = get_logger(__name__)

BODY_BYTES = 64 << 10
"""Largest body of a path that sets no limit of its own."""
OWN_LIMIT = ("/webhooks/", "/runner/")
"""Paths whose endpoints read their body piece by piece, each under a limit of its own."""
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""For answers that do not set these themselves: nothing of them is a page."""
_SECURITY_HEADERS = {name.lower().encode(): value.encode() for name, value in SECURITY_HEADERS.items()}


class SecurityHeaders:
    """Adds the headers above where an endpoint did not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                added = [(name, value) for name, value in _SECURITY_HEADERS.items() if name not in present]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class LastCatch:
    """Logs an error that nobody expected, and answers 500 when nothing was sent yet."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception:
            log.exception("a request failed unexpectedly", method=scope["method"], path=scope["path"][:200])
            if started:
                # A cut connection is the only way left to say that the answer is not whole.
                raise
            await unexpected()(scope, receive, send)


class BodyLimit:
    """Refuses bodies over BODY_BYTES, by their announced length or as they pass."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(OWN_LIMIT):
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if not _is_small(announced):
            await too_large(BODY_BYTES)(scope, receive, send)
            return
        size = 0

        async def counted_receive() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > BODY_BYTES:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return message

        await self._app(scope, counted_receive, send)


def _is_small(announced: str) -> bool:
    return announced.isascii() and announced.isdigit() and len(announced) < 20 and int(announced) <= BODY_BYTES
