"""The collector: takes away what the retention lets go, then the blobs that nothing needs any more.

Short transactions, so it may run beside uploads, publishers and another collector. A blob goes by its row first, and
only if nobody touched it within the grace; a killed run leaves bytes without a row, which the next one finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import islice
from typing import TypeVar

from sqlalchemy.orm import Session

from albatros.db import garbage
from albatros.db.session import Database
from albatros.db.session import now as clock
from albatros.domain.references import Digest
from albatros.domain.retention import Cutoffs, build_may_go, outputs_may_go
from albatros.log import get_logger
from albatros.settings import RetentionSettings
from albatros.store.base import BlobStore

BATCH = 500
"""Rows changed in one transaction."""
BUILDS_BATCH = 20
"""Builds deleted in one transaction, each with everything of it."""

T = TypeVar("T")
Transactions = Callable[[], AbstractContextManager[Session]]
log = get_logger(__name__)


@dataclass(slots=True)
class CollectReport:
    """What was taken away, or in a dry run would be; `bytes` are those of `blobs`."""

    builds: int = 0
    logs: int = 0
    artifacts: int = 0
    images: int = 0
    """Published Images that stay as a record, without their bytes."""
    deliveries: int = 0
    """Deliveries that stay as a record, without their body."""
    events: int = 0
    blobs: int = 0
    bytes: int = 0


def collect(
    database: Database,
    store: BlobStore,
    settings: RetentionSettings,
    *,
    dry_run: bool = False,
    now: datetime | None = None,
) -> CollectReport:
    """Take away what is too old at `now`; a dry run does it in one transaction that is undone, and spares the store.

    Raises StoreError or DatabaseUnavailableError; what was done until then is done, and the next run goes on.
    """
    cutoffs = Cutoffs.at(
        now or clock(),
        builds_days=settings.builds_days,
        logs_days=settings.logs_days,
        artifacts_days=settings.artifacts_days,
        deliveries_days=settings.deliveries_days,
    )
    if dry_run:
        with _undone(database) as transaction:
            return _Collector(transaction, transaction, store, cutoffs, dry_run).run(settings.keep_builds)
    report = _Collector(database.read, database.write, store, cutoffs, dry_run).run(settings.keep_builds)
    if any(asdict(report).values()):
        log.info("collected", **asdict(report))
    return report


@contextmanager
def _undone(database: Database) -> Iterator[Transactions]:
    """Transactions that are all the same one, which is rolled back in the end."""
    with database.write() as session:
        yield lambda: nullcontext(session)
        session.rollback()


@dataclass(slots=True)
class _Collector:
    """One run."""

    look: Transactions
    change: Transactions
    store: BlobStore
    cutoffs: Cutoffs
    dry_run: bool
    report: CollectReport = field(default_factory=CollectReport)

    def run(self, keep_builds: int) -> CollectReport:
        # First, since a dry run could not tell these from the bytes whose row it takes away later.
        self._bytes_without_row()
        self._builds(keep_builds)
        self._logs()
        self._outputs()
        self._deliveries_and_events()
        self._blobs()
        return self.report

    def _builds(self, keep: int) -> None:
        with self.look() as session:
            past = garbage.past_builds(session, self.cutoffs.builds)
        old = (build.id for build in past if build_may_go(build, self.cutoffs.builds, keep))
        for batch in _batches(old, BUILDS_BATCH):
            with self.change() as session:
                self.report.builds += garbage.delete_builds(session, batch)

    def _logs(self) -> None:
        with self.look() as session:
            old = garbage.attempts_with_logs(session, self.cutoffs.logs)
        for batch in _batches(old, BATCH):
            with self.change() as session:
                self.report.logs += garbage.forget_logs(session, batch)

    def _outputs(self) -> None:
        cutoff = self.cutoffs.artifacts
        with self.look() as session:
            with_artifacts = garbage.builds_with_artifacts(session, cutoff)
            with_images = garbage.builds_with_image_bytes(session, cutoff)
        for batch in _batches((build.id for build in with_artifacts if outputs_may_go(build, cutoff)), BATCH):
            with self.change() as session:
                self.report.artifacts += garbage.delete_artifacts(session, batch)
        for batch in _batches((build.id for build in with_images if outputs_may_go(build, cutoff)), BATCH):
            with self.change() as session:
                self.report.images += garbage.forget_image_bytes(session, batch)

    def _deliveries_and_events(self) -> None:
        cutoffs = self.cutoffs
        self.report.deliveries = self._all(lambda session: garbage.forget_bodies(session, cutoffs.deliveries, BATCH))
        self._all(lambda session: garbage.delete_deliveries(session, cutoffs.builds, BATCH))
        self.report.events = self._all(lambda session: garbage.delete_events(session, cutoffs.events, BATCH))

    def _all(self, step: Callable[[Session], int]) -> int:
        """Repeat a step, a transaction each, until it finds nothing; how much it found."""
        total = 0
        while True:
            with self.change() as session:
                found = step(session)
            if not found:
                return total
            total += found

    def _blobs(self) -> None:
        after = ""
        while True:
            with self.look() as session:
                digests = garbage.unused_blobs(session, self.cutoffs.blobs, after, BATCH)
            if not digests:
                return
            after = digests[-1]
            with self.change() as session:
                gone = garbage.delete_unused_blobs(session, digests, self.cutoffs.blobs)
            for digest, size in gone:
                self._delete_bytes(Digest(digest), size)

    def _bytes_without_row(self) -> None:
        """An upload or a collector was killed between the bytes and the row."""
        old = (blob for blob in self.store.list() if blob.written_at < self.cutoffs.blobs)
        for batch in _batches(old, BATCH):
            with self.look() as session:
                known = garbage.with_row(session, [blob.digest for blob in batch])
            for blob in batch:
                if blob.digest not in known:
                    self._delete_bytes(blob.digest, blob.size)

    def _delete_bytes(self, digest: Digest, size: int) -> None:
        if self.dry_run or self.store.delete(digest, self.cutoffs.blobs):
            self.report.blobs += 1
            self.report.bytes += size


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
