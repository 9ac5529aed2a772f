"""Webhooks: what forges post. A body is read piece by piece under its limit, then verified and committed in a thread.

Bodies are unauthenticated until they are read: only a few large ones are held at once, and none for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from albatros.db.signals import Topic
from albatros.errors import BadInputError, DatabaseUnavailableError, NotFoundError, OverloadedError, TooLargeError
from albatros.flows.receive import Receipt, receive
from albatros.http.deps import AppContext, context_of
from albatros.log import get_logger

log = get_logger(__name__)
router = APIRouter(tags=["webhooks"])
THREADS = 16
"""Webhooks that may be at work at once: apart from the other calls, since one may wait for its forge."""
BODY_SECONDS = 30
LARGE_BYTES = 1 << 20
LARGE_BODIES = 4


class Intake:
    """What the webhooks of one application share: their threads, and how many large bodies are in memory."""

    def __init__(self) -> None:
        self.threads = CapacityLimiter(THREADS)
        self._large = 0

    async def read(self, request: Request, limit: int) -> bytes:
        """The body. Raises TooLargeError over `limit` bytes, OverloadedError when too many large ones are held."""
        if _announced(request) > limit:
            raise TooLargeError(f"a webhook's body may have {limit} bytes (limits.webhook_bytes)")
        body = bytearray()
        holds = False
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for piece in request.stream():
                    body += piece
                    if len(body) > limit:
                        raise TooLargeError(f"a webhook's body may have {limit} bytes (limits.webhook_bytes)")
                    if len(body) > LARGE_BYTES and not holds:
                        self._hold()
                        holds = True
            return bytes(body)
        except TimeoutError:
            raise BadInputError(f"the body did not arrive within {BODY_SECONDS} s; send it again") from None
        except ClientDisconnect:
            raise BadInputError("the connection ended before the body did") from None
        finally:
            self._large -= holds

    def _hold(self) -> None:
        if self._large >= LARGE_BODIES:
            raise OverloadedError(
                f"{LARGE_BODIES} large webhooks are being read already; send this again in a few seconds"
            )
        self._large += 1


async def intake_of(request: Request) -> Intake:
    """The application's one Intake; made in the event loop, where nothing comes between the look and the making."""
    state = request.app.state
    if not hasattr(state, "intake"):
        state.intake = Intake()
    intake: Intake = state.intake
    return intake


@router.post("/webhooks/{forge}", status_code=HTTPStatus.ACCEPTED, summary="Take in a forge's webhook")
async def webhook(
    forge: str,
    request: Request,
    context: Annotated[AppContext, Depends(context_of)],
    intake: Annotated[Intake, Depends(intake_of)],
) -> JSONResponse:
    """202 with the ids of the Builds made, or none and the reason; 200 with the first answer for the same delivery."""
    configured = context.forges.get(forge)
    if configured is None:
        raise NotFoundError("no forge of this name is configured; the webhook's address ends with a name of [[forges]]")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadInputError("only application/json is taken: set the webhook's content type to it in the forge")
    body = await intake.read(request, context.settings.limits.webhook_bytes)
    headers: Mapping[str, str] = {name.lower(): value for name, value in request.headers.items()}
    try:
        receipt = await to_thread.run_sync(
            receive, context.settings, context.writer, configured, headers, body, limiter=intake.threads
        )
    except DatabaseUnavailableError:
        # The forge may never send it again; what it tells is found by a look at its heads when the database is back.
        log.warning("a webhook could not be kept; the forge's heads will be compared instead", forge=forge)
        context.signals.notify(Topic.RECONCILER)
        raise
    return _answer(receipt)


def _answer(receipt: Receipt) -> JSONResponse:
    content = {"delivery": receipt.delivery, "builds": list(receipt.builds), "reason": receipt.reason}
    return JSONResponse(content, status_code=receipt.status)


def _announced(request: Request) -> int:
    text = request.headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadInputError("the Content-Length is no number")
    return int(text)
