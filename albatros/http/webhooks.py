"""Webhooks: what forges post. A body is read piece by piece under its limit, then verified, and only then parsed.

Bodies are unauthenticated until they are read: only a few large ones are held at once, and none for long. A small body
is verified and parsed right here, since a thread costs more than that; a push waits for its commit without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from albatros.db.heads import HeadsInDoubtError
from albatros.db.inbox import Recorded
from albatros.db.signals import Topic
from albatros.domain.refs import check_flavor
from albatros.errors import (
    AlbatrosError,
    BadInputError,
    DatabaseUnavailableError,
    NotFoundError,
    OverloadedError,
    TooLargeError,
)
from albatros.flows.receive import COMMIT_SECONDS, Receipt, answer, not_committed, read, take, take_push
from albatros.forges.base import ForgeAdapter
from albatros.http.deps import AppContext, context_of
from albatros.http.guards import LastCatch, SecurityHeaders
from albatros.http.handover import Handover
from albatros.http.problems import answer_error
from albatros.log import get_logger

log = get_logger(__name__)
THREADS = 16
"""Webhooks that may be at work at once: apart from the other calls, since one may wait for its forge."""
BODY_SECONDS = 30
SMALL_BYTES = 64 << 10
LARGE_BYTES = 1 << 20
LARGE_BODIES = 4


class Intake:
    """What the webhooks of one application share: their threads, the pushes that wait, large bodies in memory."""

    def __init__(self) -> None:
        self.threads = CapacityLimiter(THREADS)
        self.commits: Handover[Recorded] = Handover(asyncio.get_running_loop())
        self._large = 0

    async def read(self, request: Request, headers: Mapping[str, str], limit: int) -> bytes:
        """The body. Raises TooLargeError over `limit` bytes, OverloadedError when too many large ones are held."""
        if _announced(headers) > limit:
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


router = APIRouter(tags=["webhooks"])
PREFIX = "/webhooks/"


_FLAVOR: Mapping[str, object] = {
    "name": "flavor",
    "in": "query",
    "description": "a name for what is to be built of the commit: each is a Build and a commit status of its own",
    "schema": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,31}$"},
}


@router.post(
    PREFIX + "{forge}",
    status_code=HTTPStatus.ACCEPTED,
    summary="Take in a forge's webhook",
    openapi_extra={"parameters": [_FLAVOR]},
)
async def webhook(forge: str, request: Request) -> JSONResponse:
    """202 with the ids of the Builds made, or none and the reason; 200 with the first answer for the same delivery."""
    context = await context_of(request)
    configured = context.forges.get(forge)
    if configured is None:
        raise NotFoundError("no forge of this name is configured; the webhook's address ends with a name of [[forges]]")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.scope["headers"]}
    flavor = _flavor_of(request)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadInputError("only application/json is taken: set the webhook's content type to it in the forge")
    intake = await intake_of(request)
    body = await intake.read(request, headers, context.settings.limits.webhook_bytes)
    try:
        receipt = await _take_in(context, intake, configured, headers, body, flavor)
    except DatabaseUnavailableError:
        # The forge may never send it again; what it tells is found by a look at its heads when the database is back.
        log.warning("a webhook could not be kept; the forge's heads will be compared instead", forge=forge)
        context.signals.notify(Topic.RECONCILER)
        raise
    content = {"delivery": receipt.delivery, "builds": list(receipt.builds), "reason": receipt.reason}
    return JSONResponse(content, status_code=receipt.status)


class Shortcut:
    """Calls `webhook` without the framework, whose way to an endpoint costs as much as all the rest of a push."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._webhook = SecurityHeaders(LastCatch(self._answer))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        short = scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(PREFIX)
        await (self._webhook if short else self._app)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request({**scope, "app": self._app}, receive)
        response: Response
        try:
            response = await webhook(scope["path"].removeprefix(PREFIX), request)
        except AlbatrosError as error:
            response = answer_error(request, error)
        await response(scope, receive, send)


async def _take_in(
    context: AppContext, intake: Intake, forge: ForgeAdapter, headers: Mapping[str, str], body: bytes, flavor: str
) -> Receipt:
    writer, settings = context.writer, context.settings
    if forge.reads_disk or len(body) > SMALL_BYTES:
        inbound = await to_thread.run_sync(read, writer, forge, headers, body, limiter=intake.threads)
    else:
        inbound = read(writer, forge, headers, body)
    inbound = inbound.of_flavor(flavor)
    push = take_push(settings, writer, forge, inbound, body)
    if push is not None:
        try:
            return answer(writer, forge, inbound, await intake.commits.wait(push, COMMIT_SECONDS))
        except HeadsInDoubtError:
            log.debug("the forge is asked for a head", forge=forge.name, delivery=inbound.delivery_id)
        except TimeoutError:
            raise not_committed() from None
    return await to_thread.run_sync(take, settings, writer, forge, inbound, body, limiter=intake.threads)


def _flavor_of(request: Request) -> str:
    if not request.scope["query_string"]:
        return ""
    found = request.query_params.getlist("flavor")
    if len(found) > 1:
        raise BadInputError("the webhook's address names two flavors; give each a webhook of its own")
    return check_flavor(found[0]) if found else ""


def _announced(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadInputError("the Content-Length is no number")
    return int(text)
