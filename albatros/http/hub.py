"""Wakes live streams: one thread for all of them looks at the database when somebody committed something to watch.

The thread lives while there are streams. It keeps the newest events, so that streams that are up to date cost no query
each; a stream that is behind reads for itself. Streams keep a cursor and no queue, so a slow one costs nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice

from albatros.db.session import Database
from albatros.db.signals import Signals, Topic
from albatros.db.watching import EventRow, LogPosition, events_after, log_positions, newest_event, settled
from albatros.errors import DatabaseUnavailableError, OverloadedError
from albatros.log import get_logger

log = get_logger(__name__)
MAX_STREAMS = 256
BATCH = 500
KEPT_EVENTS = 1000
POLL_SECONDS = 1.0
"""How late a commit of another process is seen at most."""
PAUSE_SECONDS = 0.02
"""Between two looks: under a storm of commits, streams are told once for many."""
PAUSE_AFTER_FAILURE_SECONDS = 2.0


class Subscription:
    """One stream's place in the hub: for events, or for the log of one Job."""

    def __init__(self, job_id: int | None) -> None:
        self.job_id = job_id
        self.position: LogPosition | None = None
        """How far the Job's log is; None when there is no such Job."""
        self.closed = False
        self.greeted = False
        """The hub looked at least once since it came."""
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    async def wait(self, timeout_seconds: float) -> bool:
        """Sleep until there may be something new; False when nothing was for that long."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    def wake(self) -> None:
        """Called from the hub's thread."""
        # The loop of a server that is going down is closed before its streams are.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._changed.set)


class Hub:
    """All live streams of this process."""

    def __init__(self, database: Database, signals: Signals) -> None:
        self._database = database
        self._signals = signals
        self._lock = threading.Lock()
        self._streams: set[Subscription] = set()
        self._recent: deque[EventRow] = deque(maxlen=KEPT_EVENTS)
        self._horizon: int | None = None
        self._running = False
        self._closed = False

    def check_room(self) -> None:
        """Raise OverloadedError when MAX_STREAMS are open: asked before an answer begins, since later is too late."""
        with self._lock:
            if self._closed or len(self._streams) >= MAX_STREAMS:
                raise OverloadedError(f"{len(self._streams)} live streams are open already; come back later")

    def size(self) -> int:
        """Streams that are open."""
        with self._lock:
            return len(self._streams)

    @contextmanager
    def subscribe(self, job_id: int | None = None) -> Iterator[Subscription]:
        """Be woken for new events, or for the log of a Job."""
        stream = Subscription(job_id)
        with self._lock:
            stream.closed = self._closed
            self._streams.add(stream)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="live", daemon=True).start()
        self._signals.notify(Topic.WATCHERS)
        try:
            yield stream
        finally:
            with self._lock:
                self._streams.discard(stream)

    def recent(self, after: int) -> Sequence[EventRow] | None:
        """Up to BATCH events after an id, or None when they are too old to be kept here: `older` reads them."""
        with self._lock:
            if self._horizon is None or after >= self._horizon:
                return ()
            if not self._recent or after < self._recent[0].id - 1:
                return None
            return tuple(islice((row for row in self._recent if row.id > after), BATCH))

    def older(self, after: int) -> Sequence[EventRow]:
        """Up to BATCH events after an id, from the database."""
        with self._lock:
            horizon = self._horizon
        with self._database.read() as session:
            return events_after(session, after, BATCH, up_to=horizon or 0)

    def close(self) -> None:
        """End every stream, and take no more: the server goes down."""
        with self._lock:
            self._closed = True
            streams = tuple(self._streams)
        for stream in streams:
            stream.closed = True
            stream.wake()
        self._signals.notify(Topic.WATCHERS)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            seen = self._signals.seen(Topic.WATCHERS)
            with self._lock:
                streams = tuple(self._streams)
                if not streams or self._closed:
                    # What happens from now on is not followed: the next thread starts afresh.
                    self._running, self._horizon = False, None
                    self._recent.clear()
                    return
            try:
                more = self._look(streams)
                pause.wait(PAUSE_SECONDS)
                if not more:
                    self._signals.wait(Topic.WATCHERS, seen, POLL_SECONDS)
            except DatabaseUnavailableError as error:
                log.warning("live streams wait for the database", error=error.detail)
                pause.wait(PAUSE_AFTER_FAILURE_SECONDS)

    def _look(self, streams: Sequence[Subscription]) -> bool:
        """Wake the streams that have something new; True when more events are waiting already."""
        jobs = {stream.job_id for stream in streams if stream.job_id is not None}
        with self._database.read() as session:
            horizon = newest_event(session) if self._horizon is None else self._horizon
            rows = settled(events_after(session, horizon, BATCH), horizon)
            positions = log_positions(session, jobs) if jobs else {}
        with self._lock:
            self._recent.extend(rows)
            self._horizon = rows[-1].id if rows else horizon
        for stream in streams:
            position = positions.get(stream.job_id) if stream.job_id is not None else None
            if position != stream.position or (rows and stream.job_id is None) or not stream.greeted:
                stream.position, stream.greeted = position, True
                stream.wake()
        return len(rows) == BATCH
