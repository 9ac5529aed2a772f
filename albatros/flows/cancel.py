"""Cancel: end a Build now, and have its runners stop at their next heartbeat."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from albatros.db import queue
from albatros.db.models import Build, Image, Job, Publication
from albatros.db.session import Database
from albatros.db.signals import Signals, Topic
from albatros.domain.states import OPEN_JOBS, BuildState, JobState, PublicationState, Reason, is_end
from albatros.errors import ConflictError, NotFoundError
from albatros.flows import progress
from albatros.flows.attempts import ask_to_stop


def cancel(database: Database, signals: Signals, build_id: int, *, by: str) -> Build:
    """Cancel an open Build. Raises NotFoundError; ConflictError when it has ended already."""
    with database.write() as session:
        build = queue.lock_build(session, build_id)
        if build is None:
            raise NotFoundError(f"there is no build {build_id}")
        cancel_locked(session, build, by=by)
    signals.notify(Topic.SCHEDULER, Topic.REPORTER, Topic.WATCHERS)
    return build


def cancel_locked(session: Session, build: Build, *, by: str) -> None:
    """The same in the caller's transaction, which holds the Build's row. Raises ConflictError when it has ended."""
    if is_end(build.state):
        raise ConflictError(f"build {build.id} has ended already ({build.state})")
    end(session, build, BuildState.CANCELLED, Reason.CANCELLED, f"cancelled by {by}")


def end(session: Session, build: Build, to: BuildState, reason: Reason, message: str) -> None:
    """End an open Build with all that belongs to it, in the caller's transaction, which holds its row."""
    progress.move_build(session, build, to, reason, message)
    ask_to_stop(session, build.id, reason)
    idle = (JobState.WAITING, JobState.QUEUED)
    for job in session.scalars(select(Job).where(Job.build_id == build.id, Job.state.in_(OPEN_JOBS))):
        if job.state in idle:
            progress.end_job(session, job, JobState.CANCELLED, reason, message)
    pending = (
        select(Publication)
        .join(Image)
        .where(Image.build_id == build.id, Publication.state == PublicationState.PENDING)
        .with_for_update(of=Publication)
    )
    for publication in session.scalars(pending):
        progress.move_publication(session, publication, PublicationState.FAILED, reason, message)
