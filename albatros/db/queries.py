"""Selects behind the REST API: pages of things, newest first, each bounded. What pages show too is in pages.py.

A list shows what its `Sight` lets through; what is found by its id is judged by whoever asked for it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, contains_eager, defer, lazyload

from albatros.db.models import Artifact, Attempt, Build, Delivery, Image, Job, JobEdge, Publication, Repo, StatusReport
from albatros.db.sight import Sight
from albatros.domain.refs import RepoFilter
from albatros.domain.states import BuildState

MAX_JOBS = 2_000
MAX_EDGES = 10_000
MAX_STATUSES = 2_000
MAX_PUBLICATIONS = 500


@dataclass(frozen=True, slots=True)
class Slice:
    """Which part of a list: `limit` items with ids below `before`."""

    limit: int
    before: int | None = None


def list_repos(session: Session, sight: Sight, part: Slice, wanted: RepoFilter) -> Sequence[Repo]:
    """Repos that are meant, the newest first."""
    columns = ((Repo.forge, wanted.forge), (Repo.owner, wanted.owner), (Repo.name, wanted.name))
    query = select(Repo).where(sight.condition(), *(column == value for column, value in columns if value))
    if part.before is not None:
        query = query.where(Repo.id < part.before)
    return session.scalars(query.order_by(Repo.id.desc()).limit(part.limit)).all()


def newest_builds(session: Session, repo_ids: Collection[int]) -> Mapping[int, Build]:
    """The newest Build of each of these Repos, by the Repo's id; a Repo without any is left out."""
    # A Repo counts its own Builds, so that the newest is found without looking at the others.
    query = select(Build).join(Repo, Build.repo_id == Repo.id)
    query = query.where(Repo.id.in_(repo_ids), Build.number == Repo.next_number - 1)
    return {build.repo_id: build for build in session.scalars(query)}


def newest_build_of_ref(session: Session, repo_id: int, ref: str) -> Build | None:
    """The newest Build of a branch or tag that was not skipped."""
    query = select(Build).where(Build.repo_id == repo_id, Build.ref == ref, Build.state != BuildState.SKIPPED)
    return session.scalar(query.order_by(Build.id.desc()).limit(1))


def list_jobs(session: Session, build_id: int) -> Sequence[Job]:
    """The Jobs of a Build, its evaluation first: up to MAX_JOBS."""
    query = select(Job).where(Job.build_id == build_id).order_by(Job.id).limit(MAX_JOBS)
    return session.scalars(query.options(lazyload(Job.build))).all()


def list_edges(session: Session, build_id: int) -> Sequence[tuple[int, int]]:
    """Which Job of a Build needs which: up to MAX_EDGES pairs of ids."""
    query = select(JobEdge.job_id, JobEdge.needs_id).join(Job, JobEdge.job_id == Job.id).where(Job.build_id == build_id)
    rows = session.execute(query.order_by(JobEdge.job_id, JobEdge.needs_id).limit(MAX_EDGES))
    return [(job, needs) for job, needs in rows]


def list_statuses(session: Session, build_id: int) -> Sequence[StatusReport]:
    """What a Build's commit shows on its forge, for each context that this Build had last."""
    query = select(StatusReport).where(StatusReport.build_id == build_id).order_by(StatusReport.id)
    return session.scalars(query.limit(MAX_STATUSES).options(lazyload(StatusReport.repo))).all()


def list_images(session: Session, sight: Sight, part: Slice, build_id: int | None = None) -> Sequence[Image]:
    """Images of everything, or of one Build."""
    query = select(Image).join(Build, Image.build_id == Build.id).join(Repo, Build.repo_id == Repo.id)
    query = query.where(sight.condition())
    if build_id is not None:
        query = query.where(Image.build_id == build_id)
    if part.before is not None:
        query = query.where(Image.id < part.before)
    whole = contains_eager(Image.build).contains_eager(Build.repo)
    return session.scalars(query.order_by(Image.id.desc()).limit(part.limit).options(whole)).all()


def find_image(session: Session, image_id: int) -> Image | None:
    """One Image with its Build and Repo."""
    return session.get(Image, image_id)


def publications_of(session: Session, image_ids: Collection[int]) -> Sequence[Publication]:
    """The Publications of some Images."""
    query = select(Publication).where(Publication.image_id.in_(image_ids))
    query = query.order_by(Publication.id).limit(MAX_PUBLICATIONS)
    return session.scalars(query.options(lazyload(Publication.image))).all()


def list_artifacts(
    session: Session, sight: Sight, part: Slice, *, build_id: int | None = None, job_id: int | None = None
) -> Sequence[Artifact]:
    """Artifacts of everything, of one Build or of one Job."""
    query = _artifacts(sight)
    if build_id is not None:
        query = query.where(Job.build_id == build_id)
    if job_id is not None:
        query = query.where(Artifact.job_id == job_id)
    if part.before is not None:
        query = query.where(Artifact.id < part.before)
    return session.scalars(query.order_by(Artifact.id.desc()).limit(part.limit)).all()


def find_artifact(session: Session, artifact_id: int) -> Artifact | None:
    """One Artifact with its Job, Build and Repo."""
    return session.get(Artifact, artifact_id)


def _artifacts(sight: Sight) -> Select[Artifact]:
    query = select(Artifact).join(Job, Artifact.job_id == Job.id).join(Build, Job.build_id == Build.id)
    return (
        query.join(Repo, Build.repo_id == Repo.id)
        .where(sight.condition())
        .options(contains_eager(Artifact.job).contains_eager(Job.build).contains_eager(Build.repo))
    )


def find_attempt(session: Session, job_id: int, number: int | None) -> Attempt | None:
    """One try at a Job, or the newest when `number` is None."""
    query = select(Attempt).where(Attempt.job_id == job_id)
    if number is not None:
        query = query.where(Attempt.number == number)
    return session.scalar(query.order_by(Attempt.number.desc()).limit(1).options(lazyload(Attempt.job)))


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A Delivery without its body, its Repo, and the Builds that it made."""

    delivery: Delivery
    repo: Repo | None
    builds: tuple[int, ...]


def list_deliveries(session: Session, part: Slice, forge: str = "") -> Sequence[DeliveryRow]:
    """Deliveries of every forge, or of one."""
    query = select(Delivery, Repo).outerjoin(Repo, Delivery.repo_id == Repo.id)
    if forge:
        query = query.where(Delivery.forge == forge)
    if part.before is not None:
        query = query.where(Delivery.id < part.before)
    query = query.order_by(Delivery.id.desc()).limit(part.limit).options(defer(Delivery.body))
    rows = session.execute(query).all()
    made: dict[int, list[int]] = {}
    wanted = [delivery.id for delivery, _ in rows]
    pairs = select(Build.delivery_id, Build.id).where(Build.delivery_id.in_(wanted)).order_by(Build.id)
    for delivery_id, build_id in session.execute(pairs):
        if delivery_id is not None:
            made.setdefault(delivery_id, []).append(build_id)
    return [DeliveryRow(delivery, repo, tuple(made.get(delivery.id, ()))) for delivery, repo in rows]
