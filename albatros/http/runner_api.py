"""What runners call: claim, heartbeat, log, blobs, result; with the Attempt's token and the runner's nonce.

The protocol is described in docs/reference/runner-protocol.md. A runner is as hostile as the repo that it builds.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, NoReturn

from fastapi import APIRouter, Depends, Header, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from albatros.db import logs
from albatros.db.signals import Topic
from albatros.domain.references import Blob, parse_digest
from albatros.errors import (
    BadInputError,
    ProtocolError,
    TooLargeError,
    UnauthorizedError,
)
from albatros.flows import attempts
from albatros.http.deps import AppContext, context_of
from albatros.settings import LimitSettings
from albatros.store.base import BlobWriter

router = APIRouter(include_in_schema=False)
MAX_RESULT = 16 << 20
MAX_QUERY = 256 << 10
MAX_CALL = 16 << 10
MAX_DEPTH = 16
MAX_LOG_PIECE = 64 << 10
MAX_PIECES_A_SECOND = 20
WRITE_SIZE = 1 << 20
MAX_QUERIED = 1000
_NONCE = re.compile(r"[0-9a-f]{32}", re.ASCII)

Context = Annotated[AppContext, Depends(context_of)]
Nonce = Annotated[str, Header(alias="x-albatros-nonce")]


def _token(authorization: Annotated[str, Header()] = "") -> str:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise UnauthorizedError("a runner sends its attempt's token as `Authorization: Bearer …`")
    return token.strip()


Token = Annotated[str, Depends(_token)]


@router.get("/runner/albatros-runner.pyz")
async def zipapp(context: Context) -> Response:
    """The runner itself."""
    headers = {"ETag": f'"{context.runner.digest}"', "Cache-Control": "no-cache"}
    return Response(context.runner.content, media_type="application/zip", headers=headers)


@router.post("/runner/v1/claim")
async def claim(request: Request, context: Context, token: Token) -> dict[str, object]:
    """Give the Attempt to this runner, and tell it what to do."""
    body = await read_json(request, MAX_CALL)
    if body.get("protocol") != attempts.PROTOCOL:
        raise ProtocolError(
            f"the runner speaks protocol {str(body.get('protocol'))[:20]}, this server {attempts.PROTOCOL}; "
            "fetch the runner from the server again"
        )
    nonce, where = read_nonce(body.get("nonce")), (body.get("host"), body.get("allocation"))
    return await run_in_threadpool(
        attempts.claim, context.database, context.signals, context.settings, context.forges, token, nonce, *where
    )


@router.post("/runner/v1/heartbeat")
async def heartbeat(request: Request, context: Context, token: Token) -> dict[str, object]:
    """Renew the lease; `stop` says why the runner should end, if it should."""
    body = await read_json(request, MAX_CALL)
    lease = context.settings.limits.lease_seconds
    stop = await run_in_threadpool(attempts.heartbeat, context.database, token, read_nonce(body.get("nonce")), lease)
    return {"lease_seconds": lease, "stop": stop}


@router.put("/runner/v1/log/{seq}", status_code=HTTPStatus.NO_CONTENT)
async def log_piece(seq: int, offset: int, request: Request, context: Context, token: Token, nonce: Nonce) -> Response:
    """Keep one numbered piece of log; a piece that is there already is not written again."""
    data = await _body(request, MAX_LOG_PIECE)
    _check_piece(context.settings.limits, seq, offset, len(data))
    future = context.writer.submit(
        lambda session: logs.append(session, attempts.claimed(session, token, nonce).id, seq, offset, data),
        Topic.WATCHERS,
    )
    await asyncio.wrap_future(future)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post("/runner/v1/blobs/query")
async def query_blobs(request: Request, context: Context, token: Token) -> dict[str, list[str]]:
    """Say which of these blobs the runner has to upload."""
    body = await read_json(request, MAX_QUERY)
    wanted = _blobs(body.get("blobs"))
    nonce = read_nonce(body.get("nonce"))
    missing = await run_in_threadpool(attempts.missing_blobs, context.database, context.store, token, nonce, wanted)
    return {"missing": missing}


@router.put("/runner/v1/blobs/{digest}", status_code=HTTPStatus.CREATED)
async def upload_blob(digest: str, request: Request, context: Context, token: Token, nonce: Nonce) -> dict[str, object]:
    """Keep a blob whose bytes have the digest they were sent under."""
    expected = parse_digest(digest)
    most = context.settings.limits.output_bytes
    allowance = await run_in_threadpool(attempts.upload_allowance, context.database, token, nonce, most)
    if int(request.headers.get("content-length") or 0) > allowance.bytes_left:
        raise TooLargeError(
            f"the outputs of an attempt have at most {most} bytes; raise limits.output_bytes, or keep less"
        )
    with context.uploads.only(allowance.attempt_id), await run_in_threadpool(context.store.writer) as writer:
        await _receive(request, writer, allowance.bytes_left)
        if writer.digest() != expected:
            raise BadInputError(f"what was sent as {expected} is {writer.digest()}; nothing was kept, send it again")
        blob = await run_in_threadpool(writer.commit)
    future = context.writer.submit(lambda session: attempts.record_upload(session, token, nonce, blob))
    await asyncio.wrap_future(future)
    return {"digest": blob.digest, "size": blob.size}


@router.post("/runner/v1/result")
async def result(request: Request, context: Context, token: Token) -> dict[str, object]:
    """Commit how the Attempt ended."""
    # So large a body is taken from nobody unknown.
    await run_in_threadpool(attempts.check_token, context.database, token)
    body = await read_json(request, MAX_RESULT)
    read_nonce(body.get("nonce"))
    await run_in_threadpool(
        attempts.report_result, context.database, context.store, context.signals, context.settings, token, body
    )
    return {}


async def _receive(request: Request, writer: BlobWriter, limit: int) -> None:
    """Write the body in large pieces: a hop to a thread for every packet would cost more than the hashing."""
    size = 0
    pending = bytearray()
    async for chunk in _chunks(request):
        size += len(chunk)
        if size > limit:
            raise TooLargeError(f"{limit} bytes were left for the outputs of this attempt; nothing was kept")
        pending += chunk
        if len(pending) >= WRITE_SIZE:
            await run_in_threadpool(writer.write, bytes(pending))
            pending.clear()
    await run_in_threadpool(writer.write, bytes(pending))


async def _body(request: Request, limit: int) -> bytes:
    data = bytearray()
    async for chunk in _chunks(request):
        data += chunk
        if len(data) > limit:
            raise TooLargeError(f"this call takes at most {limit} bytes")
    return bytes(data)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as error:
        raise BadInputError("the connection ended in the middle of the body; nothing was kept") from error


async def read_json(request: Request, limit: int) -> dict[str, object]:
    """A body that is a JSON object of at most `limit` bytes. Raises BadInputError or TooLargeError."""
    try:
        value = json.loads(await _body(request, limit), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"the body is not JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise BadInputError("the body is JSON, but not an object")
    if _is_deep(value):
        raise BadInputError(f"the body is JSON with more than {MAX_DEPTH} levels")
    return value


def _refuse_constant(name: str) -> NoReturn:
    """NaN and Infinity are Python's own; no database keeps them as JSON."""
    raise ValueError(f"{name} is no JSON")


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        lists = [item for item in level if isinstance(item, list)]
        objects = [item for item in level if isinstance(item, dict)]
        level = [child for item in lists for child in item]
        level += [child for item in objects for child in item.values()]
    return bool(level)


def _check_piece(limits: LimitSettings, seq: int, offset: int, size: int) -> None:
    """Raise for a piece that no log of ours has, before anything of it is kept."""
    if seq < 0 or offset < 0 or size == 0:
        raise BadInputError("a piece of log has a number and an offset from 0 on, and at least one byte")
    if offset + size > limits.log_bytes + MAX_LOG_PIECE or seq > MAX_PIECES_A_SECOND * (limits.job_seconds + 60):
        raise TooLargeError(
            f"the log of an attempt has at most {limits.log_bytes} bytes, in at most {MAX_PIECES_A_SECOND} pieces "
            "a second; the runner keeps its head and tail"
        )


def read_nonce(value: object) -> str:
    """The runner's nonce in a body. Raises BadInputError."""
    if not isinstance(value, str) or not _NONCE.fullmatch(value):
        raise BadInputError("nonce must be 32 lower-case hexadecimal digits")
    return value


def _blobs(value: object) -> list[Blob]:
    if not isinstance(value, list) or len(value) > MAX_QUERIED:
        raise BadInputError(f"blobs must be a list of at most {MAX_QUERIED} items")
    return [read_blob(item) for item in value]


def read_blob(item: object) -> Blob:
    """A blob as a body names it. Raises BadInputError."""
    digest, size = (item.get("digest"), item.get("size")) if isinstance(item, dict) else (None, None)
    if not isinstance(digest, str) or type(size) is not int or size < 0:
        raise BadInputError("blobs: an item needs a digest and a size in bytes")
    return Blob(parse_digest(digest), size)
