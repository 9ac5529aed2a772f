"""Group commit: many small writes share one transaction, made by one thread.

A result is handed out only after the commit that holds it. An item that raises undoes its own savepoint and nobody
else's; a transaction that fails fails its whole batch. The queue is bounded: over it, callers are told at once.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter as Tally
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar, cast

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from albatros.db.session import Database
from albatros.db.signals import Signals, Topic
from albatros.db.upsert import add_to_counters
from albatros.errors import AlbatrosError, DatabaseUnavailableError
from albatros.log import get_logger

T = TypeVar("T")
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
        item = _Item(work, cast("Future[object]", future), topics)
        with self._lock:
            if self._closed:
                raise DatabaseUnavailableError("the server is shutting down; send this again when it is back")
            try:
                self._queue.put_nowait(item)
            except queue.Full:
                raise DatabaseUnavailableError(
                    f"{self._queue.maxsize} writes wait for the database already; send this again in a few seconds"
                ) from None
        return future

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
                first = self._queue.get()
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
                for item in batch:
                    self._apply(session, item)
        except Exception as error:  # noqa: BLE001 - whatever broke the transaction, everybody who waits must hear of it
            failure = error if isinstance(error, DatabaseUnavailableError) else _unexpected(error)
            for item in batch:
                item.future.set_exception(item.error or failure)
            return
        self._tell(batch)

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


def _is_conflict(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) in _CONFLICTS


def _unexpected(error: Exception) -> AlbatrosError:
    _log.error("a transaction failed", error=type(error).__name__, detail=str(error))
    failure = DatabaseUnavailableError(f"the transaction failed ({type(error).__name__}); send this again")
    failure.__cause__ = error
    return failure
