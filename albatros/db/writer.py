"""Group commit: many small writes share one transaction, made by one thread.

A result is handed out only after the commit that holds it. An item that raises undoes its own savepoint and nobody
else's; a transaction that fails fails its whole batch. The queue is bounded: over it, callers are told at once.

Items of one kind may be written together, by a few statements in one savepoint. Whatever goes wrong there is undone,
and each of them is written alone.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar, cast

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from albatros.db.session import Database
from albatros.db.signals import Signals, Topic
from albatros.db.upsert import add_to_counters
from albatros.errors import AlbatrosError, DatabaseUnavailableError
from albatros.log import get_logger

T = TypeVar("T")
Part = TypeVar("Part")
Together = Callable[[Session, Sequence[Part]], Sequence[T]]
"""Writes many parts at once; the results are in the order of the parts."""
BATCH_ITEMS = 200
QUEUED_ITEMS = 5_000
CONFLICT_TRIES = 5
# PostgreSQL's serialization_failure and deadlock_detected: the same item goes through when it is tried again.
_CONFLICTS = frozenset({"40001", "40P01"})

_log = get_logger(__name__)


@dataclass(slots=True)
class _Item:
    """One write: what to do, whom to tell, whom to wake, and how often it lost against another server."""

    work: Callable[[Session], object]
    future: Future[object]
    topics: tuple[Topic, ...]
    together: Together[object, object] | None = None
    part: object = None
    conflicts: int = 0
    result: object = None
    error: Exception | None = None


class Writer:
    """The one thread of this process that commits small writes."""

    def __init__(
        self, database: Database, signals: Signals, *, batch_items: int = BATCH_ITEMS, queued_items: int = QUEUED_ITEMS
    ) -> None:
        self._database = database
        self._signals = signals
        self._batch_items = batch_items
        self._queue: queue.Queue[_Item | None] = queue.Queue(maxsize=queued_items)
        self._again: list[_Item] = []
        self._working = False
        self._closed = False
        # Guards `_closed` against a submit that would land behind the end marker, and the counters' tally.
        self._lock = threading.Lock()
        self._tally: Tally[str] = Tally()
        self._tally_queued = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Session], T], *topics: Topic) -> Future[T]:
        """Have `work` run in a savepoint of the next transaction; `topics` are notified once it is committed.

        The future ends with what `work` returned or raised, never before the commit; with DatabaseUnavailableError
        when the transaction failed. Raises DatabaseUnavailableError when too much is waiting, or after `close`.
        """
        future: Future[T] = Future()
        self._put(_Item(work, cast("Future[object]", future), topics))
        return future

    def submit_part(
        self, together: Together[Part, T], part: Part, alone: Callable[[Session], T], *topics: Topic
    ) -> Future[T]:
        """As `submit`, and in one go with the other parts that wait for the same `together`.

        When that raises, it is undone, and `alone` is run for each part in a savepoint of its own.
        """
        future: Future[T] = Future()
        shared = cast("Together[object, object]", together)
        self._put(_Item(alone, cast("Future[object]", future), topics, shared, part))
        return future

    def is_busy(self) -> bool:
        """True while somebody waits for a commit."""
        return self._working or not self._queue.empty()

    def _put(self, item: _Item) -> None:
        with self._lock:
            if self._closed:
                raise DatabaseUnavailableError("the server is shutting down; send this again when it is back")
            try:
                self._queue.put_nowait(item)
            except queue.Full:
                raise DatabaseUnavailableError(
                    f"{self._queue.maxsize} writes wait for the database already; send this again in a few seconds"
                ) from None

    def count(self, name: str) -> None:
        """Add one to a counter soon, without waiting: however often this is called, one write at a time is queued.

        What was counted since the last commit is lost when the process dies.
        """
        with self._lock:
            self._tally[name] += 1
            if self._tally_queued:
                return
            self._tally_queued = True
        try:
            self.submit(self._write_tally)
        except DatabaseUnavailableError:
            with self._lock:
                self._tally_queued = False

    def close(self) -> None:
        """Commit everything that was submitted, then end the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _write_tally(self, session: Session) -> None:
        with self._lock:
            tally, self._tally, self._tally_queued = self._tally, Tally(), False
        add_to_counters(session, tally)

    def _run(self) -> None:
        ended = False
        while not ended or self._again:
            batch, self._again = self._again, []
            if not batch and not ended:
                self._working = False
                first = self._queue.get()
                self._working = True
                ended = first is None
                batch = [first] if first is not None else []
            while not ended and len(batch) < self._batch_items:
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    ended = True
                else:
                    batch.append(item)
            self._commit([item for item in batch if item.conflicts or item.future.set_running_or_notify_cancel()])

    def _commit(self, batch: list[_Item]) -> None:
        if not batch:
            return
        try:
            with self._database.write() as session:
                for together, items in _runs(batch):
                    if together is None or not self._apply_together(session, together, items):
                        for item in items:
                            self._apply(session, item)
        except Exception as error:  # noqa: BLE001 - whatever broke the transaction, everybody who waits must hear of it
            failure = error if isinstance(error, DatabaseUnavailableError) else _unexpected(error)
            for item in batch:
                item.future.set_exception(item.error or failure)
            return
        self._tell(batch)

    def _apply_together(self, session: Session, together: Together[object, object], items: Sequence[_Item]) -> bool:
        """Run items of one kind in one savepoint; False when each has to be run alone."""
        if len(items) == 1:
            return False
        try:
            with session.begin_nested():
                results = together(session, [item.part for item in items])
        except DBAPIError as error:
            if error.connection_invalidated or (isinstance(error, OperationalError) and not _is_conflict(error)):
                raise
            return False
        except Exception:  # noqa: BLE001 - the one that it comes from raises it again, alone
            return False
        finally:
            session.expunge_all()
        for item, result in zip(items, results, strict=True):
            item.result, item.error = result, None
        return True

    def _apply(self, session: Session, item: _Item) -> None:
        """Run one item in its savepoint. Raises only what makes the whole transaction unusable."""
        item.error = None
        try:
            with session.begin_nested():
                item.result = item.work(session)
        except OperationalError as error:
            if not _is_conflict(error):
                raise
            item.conflicts += 1
            item.error = DatabaseUnavailableError("other servers write the same rows; send this again in a few seconds")
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            item.error = error
        except Exception as error:  # noqa: BLE001 - it belongs to whoever submitted the item
            item.error = error
        finally:
            # One item must not read what another left in the identity map, or the map would grow with the batch.
            session.expunge_all()

    def _tell(self, batch: list[_Item]) -> None:
        topics: set[Topic] = set()
        for item in batch:
            if item.error is None:
                topics.update(item.topics)
        self._signals.notify(*sorted(topics))
        for item in batch:
            if item.error is None:
                item.future.set_result(item.result)
            elif isinstance(item.error, DatabaseUnavailableError) and 0 < item.conflicts < CONFLICT_TRIES:
                self._again.append(item)
            else:
                item.future.set_exception(item.error)


def _runs(batch: Sequence[_Item]) -> Iterator[tuple[Together[object, object] | None, list[_Item]]]:
    """Neighbours of one kind, and everything in the order of its coming."""
    for together, items in groupby(batch, key=lambda item: item.together):
        yield together, list(items)


def _is_conflict(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) in _CONFLICTS


def _unexpected(error: Exception) -> AlbatrosError:
    _log.error("a transaction failed", error=type(error).__name__, detail=str(error))
    failure = DatabaseUnavailableError(f"the transaction failed ({type(error).__name__}); send this again")
    failure.__cause__ = error
    return failure
