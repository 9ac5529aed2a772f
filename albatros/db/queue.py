"""The queue: claims by guarded UPDATE (rows locked with SKIP LOCKED on PostgreSQL), leases, and moves of state.

A claim is one transaction. Whoever holds a row renews its lease; a row whose lease ran out may be claimed by another.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

from sqlalchemy import ColumnElement, CursorResult, Select, Update, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from albatros.db.models import Attempt, Build, Image, Job, JobEdge, Publication
from albatros.db.session import now
from albatros.domain.states import (
    OPEN_ATTEMPTS,
    OPEN_JOBS,
    AttemptState,
    BuildState,
    JobKind,
    JobState,
    PublicationState,
    check_move,
)
from albatros.errors import ConflictError

Row = TypeVar("Row", Attempt, Build, Job, Publication)


def changed(session: Session, statement: Update) -> int:
    """Run a guarded UPDATE and say how many rows it changed."""
    return cast("CursorResult[Any]", session.execute(statement)).rowcount


def move_build(session: Session, build: Build, to: BuildState) -> None:
    """Move a Build, unless somebody else moved it since it was read. Raises ConflictError."""
    check_move(build.state, to)
    statement = update(Build).where(Build.id == build.id, Build.state == build.state).values(state=to)
    if not changed(session, statement.execution_options(synchronize_session=False)):
        raise ConflictError(f"build {build.id} was moved by another transaction")
    build.state = to


def move_job(session: Session, job: Job, to: JobState) -> None:
    """Move a Job, unless somebody else moved it since it was read. Raises ConflictError."""
    check_move(job.state, to)
    statement = update(Job).where(Job.id == job.id, Job.state == job.state).values(state=to)
    if not changed(session, statement.execution_options(synchronize_session=False)):
        raise ConflictError(f"job {job.id} was moved by another transaction")
    job.state = to


def move_attempt(session: Session, attempt: Attempt, to: AttemptState) -> None:
    """Move an Attempt, unless somebody else moved it since it was read. Raises ConflictError."""
    check_move(attempt.state, to)
    statement = update(Attempt).where(Attempt.id == attempt.id, Attempt.state == attempt.state).values(state=to)
    if not changed(session, statement.execution_options(synchronize_session=False)):
        raise ConflictError(f"attempt {attempt.id} was moved by another transaction")
    attempt.state = to


def _locked(statement: Select[Row], table: type[Row]) -> Select[Row]:
    """Rows that another server is claiming are passed over; SQLite has one writer at a time and ignores this."""
    return statement.with_for_update(skip_locked=True, of=table)


def ready_jobs(session: Session, systems: Collection[str], limit: int) -> Sequence[Job]:
    """Queued Jobs that an executor for `systems` can run now, oldest Build first, locked for this transaction."""
    statement = (
        select(Job)
        .where(Job.state == JobState.QUEUED, or_(Job.not_before.is_(None), Job.not_before <= now()))
        .where(or_(Job.kind == JobKind.EVALUATION, Job.system.in_(systems)))
        .order_by(Job.build_id, Job.id)
        .limit(limit)
    )
    return session.scalars(_locked(statement, Job)).all()


def unplaceable_jobs(session: Session, systems: Collection[str], limit: int) -> Sequence[Job]:
    """Queued builds of a system that no executor here has, locked for this transaction."""
    statement = (
        select(Job)
        .where(Job.state == JobState.QUEUED, Job.kind == JobKind.BUILD, Job.system.not_in(systems))
        .order_by(Job.id)
        .limit(limit)
    )
    return session.scalars(_locked(statement, Job)).all()


def open_attempts(session: Session, states: Collection[AttemptState] = OPEN_ATTEMPTS) -> Sequence[Attempt]:
    """Every open Attempt, or those in some of the open states."""
    return session.scalars(select(Attempt).where(Attempt.state.in_(states)).order_by(Attempt.created_at)).all()


def expired_attempts(session: Session, at: datetime) -> Sequence[Attempt]:
    """Open Attempts whose lease ran out, locked for this transaction."""
    statement = select(Attempt).where(Attempt.state.in_(OPEN_ATTEMPTS), Attempt.lease_until < at)
    return session.scalars(_locked(statement, Attempt)).all()


def attempts_tried(session: Session, job: Job) -> int:
    """Tries that count against the limit: closed ones that nobody handed back or stopped."""
    counted = (AttemptState.FAILED, AttemptState.LOST, AttemptState.SUCCEEDED)
    statement = select(func.count()).select_from(Attempt).where(Attempt.job_id == job.id, Attempt.state.in_(counted))
    return session.scalar(statement) or 0


def release_dependents(session: Session, job: Job) -> None:
    """After `job` succeeded: queue the waiting Jobs of its Build that need nothing more."""
    needed, edge = aliased(Job), aliased(JobEdge)
    unmet = exists(
        select(edge.job_id)
        .join(needed, needed.id == edge.needs_id)
        .where(edge.job_id == Job.id, needed.state != JobState.SUCCEEDED)
    )
    statement = update(Job).where(Job.build_id == job.build_id, Job.state == JobState.WAITING, ~unmet)
    session.execute(statement.values(state=JobState.QUEUED).execution_options(synchronize_session=False))


def skip_dependents(session: Session, job: Job, message: str) -> None:
    """After `job` failed: skip what needs it, and what needs that."""
    failed = [job.id]
    while failed:
        dependents = select(JobEdge.job_id).where(JobEdge.needs_id.in_(failed))
        waiting = select(Job.id).where(Job.id.in_(dependents), Job.state == JobState.WAITING)
        failed = list(session.scalars(waiting))
        statement = (
            update(Job).where(Job.id.in_(failed)).values(state=JobState.SKIPPED, message=message, ended_at=now())
        )
        session.execute(statement.execution_options(synchronize_session=False))


def jobs_left(session: Session, build_id: int) -> int:
    """Jobs of a Build that are not done."""
    statement = select(func.count()).select_from(Job).where(Job.build_id == build_id, Job.state.in_(OPEN_JOBS))
    return session.scalar(statement) or 0


def jobs_cancelled(session: Session, build_id: int) -> bool:
    """Whether a Job of a Build was stopped."""
    statement = select(Job.id).where(Job.build_id == build_id, Job.state == JobState.CANCELLED).limit(1)
    return session.scalar(statement) is not None


def builds_to_plan(session: Session) -> Sequence[Build]:
    """Builds whose evaluation succeeded and whose Jobs are not rows yet, locked for this transaction."""
    evaluated = exists(
        select(Job.id).where(Job.build_id == Build.id, Job.kind == JobKind.EVALUATION, Job.state == JobState.SUCCEEDED)
    )
    statement = select(Build).where(Build.state == BuildState.EVALUATING, evaluated).order_by(Build.id).limit(20)
    return session.scalars(_locked(statement, Build)).all()


def _free(lease: Any, at: datetime) -> ColumnElement[bool]:
    return or_(lease.is_(None), lease < at)


def claim_assembly(session: Session, holder: str, lease: timedelta) -> Build | None:
    """Hold the oldest Build whose images are due to be assembled."""
    at = now()
    due = and_(
        Build.state == BuildState.PUBLISHING,
        Build.assembled.is_(False),
        _free(Build.lease_until, at),
        or_(Build.not_before.is_(None), Build.not_before <= at),
    )
    build = session.scalars(_locked(select(Build).where(due).order_by(Build.id).limit(1), Build)).first()
    if build is not None:
        build.holder, build.lease_until = holder, at + lease
    return build


def claim_publications(session: Session, holder: str, lease: timedelta) -> Sequence[Publication]:
    """Hold the due Publications of one Image at one Registry, without those whose tag another push is moving."""
    at = now()
    other = aliased(Publication)
    contested = exists(
        select(other.id).where(
            other.registry_name == Publication.registry_name,
            other.name == Publication.name,
            other.tag == Publication.tag,
            other.state == PublicationState.PUSHING,
        )
    )
    due = and_(Publication.state == PublicationState.PENDING, Publication.next_try_at <= at, ~contested)
    oldest = select(Publication).where(due).order_by(Publication.next_try_at, Publication.id).limit(1)
    first = session.scalars(_locked(oldest, Publication)).first()
    if first is None:
        return ()
    group = select(Publication).where(
        due, Publication.image_id == first.image_id, Publication.registry_name == first.registry_name
    )
    claimed = session.scalars(_locked(group, Publication)).all()
    for publication in claimed:
        check_move(publication.state, PublicationState.PUSHING)
        publication.state = PublicationState.PUSHING
        publication.holder, publication.lease_until = holder, at + lease
        publication.tries += 1
    return claimed


def renew(
    session: Session, table: type[Publication | Build], ids: Sequence[int], holder: str, lease: timedelta
) -> bool:
    """Hold rows for longer; False when another holder has one of them."""
    statement = update(table).where(table.id.in_(ids), table.holder == holder).values(lease_until=now() + lease)
    return changed(session, statement.execution_options(synchronize_session=False)) == len(ids)


def abandoned_publications(session: Session, dead_holder: str | None) -> Sequence[Publication]:
    """Pushes whose lease ran out, or that a dead process (`dead_holder`) held."""
    gone = Publication.lease_until < now()
    if dead_holder is not None:
        gone = or_(gone, Publication.holder == dead_holder)
    statement = select(Publication).where(Publication.state == PublicationState.PUSHING, gone)
    return session.scalars(_locked(statement, Publication)).all()


def open_publications(session: Session, build_id: int) -> int:
    """Required Publications of a Build that have not ended."""
    open_states = (PublicationState.PENDING, PublicationState.PUSHING)
    statement = (
        select(func.count())
        .select_from(Publication)
        .join(Image, Image.id == Publication.image_id)
        .where(Image.build_id == build_id, Publication.required.is_(True), Publication.state.in_(open_states))
    )
    return session.scalar(statement) or 0
