"""Attempts of builders: which are due, which server follows each, and how far its log was read.

One server follows an Attempt at a time, by a lease that the next one takes when it runs out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from datetime import timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session, contains_eager

from albatros.db.models import Attempt, Build, BuilderRun, Job
from albatros.db.queue import IS_OPEN, IS_QUEUED, changed
from albatros.db.session import now
from albatros.db.upsert import dialect_of
from albatros.domain.states import OPEN_ATTEMPTS, JobKind

MOST_RUNS = 1000
"""Attempts that one server follows."""


def is_there_work(session: Session) -> tuple[bool, bool]:
    """Whether a Job of a builder is queued, and whether an Attempt of one is open."""
    queued = select(Job.id).where(IS_QUEUED, Job.kind == JobKind.BUILDER).limit(1)
    runs = select(Attempt.id).join(BuilderRun, BuilderRun.attempt_id == Attempt.id).where(IS_OPEN).limit(1)
    return session.scalar(queued) is not None, session.scalar(runs) is not None


def take_turn(session: Session, builder: str) -> bool:
    """Whether only this transaction counts and dispatches a builder's Attempts; False while another server's does.

    Else two would each see the same slots free. SQLite has one writer at a time.
    """
    if dialect_of(session) == "sqlite":
        return True
    key = int.from_bytes(hashlib.sha256(f"builder {builder}".encode()).digest()[:8], "big", signed=True)
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(key))))


def ready_jobs(session: Session, builder: str, limit: int) -> Sequence[Job]:
    """Queued Jobs of a builder that may be dispatched now, oldest first, held with their Builds."""
    statement = (
        select(Job)
        .join(Job.build)
        .options(contains_eager(Job.build))
        .where(IS_QUEUED, Job.kind == JobKind.BUILDER, Job.name == builder)
        .where(or_(Job.not_before.is_(None), Job.not_before <= now()))
        .order_by(Job.id)
        .limit(limit)
    )
    return session.scalars(statement.with_for_update(skip_locked=True, of=[Job, Build])).all()


def unknown_jobs(session: Session, known: Collection[str], limit: int) -> Sequence[Job]:
    """Queued Jobs of builders that are not among `known`."""
    queued = select(Job).where(IS_QUEUED, Job.kind == JobKind.BUILDER, Job.name.not_in(known))
    return session.scalars(queued.order_by(Job.id).limit(limit)).all()


def open_runs(session: Session, builder: str) -> int:
    """Open Attempts of a builder, whichever server follows them."""
    statement = (
        select(func.count())
        .select_from(BuilderRun)
        .join(Attempt, Attempt.id == BuilderRun.attempt_id)
        .join(Job, Job.id == Attempt.job_id)
        .where(IS_OPEN, Job.name == builder)
    )
    return session.scalar(statement) or 0


def claim_runs(session: Session, holder: str, lease: timedelta) -> Sequence[str]:
    """Follow, or go on following, every open Attempt that no other server follows; their ids, oldest first."""
    at = now()
    free = or_(BuilderRun.lease_until.is_(None), BuilderRun.lease_until < at, BuilderRun.holder == holder)
    statement = (
        select(BuilderRun.attempt_id)
        .join(Attempt, Attempt.id == BuilderRun.attempt_id)
        .where(IS_OPEN, free)
        .order_by(Attempt.created_at)
        .limit(MOST_RUNS)
    )
    ids = session.scalars(statement.with_for_update(skip_locked=True, of=BuilderRun)).all()
    mine = update(BuilderRun).where(BuilderRun.attempt_id.in_(ids))
    changed(session, mine.values(holder=holder, lease_until=at + lease))
    return ids


def let_go(session: Session, holder: str) -> None:
    """Follow nothing more, so that another server need not wait for the leases to run out."""
    mine = update(BuilderRun).where(BuilderRun.holder == holder, BuilderRun.lease_until.is_not(None))
    changed(session, mine.values(lease_until=None))


def find_run(session: Session, attempt_id: str) -> BuilderRun | None:
    """The run with its Attempt and Job."""
    return session.get(BuilderRun, attempt_id)


def lock_run(session: Session, seen: BuilderRun) -> BuilderRun | None:
    """The run's row for this transaction; None when it is not as it was `seen`, since another server took it over."""
    same = select(BuilderRun).where(
        BuilderRun.attempt_id == seen.attempt_id,
        BuilderRun.holder == seen.holder,
        BuilderRun.revision == seen.revision,
    )
    return session.scalars(same.with_for_update(of=BuilderRun)).first()


def closed_among(session: Session, attempt_ids: Collection[str]) -> Sequence[str]:
    """Those of these Attempts that are known here and closed."""
    closed = select(Attempt.id).where(Attempt.id.in_(attempt_ids), Attempt.state.not_in(OPEN_ATTEMPTS))
    return session.scalars(closed).all()
