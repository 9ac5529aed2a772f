"""What is old enough to be taken away. Never old: open Builds, the newest ones of a ref, and its newest green one.

Times are UTC without a zone, as in the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

EVENTS_KEPT = timedelta(days=7)
"""A watcher that was away for longer reads the pages again."""
BLOB_GRACE = timedelta(hours=24)
"""A blob that was written or touched within this time may be on its way into a row."""


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """The moments before which things are old."""

    builds: datetime
    logs: datetime
    artifacts: datetime
    deliveries: datetime
    events: datetime
    blobs: datetime

    @classmethod
    def at(
        cls, now: datetime, *, builds_days: int, logs_days: int, artifacts_days: int, deliveries_days: int
    ) -> Cutoffs:
        """The cutoffs at `now` for these ages in days."""
        return cls(
            builds=now - timedelta(days=builds_days),
            logs=now - timedelta(days=logs_days),
            artifacts=now - timedelta(days=artifacts_days),
            deliveries=now - timedelta(days=deliveries_days),
            events=now - EVENTS_KEPT,
            blobs=now - BLOB_GRACE,
        )


@dataclass(frozen=True, slots=True)
class PastBuild:
    """What the rules look at in a Build."""

    id: int
    ended_at: datetime | None
    newer: int
    """How many Builds of its ref came after it."""
    newest_green: bool
    """No Build of its ref succeeded after it, and it did."""
    ref_exists: bool


def build_may_go(build: PastBuild, cutoff: datetime, keep: int) -> bool:
    """Whether a Build may be removed with everything of it; `keep` newest Builds of a ref stay, however old."""
    if build.ended_at is None or build.ended_at >= cutoff:
        return False
    return not build.ref_exists or (build.newer >= keep and not build.newest_green)


def outputs_may_go(build: PastBuild, cutoff: datetime) -> bool:
    """Whether a Build's Artifacts and the bytes of its Images may be removed while it stays."""
    return build_may_go(build, cutoff, keep=1)
