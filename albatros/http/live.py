"""Live streams (server-sent events): what happens to builds, and the log of a Job as it is written.

`/api/v1/events` sends each event under its kind; its id resumes the stream. `/api/v1/jobs/{id}/log/live` sends `log`
with `{attempt, offset, text}`, its id being `ATTEMPT:OFFSET` behind the text, and `end` with `{job, state, reason}`.
A stream ends without `end` after MAX_STREAM_SECONDS, when the server goes down, or when its caller is no longer let in,
which is looked at every RECHECK_SECONDS: come back with Last-Event-ID.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from albatros.db import logs, pages, watching
from albatros.db.models import Job
from albatros.db.watching import EventRow, LogPosition
from albatros.domain.refs import RepoFilter
from albatros.domain.states import is_end
from albatros.errors import AlbatrosError, BadInputError, NotFoundError
from albatros.http.caller import Caller
from albatros.http.deps import AppContext, Context, Reader, caller_of, reader
from albatros.http.hub import Hub
from albatros.http.params import MAX_ID, JobId, repo_filter
from albatros.log import get_logger

log = get_logger(__name__)
router = APIRouter(prefix="/api/v1", tags=["live"])
HEARTBEAT_SECONDS = 15
MAX_STREAM_SECONDS = 3600
RECHECK_SECONDS = 60
"""So long a token that was revoked, or a session that is over, is still listened with."""
READ_BYTES = 64 << 10
RETRY_MILLISECONDS = 2000
_LOG_ID = re.compile(r"([1-9][0-9]{0,8}):([0-9]{1,15})", re.ASCII)
_EVENT_ID = re.compile(r"[0-9]{1,18}", re.ASCII)


class EventStream(StreamingResponse):
    """Server-sent events (HTML Living Standard, 9.2)."""

    media_type = "text/event-stream"


def _stream(content: AsyncIterator[str]) -> EventStream:
    # Without the second header nginx holds the stream back until its buffer is full.
    return EventStream(content, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


async def hub_of(request: Request) -> Hub:
    """The hub of this application."""
    hub: Hub = request.app.state.hub
    return hub


LiveHub = Annotated[Hub, Depends(hub_of)]
LastEventId = Annotated[str, Header(alias="Last-Event-ID", max_length=64, description="where the last stream ended")]


class _Door:
    """Lets the caller of a stream in again from time to time, as a new call would be."""

    def __init__(self, request: Request, caller: Caller) -> None:
        self._request = request
        self.caller = caller
        self._until = time.monotonic() + MAX_STREAM_SECONDS
        self._again = time.monotonic() + RECHECK_SECONDS

    async def is_open(self, job_id: int | None = None) -> bool:
        """False when the stream is over, or its caller may no longer see what it is of."""
        at = time.monotonic()
        if at >= self._until or at < self._again:
            return at < self._until
        self._again = at + RECHECK_SECONDS
        return await run_in_threadpool(self._look, job_id)

    def _look(self, job_id: int | None) -> bool:
        context = self.caller.context
        try:
            self.caller = reader(caller_of(self._request, context), context)
            if job_id is not None:
                self.caller.job(job_id)
        except AlbatrosError as error:
            log.info("a live stream is over", caller=self.caller.name, problem=error.detail)
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which events a stream sends."""

    door: _Door
    repo: RepoFilter
    build: int | None

    def covers(self, row: EventRow) -> bool:
        return (self.build is None or row.build_id == self.build) and self.repo.covers(row.forge, row.owner, row.name)

    def seen(self, rows: Sequence[EventRow]) -> Sequence[EventRow]:
        """Those of `rows` that the caller may see; a forge that cannot be asked hides what only it could open."""
        return [row for row in rows if self.covers(row) and self.door.caller.offers(row)]


@router.get("/events", response_class=EventStream)
def events(
    request: Request,
    context: Context,
    hub: LiveHub,
    caller: Reader,
    repo: Annotated[str, Query(max_length=400, description="[FORGE/]OWNER/NAME")] = "",
    build: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
    last_event_id: LastEventId = "",
) -> EventStream:
    """What happens to builds from now on, or after the event whose id is given."""
    hub.check_room()
    wanted = _Wanted(_Door(request, caller), repo_filter(repo), build)
    if last_event_id and not _EVENT_ID.fullmatch(last_event_id):
        raise BadInputError("Last-Event-ID is not the id of an event")
    with context.database.read() as session:
        newest = watching.newest_event(session)
    after = min(int(last_event_id), newest) if last_event_id else newest
    return _stream(_events(hub, wanted, after))


async def _events(hub: Hub, wanted: _Wanted, after: int) -> AsyncIterator[str]:
    yield f"retry: {RETRY_MILLISECONDS}\n\n"
    with hub.subscribe() as stream:
        while not stream.closed and await wanted.door.is_open():
            rows = hub.recent(after)
            if rows is None:
                rows = await run_in_threadpool(hub.older, after)
            after = rows[-1].id if rows else after
            for row in await _judged(wanted, rows):
                yield _frame(str(row.id), row.kind, _describe(row))
            if not rows and not await stream.wait(HEARTBEAT_SECONDS):
                yield ": heartbeat\n\n"


async def _judged(wanted: _Wanted, rows: Sequence[EventRow]) -> Sequence[EventRow]:
    """Where a forge may have to be asked, that is for a thread."""
    if not rows or not wanted.door.caller.who.of_forge:
        return wanted.seen(rows)
    return await run_in_threadpool(wanted.seen, rows)


def _describe(row: EventRow) -> dict[str, object]:
    repo = {"forge": row.forge, "owner": row.owner, "name": row.name}
    at = row.created_at.isoformat() + "Z"
    return {"id": row.id, "kind": row.kind, "repo": repo, "build": row.build_id, "at": at, "data": dict(row.data)}


def _frame(event_id: str, kind: str, data: dict[str, object]) -> str:
    prefix = f"id: {event_id}\n" if event_id else ""
    return f"{prefix}event: {kind}\ndata: {json.dumps(data)}\n\n"


@dataclass(slots=True)
class _Reading:
    """How far a stream has read: the Attempt, and the bytes of its log."""

    attempt: int
    attempt_id: str | None
    offset: int


@router.get("/jobs/{id}/log/live", response_class=EventStream)
def live_log(
    request: Request,
    context: Context,
    hub: LiveHub,
    caller: Reader,
    job_id: JobId,
    attempt: Annotated[int | None, Query(ge=1, le=10_000, description="the attempt to begin with")] = None,
    offset: Annotated[int, Query(ge=0, le=1 << 50, description="the byte of its log to begin with")] = 0,
    last_event_id: LastEventId = "",
) -> EventStream:
    """The log of a job as it is written, from its newest attempt on, until the job has ended."""
    hub.check_room()
    job = caller.job(job_id)
    with context.database.read() as session:
        attempts = {one.number: one.id for one in pages.list_attempts(session, job_id)}
    if last_event_id:
        attempt, offset = _parse_log_id(last_event_id)
    number = attempt or max(attempts, default=0)
    if number and number not in attempts:
        raise NotFoundError(f"job {job_id} has no attempt {number}")
    return _stream(_log(_Door(request, caller), hub, job, _Reading(number, attempts.get(number), offset)))


def _parse_log_id(text: str) -> tuple[int, int]:
    match = _LOG_ID.fullmatch(text)
    if match is None:
        raise BadInputError("Last-Event-ID is not of this stream: it is ATTEMPT:OFFSET")
    return int(match[1]), int(match[2])


async def _log(door: _Door, hub: Hub, job: Job, reading: _Reading) -> AsyncIterator[str]:
    yield f"retry: {RETRY_MILLISECONDS}\n\n"
    with hub.subscribe(job.id) as stream:
        while not stream.closed and await door.is_open(job.id):
            position, caller = stream.position, door.caller
            frame = await _next_piece(caller.context, reading, position) if position is not None else ""
            if caller.who.of_forge and not await run_in_threadpool(caller.offers, job.build.repo):
                return
            if frame:
                yield frame
            elif position is not None and is_end(position.state) and position.attempt == reading.attempt:
                yield _frame("", "end", {"job": job.id, "state": position.state, "reason": position.reason})
                return
            elif position is not None and position.attempt > reading.attempt:
                # Attempts only follow one another, and what the last one wrote was read to its end.
                reading.attempt, reading.attempt_id, reading.offset = position.attempt, position.attempt_id, 0
            elif position is None and stream.greeted:
                return
            elif not await stream.wait(HEARTBEAT_SECONDS):
                yield ": heartbeat\n\n"


async def _next_piece(context: AppContext, reading: _Reading, position: LogPosition) -> str:
    """The next text of the Attempt being read; empty when there is none yet, or no more."""
    over = is_end(position.state) or position.attempt != reading.attempt
    if reading.attempt_id is None or (not over and position.log_bytes <= reading.offset):
        return ""
    try:
        data = await run_in_threadpool(
            logs.read, context.database, context.store, reading.attempt_id, reading.offset, READ_BYTES
        )
    except NotFoundError:
        # The retention took it away while it was being read: there is no more of it.
        return ""
    text, size = _decode(data, whole=over and len(data) < READ_BYTES)
    if not size:
        return ""
    begin, reading.offset = reading.offset, reading.offset + size
    return _frame(
        f"{reading.attempt}:{reading.offset}", "log", {"attempt": reading.attempt, "offset": begin, "text": text}
    )


def _decode(data: bytes, *, whole: bool) -> tuple[str, int]:
    """Text, and how many bytes it took: a character whose other bytes have yet to come is left for the next time."""
    cut = len(data)
    if not whole:
        for back in range(1, min(4, len(data)) + 1):
            byte = data[-back]
            if byte >= 0xC0:
                length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
                cut = len(data) - back if back < length else len(data)
            if byte < 0x80 or byte >= 0xC0:
                break
    return data[:cut].decode("utf-8", "replace"), cut
