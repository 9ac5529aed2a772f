"""How a Build, its Jobs and its Publications move: each move with its event and commit status.

Everything here runs in the caller's transaction, which holds the Build's row (`queue.lock_build`).
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from albatros.db import events, queue
from albatros.db.models import Artifact, Build, Image, Job, Publication
from albatros.db.session import now
from albatros.domain import repo_config
from albatros.domain.plan import package_of
from albatros.domain.states import (
    INFRASTRUCTURE_REASONS,
    BuildState,
    JobKind,
    JobState,
    PublicationState,
    Reason,
    is_end,
)
from albatros.domain.text import plain
from albatros.flows import report

MAX_MESSAGE = 8 << 10
_WHOLE_FILES = ("file", "image-archive")
"""Kinds, in a runner's words, of outputs that may be image archives."""


def move_build(session: Session, build: Build, to: BuildState, reason: Reason | None = None, message: str = "") -> None:
    """Move a Build with its times, event and commit status. Raises ConflictError when it was moved meanwhile."""
    queue.move_build(session, build, to)
    if to in (BuildState.EVALUATING, BuildState.RUNNING) and build.started_at is None:
        build.started_at = now()
    if is_end(to):
        build.ended_at = now()
    build.reason, build.message = reason, plain(message, MAX_MESSAGE)
    events.emit(session, build, f"build.{to}", number=build.number, reason=reason, message=build.message[:500])
    report.request_status(session, build)


def end_job(session: Session, job: Job, to: JobState, reason: Reason | None = None, message: str = "") -> None:
    """End a Job, then queue or skip what needs it, then end its Build if nothing is left."""
    queue.move_job(session, job, to)
    job.ended_at = now()
    job.reason, job.message = reason, plain(message, MAX_MESSAGE)
    emit_job(session, job)
    session.flush()
    if to is JobState.SUCCEEDED:
        for released in queue.release_dependents(session, job):
            emit_job(session, released)
    elif to is JobState.FAILED:
        report.request_job_status(session, job)
        for skipped in queue.skip_dependents(session, job):
            skipped.ended_at, skipped.message = now(), f"{job.name} failed, which this needs"
            emit_job(session, skipped)
    waits_for_plan = job.kind is JobKind.EVALUATION and to is JobState.SUCCEEDED
    if not waits_for_plan:
        settle_build(session, job.build)


def left_out(build: Build, config: str | None) -> str:
    """Why the rules of a `.albatros.toml` leave a Build out, empty when they do not. Raises EvaluationError."""
    return repo_config.parse(config).on.why_not(build.trigger, build.ref, build.changed_paths)


def emit_job(session: Session, job: Job) -> None:
    """Record a Job's new state for whoever watches."""
    events.emit(session, job.build, f"job.{job.state}", job=job.id, name=job.name, reason=job.reason)


def settle_build(session: Session, build: Build) -> None:
    """When every Job of a Build is done: fail it, or have its images published, or end it well."""
    if is_end(build.state) or queue.jobs_left(session, build.id):
        return
    failed = session.scalars(
        select(Job).where(Job.build_id == build.id, Job.state == JobState.FAILED).order_by(Job.ended_at, Job.id)
    ).all()
    if failed:
        _fail_build(session, build, list(failed))
    elif queue.jobs_cancelled(session, build.id):
        move_build(session, build, BuildState.CANCELLED, Reason.CANCELLED, "a Job of it was stopped")
    elif _has_images(session, build):
        move_build(session, build, BuildState.PUBLISHING)
    else:
        move_build(session, build, BuildState.SUCCEEDED)


def _fail_build(session: Session, build: Build, failed: list[Job]) -> None:
    at_fault = [job for job in failed if job.reason not in INFRASTRUCTURE_REASONS]
    first = (at_fault or failed)[0]
    others = f" ({len(failed) - 1} more failed)" if len(failed) > 1 else ""
    state = BuildState.FAILED if at_fault else BuildState.ERRORED
    subject = "evaluation" if first.kind is JobKind.EVALUATION else ", ".join(first.attributes[:3]) or first.name
    told = first.message.startswith(subject) or first.reason is Reason.MERGE_CONFLICT
    text = first.message if told else f"{subject}: {first.message}"
    move_build(session, build, state, first.reason, f"{text}{others}")


def _has_images(session: Session, build: Build) -> bool:
    if session.scalar(select(Image.id).where(Image.build_id == build.id).limit(1)) is not None:
        # Its script had one made.
        return True
    images = repo_config.parse(build.config).images
    return bool(images) if images is not None else bool(possible_archives(session, build.id))


def possible_archives(session: Session, build_id: int) -> list[tuple[Job, Artifact]]:
    """Packages whose output is a single file: their bytes say whether it is an image archive."""
    whole = select(Artifact).join(Job).where(Job.build_id == build_id, Artifact.kind.in_(_WHOLE_FILES))
    found = session.scalars(whole.where(Artifact.path == "").order_by(Artifact.id))
    return [(artifact.job, artifact) for artifact in found if any(map(package_of, artifact.job.attributes))]


def move_publication(
    session: Session, row: Publication, to: PublicationState, reason: Reason | None = None, message: str = ""
) -> None:
    """Move a Publication with its event, and let go of it. Raises ConflictError when it was moved meanwhile."""
    queue.move_publication(session, row, to)
    row.reason, row.message = reason, plain(message, MAX_MESSAGE)
    if to is not PublicationState.PUSHING:
        row.holder, row.lease_until = None, None
    if is_end(to):
        row.ended_at = now()
    emit_publication(session, row)


def emit_publication(session: Session, row: Publication) -> None:
    """Record a Publication's new state for whoever watches."""
    events.emit(
        session,
        row.image.build,
        f"publication.{row.state}",
        publication=row.id,
        registry=row.registry_name,
        name=row.name,
        tag=row.tag,
        digest=row.image.digest,
        message=row.message[:500],
    )


def settle_publications(session: Session, build: Build) -> None:
    """When every required Publication of a Build has ended: end the Build."""
    session.flush()
    if build.state is not BuildState.PUBLISHING or queue.open_publications(session, build.id):
        return
    failed = session.scalars(
        select(Publication)
        .join(Image, Image.id == Publication.image_id)
        .where(Image.build_id == build.id, Publication.required.is_(True), Publication.state == PublicationState.FAILED)
        .order_by(Publication.id)
    ).first()
    if failed is None:
        move_build(session, build, BuildState.SUCCEEDED)
        return
    message = f"{failed.name}:{failed.tag} could not be published to {failed.registry_name}: {failed.message}"
    move_build(session, build, BuildState.FAILED, Reason.PUBLICATION_FAILED, message)
