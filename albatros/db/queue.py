"""The queue: claims by guarded UPDATE (rows locked with SKIP LOCKED on PostgreSQL), leases, and moves of state.

A claim is one transaction under a name of its own; a row whose lease ran out may be claimed by another. Locks are taken
in one order (Build, Attempt, the rest), so that no two transactions wait for each other. Whoever asks what is left of a
Build holds its row: of two that end its last parts at once, each would else see the other's as open.

Whatever looks for open rows says that they have not ended, though their state says so too: the indexes of open rows are
made with these words, and without them everything that ever ran would be looked at.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

from sqlalchemy import ColumnElement, CursorResult, Select, Update, and_, exists, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased, contains_eager

from albatros.db.models import Attempt, Build, Image, ImageRequest, Job, JobEdge, Publication
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


Values = Mapping[str, object]
IS_OPEN = and_(Attempt.ended_at.is_(None), Attempt.state.in_(OPEN_ATTEMPTS))
IS_QUEUED = and_(Job.ended_at.is_(None), Job.state == JobState.QUEUED)
_RUN_ANYWHERE = (JobKind.EVALUATION, JobKind.SCRIPT)
MOST_STRANGERS = 1000
"""Open Builds of strangers that one look considers; most of them wait for approval."""


def changed(session: Session, statement: Update, values: Values | Sequence[Values] | None = None) -> int:
    """Run a guarded UPDATE, with the values of its parameters once or several times; how many rows it changed."""
    statement = statement.execution_options(synchronize_session=False)
    return cast("CursorResult[Any]", session.execute(statement, values)).rowcount


def move_build(session: Session, build: Build, to: BuildState) -> None:
    """Move a Build, unless somebody else moved it since it was read. Raises ConflictError."""
    check_move(build.state, to)
    if not changed(session, update(Build).where(Build.id == build.id, Build.state == build.state).values(state=to)):
        raise ConflictError(f"build {build.id} was moved by another transaction")
    build.state = to


def move_job(session: Session, job: Job, to: JobState) -> None:
    """Move a Job, unless somebody else moved it since it was read. Raises ConflictError."""
    check_move(job.state, to)
    if not changed(session, update(Job).where(Job.id == job.id, Job.state == job.state).values(state=to)):
        raise ConflictError(f"job {job.id} was moved by another transaction")
    job.state = to


def move_attempt(session: Session, attempt: Attempt, to: AttemptState) -> None:
    """Move an Attempt, unless somebody else moved it since it was read. Raises ConflictError."""
    check_move(attempt.state, to)
    same = update(Attempt).where(Attempt.id == attempt.id, Attempt.state == attempt.state)
    if not changed(session, same.values(state=to)):
        raise ConflictError(f"attempt {attempt.id} was moved by another transaction")
    attempt.state = to


def move_publication(session: Session, publication: Publication, to: PublicationState) -> None:
    """Move a Publication, unless somebody else moved it since it was read. Raises ConflictError."""
    check_move(publication.state, to)
    same = update(Publication).where(Publication.id == publication.id, Publication.state == publication.state)
    if not changed(session, same.values(state=to)):
        raise ConflictError(f"publication {publication.id} was moved by another transaction")
    publication.state = to


def _locked(statement: Select[Row], *tables: type[Row | Build]) -> Select[Row]:
    """Rows that another server is claiming are passed over; SQLite has one writer at a time and ignores this."""
    return statement.with_for_update(skip_locked=True, of=list(tables))


def lock_build(session: Session, build_id: int) -> Build | None:
    """Wait for a Build's row, hold it for this transaction, and read it anew."""
    statement = select(Build).where(Build.id == build_id).with_for_update(of=Build)
    return session.scalars(statement.execution_options(populate_existing=True)).first()


def lock_attempt(session: Session, attempt_id: str) -> Attempt | None:
    """Wait for an Attempt's row and its Build's, hold both for this transaction, and read them anew."""
    build_of = select(Job.build_id).join(Attempt, Attempt.job_id == Job.id).where(Attempt.id == attempt_id)
    build_id = session.scalar(build_of)
    if build_id is None:
        return None
    lock_build(session, build_id)
    statement = select(Attempt).where(Attempt.id == attempt_id).with_for_update(of=Attempt)
    return session.scalars(statement.execution_options(populate_existing=True)).first()


def ready_jobs(
    session: Session,
    systems: Collection[str],
    limit: int,
    *,
    evaluations: bool = True,
    scripts: bool = True,
    strangers: bool = True,
) -> Sequence[Job]:
    """Queued Jobs of these systems, and `evaluations`, that can run now: oldest Build first, held with their Builds.

    Without `scripts` or `strangers`, none that runs a repo's own program, or what nobody trusted has pushed.
    """
    placed = [(JobKind.BUILD, system) for system in systems]
    placed += [(kind, "") for kind in _RUN_ANYWHERE if evaluations and (scripts or kind is not JobKind.SCRIPT)]
    # One after the other, since each is then the beginning of an index: together they would be sorted, all of them.
    found = [job for kind, system in placed for job in _first_ready(session, kind, system, limit, strangers=strangers)]
    return sorted(found, key=lambda job: (job.build_id, job.id))[:limit]


def _first_ready(session: Session, kind: JobKind, system: str, limit: int, *, strangers: bool) -> Sequence[Job]:
    statement = (
        select(Job)
        .join(Job.build)
        .options(contains_eager(Job.build))
        .where(IS_QUEUED, Job.kind == kind, Job.system == system)
        .where(or_(Job.not_before.is_(None), Job.not_before <= now()))
        .order_by(Job.build_id, Job.id)
        .limit(limit)
    )
    statement = statement if strangers else statement.where(Build.trusted)
    return session.scalars(_locked(statement, Job, Build)).all()


def unplaceable_jobs(session: Session, systems: Collection[str], limit: int) -> Sequence[Job]:
    """Queued builds of a system that no executor here has."""
    found: list[Job] = []
    for system in _queued_systems(session):
        if system not in systems:
            queued = select(Job).where(IS_QUEUED, Job.kind == JobKind.BUILD, Job.system == system)
            found += session.scalars(queued.order_by(Job.build_id, Job.id).limit(limit - len(found)))
        if len(found) == limit:
            break
    return found


def _queued_systems(session: Session) -> Iterator[str]:
    """The systems of queued builds, each by one look into the index, however many there are of each."""
    queued = select(Job.system).where(IS_QUEUED, Job.kind == JobKind.BUILD).order_by(Job.system).limit(1)
    system = session.scalar(queued)
    while system is not None:
        yield system
        system = session.scalar(queued.where(Job.system > system))


def queued_scripts(session: Session, limit: int) -> Sequence[Job]:
    """Queued Jobs that run a repo's own program."""
    statement = select(Job).where(IS_QUEUED, Job.kind == JobKind.SCRIPT, Job.system == "")
    return session.scalars(statement.order_by(Job.build_id, Job.id).limit(limit)).all()


def strangers_jobs(session: Session, limit: int) -> Sequence[Job]:
    """Queued Jobs of Builds that nobody who is trusted asked for."""
    # Their Builds in a query of their own, since SQLite would begin with every queued Job.
    strangers = select(Build.id).where(Build.ended_at.is_(None), ~Build.trusted).order_by(Build.id)
    builds = session.scalars(strangers.limit(MOST_STRANGERS)).all()
    statement = select(Job).join(Job.build).options(contains_eager(Job.build))
    queued = statement.where(Job.build_id.in_(builds), IS_QUEUED)
    return session.scalars(queued.order_by(Job.build_id, Job.id).limit(limit)).all() if builds else []


def open_attempts(session: Session, states: Collection[AttemptState] = OPEN_ATTEMPTS) -> Sequence[Attempt]:
    """Every open Attempt, or those in some of the open states."""
    found = select(Attempt).where(Attempt.ended_at.is_(None), Attempt.state.in_(states))
    return session.scalars(found.order_by(Attempt.created_at)).all()


def free_attempts(session: Session, ids: Collection[str]) -> Sequence[Attempt]:
    """Those of these Attempts that no other transaction holds, held for this one, which holds no Build of theirs."""
    return session.scalars(_locked(select(Attempt).where(Attempt.id.in_(ids)).order_by(Attempt.id), Attempt)).all()


def expired_attempts(session: Session, at: datetime) -> Sequence[str]:
    """Open Attempts whose lease ran out."""
    return session.scalars(select(Attempt.id).where(IS_OPEN, Attempt.lease_until < at)).all()


def attempts_tried(session: Session, job: Job) -> int:
    """Tries that count against the limit: closed ones that nobody handed back or stopped."""
    counted = (AttemptState.FAILED, AttemptState.LOST, AttemptState.SUCCEEDED)
    statement = select(func.count()).select_from(Attempt).where(Attempt.job_id == job.id, Attempt.state.in_(counted))
    return session.scalar(statement) or 0


def release_dependents(session: Session, job: Job) -> Sequence[Job]:
    """After `job` succeeded: queue the waiting Jobs of its Build that need nothing more; the Jobs queued."""
    needed, edge = aliased(Job), aliased(JobEdge)
    unmet = exists(
        select(edge.job_id)
        .join(needed, needed.id == edge.needs_id)
        .where(edge.job_id == Job.id, needed.state != JobState.SUCCEEDED)
    )
    statement = select(Job).where(Job.build_id == job.build_id, Job.state == JobState.WAITING, ~unmet)
    released = session.scalars(statement.order_by(Job.id)).all()
    for waiting in released:
        move_job(session, waiting, JobState.QUEUED)
    return released


def skip_dependents(session: Session, job: Job) -> Sequence[Job]:
    """After `job` failed: skip what needs it, and what needs that; the Jobs skipped."""
    skipped: list[Job] = []
    failed = [job.id]
    while failed:
        dependents = select(JobEdge.job_id).where(JobEdge.needs_id.in_(failed))
        waiting = select(Job).where(Job.id.in_(dependents), Job.state == JobState.WAITING).order_by(Job.id)
        level = session.scalars(waiting).all()
        for dependent in level:
            move_job(session, dependent, JobState.SKIPPED)
        skipped += level
        failed = [dependent.id for dependent in level]
    return skipped


def jobs_left(session: Session, build_id: int) -> int:
    """Jobs of a Build that are not done."""
    statement = select(func.count()).select_from(Job).where(Job.build_id == build_id, Job.state.in_(OPEN_JOBS))
    return session.scalar(statement) or 0


def jobs_cancelled(session: Session, build_id: int) -> bool:
    """Whether a Job of a Build was stopped."""
    statement = select(Job.id).where(Job.build_id == build_id, Job.state == JobState.CANCELLED).limit(1)
    return session.scalar(statement) is not None


def builds_to_plan(session: Session) -> Sequence[int]:
    """Builds whose evaluation succeeded and whose Jobs are not rows yet."""
    evaluated = exists(
        select(Job.id).where(Job.build_id == Build.id, Job.kind == JobKind.EVALUATION, Job.state == JobState.SUCCEEDED)
    )
    evaluating = and_(Build.ended_at.is_(None), Build.state == BuildState.EVALUATING)
    return session.scalars(select(Build.id).where(evaluating, evaluated).order_by(Build.id).limit(20)).all()


def _free(lease: Any, at: datetime) -> ColumnElement[bool]:
    return or_(lease.is_(None), lease < at)


def claim_name(holder: str) -> str:
    """Two claims of one server are two holders: a thread that lost its lease must not pass for the one that has it."""
    return f"{holder}:{uuid.uuid4().hex[:12]}"


def held_by(column: InstrumentedAttribute[str | None], holder: str) -> ColumnElement[bool]:
    """Whether any claim of a server holds a row."""
    return or_(column == holder, column.startswith(f"{holder}:", autoescape=True))


def claim_assembly(session: Session, holder: str, lease: timedelta) -> Build | None:
    """Hold the oldest Build whose images are due to be assembled; its `holder` names this claim."""
    at = now()
    due = and_(
        Build.ended_at.is_(None),
        Build.state == BuildState.PUBLISHING,
        Build.assembled.is_(False),
        _free(Build.lease_until, at),
        or_(Build.not_before.is_(None), Build.not_before <= at),
    )
    build = session.scalars(_locked(select(Build).where(due).order_by(Build.id).limit(1), Build)).first()
    if build is not None:
        build.holder, build.lease_until = claim_name(holder), at + lease
    return build


def claim_publications(
    session: Session, holder: str, lease: timedelta, busy: Collection[str] = ()
) -> Sequence[Publication]:
    """Hold the due Publications of one Image at one Registry, without those whose tag another push is moving.

    Registries that are `busy` are left for later. Their `holder` names this claim. Raises IntegrityError when another
    server claimed one of the tags meanwhile.
    """
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
    due = and_(due, Publication.registry_name.not_in(busy))
    oldest = select(Publication).where(due).order_by(Publication.next_try_at, Publication.id).limit(1)
    first = session.scalars(_locked(oldest, Publication)).first()
    if first is None:
        return ()
    group = select(Publication).where(
        due, Publication.image_id == first.image_id, Publication.registry_name == first.registry_name
    )
    claimed = session.scalars(_locked(group.order_by(Publication.id), Publication)).all()
    name = claim_name(holder)
    for publication in claimed:
        move_publication(session, publication, PublicationState.PUSHING)
        publication.holder, publication.lease_until = name, at + lease
        publication.tries += 1
    return claimed


def renew(
    session: Session, table: type[Publication | Build | ImageRequest], ids: Sequence[int], holder: str, lease: timedelta
) -> bool:
    """Hold rows for longer; False when another claim has one of them."""
    statement = update(table).where(table.id.in_(ids), table.holder == holder).values(lease_until=now() + lease)
    return changed(session, statement) == len(ids)


def abandoned_publications(session: Session, dead_holder: str | None) -> Sequence[Publication]:
    """Pushes whose lease ran out, or that a dead process (`dead_holder`) held."""
    gone = Publication.lease_until < now()
    if dead_holder is not None:
        gone = or_(gone, held_by(Publication.holder, dead_holder))
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
