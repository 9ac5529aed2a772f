"""Selects behind the dashboard's pages: a fixed number for each page, whatever it shows, and each one bounded.

A list shows what its `Sight` lets through; what is found by its id is judged by whoever asked for it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Integer, case, func, select
from sqlalchemy.orm import Session, contains_eager, lazyload

from albatros.db.models import Artifact, Attempt, Build, Image, Job, JobEdge, Publication, RefHead, Repo, StatusReport
from albatros.db.sight import Sight
from albatros.domain.states import OPEN_JOBS, BuildState, JobKind, JobState

MAX_IMAGES = 50
MAX_PUBLICATIONS = 200
MAX_ARTIFACTS = 100
MAX_ATTEMPTS = 50
MAX_HEADS = 20


@dataclass(frozen=True, slots=True)
class BuildFilter:
    """Which Builds a list shows; what is empty or None does not narrow it."""

    forge: str = ""
    owner: str = ""
    name: str = ""
    ref: str = ""
    """A whole ref, such as `refs/heads/main`."""
    state: BuildState | None = None
    before: int | None = None
    """Only Builds with a smaller id: the next page."""


@dataclass(frozen=True, slots=True)
class JobCounts:
    """How many Jobs a Build has beside its evaluation, and how they stand."""

    total: int = 0
    succeeded: int = 0
    failed: int = 0
    open: int = 0


@dataclass(frozen=True, slots=True)
class RepoRow:
    """A Repo and its newest Build."""

    repo: Repo
    newest: Build | None


def list_builds(session: Session, sight: Sight, wanted: BuildFilter, limit: int) -> Sequence[Build]:
    """The newest Builds that match, newest first."""
    query = select(Build).join(Repo, Build.repo_id == Repo.id).where(sight.condition())
    conditions = (
        (Repo.forge, wanted.forge),
        (Repo.owner, wanted.owner),
        (Repo.name, wanted.name),
        (Build.ref, wanted.ref),
    )
    query = query.where(*(column == value for column, value in conditions if value))
    if wanted.state is not None:
        query = query.where(Build.state == wanted.state)
    if wanted.before is not None:
        query = query.where(Build.id < wanted.before)
    return session.scalars(query.order_by(Build.id.desc()).limit(limit).options(contains_eager(Build.repo))).all()


def count_jobs(session: Session, build_ids: Collection[int]) -> Mapping[int, JobCounts]:
    """The counts of each Build that has Jobs beside its evaluation."""

    def how_many(*states: JobState) -> ColumnElement[int]:
        return func.sum(case((Job.state.in_(states), 1), else_=0)).cast(Integer)

    tallies = (how_many(JobState.SUCCEEDED), how_many(JobState.FAILED), how_many(*OPEN_JOBS))
    rows = session.execute(
        select(Job.build_id, func.count(), *tallies)
        .where(Job.build_id.in_(build_ids), Job.kind != JobKind.EVALUATION)
        .group_by(Job.build_id)
    )
    return {build: JobCounts(total, succeeded, failed, waiting) for build, total, succeeded, failed, waiting in rows}


def find_build(session: Session, build_id: int) -> Build | None:
    """One Build with its Repo."""
    query = select(Build).join(Repo, Build.repo_id == Repo.id).where(Build.id == build_id)
    return session.scalar(query.options(contains_eager(Build.repo)))


def find_evaluation(session: Session, build_id: int) -> Job | None:
    """A Build's evaluation."""
    return session.scalar(select(Job).where(Job.build_id == build_id, Job.kind == JobKind.EVALUATION))


def list_jobs(session: Session, build_id: int, limit: int, offset: int) -> Sequence[Job]:
    """A Build's Jobs beside its evaluation: first what failed, then what runs, then the rest as evaluated."""
    urgency = case((Job.state == JobState.FAILED, 0), (Job.state == JobState.RUNNING, 1), else_=2)
    return session.scalars(
        select(Job)
        .where(Job.build_id == build_id, Job.kind != JobKind.EVALUATION)
        .order_by(urgency, Job.id)
        .limit(limit)
        .offset(offset)
        .options(lazyload(Job.build))
    ).all()


def list_images(session: Session, build_id: int) -> Sequence[Image]:
    """A Build's Images by name."""
    query = select(Image).where(Image.build_id == build_id).order_by(Image.name).limit(MAX_IMAGES)
    return session.scalars(query.options(lazyload(Image.build))).all()


def list_publications(session: Session, build_id: int) -> Sequence[Publication]:
    """The Publications of all Images of a Build, by Registry and tag."""
    return session.scalars(
        select(Publication)
        .join(Image, Publication.image_id == Image.id)
        .where(Image.build_id == build_id)
        .order_by(Publication.image_id, Publication.registry_name, Publication.tag)
        .limit(MAX_PUBLICATIONS)
        .options(lazyload(Publication.image))
    ).all()


def list_artifacts(session: Session, *, build_id: int | None = None, job_id: int | None = None) -> Sequence[Artifact]:
    """The Artifacts of a Build, or of one Job, each with its Job."""
    query = select(Artifact).join(Job, Artifact.job_id == Job.id)
    query = query.where(Job.build_id == build_id) if build_id is not None else query.where(Job.id == job_id)
    with_job = contains_eager(Artifact.job).lazyload(Job.build)
    return session.scalars(query.order_by(Artifact.id).limit(MAX_ARTIFACTS).options(with_job)).all()


def find_status(session: Session, build_id: int) -> StatusReport | None:
    """What a Build's commit shows on its forge."""
    query = select(StatusReport).where(StatusReport.build_id == build_id).order_by(StatusReport.id).limit(1)
    return session.scalar(query.options(lazyload(StatusReport.repo)))


def find_job(session: Session, job_id: int) -> Job | None:
    """One Job with its Build and Repo."""
    return session.scalar(
        select(Job).join(Build, Job.build_id == Build.id).join(Repo, Build.repo_id == Repo.id).where(Job.id == job_id)
    )


def list_needs(session: Session, job_id: int, limit: int) -> Sequence[Job]:
    """The Jobs that one waits for."""
    return session.scalars(
        select(Job)
        .join(JobEdge, JobEdge.needs_id == Job.id)
        .where(JobEdge.job_id == job_id)
        .order_by(Job.id)
        .limit(limit)
        .options(lazyload(Job.build))
    ).all()


def list_attempts(session: Session, job_id: int) -> Sequence[Attempt]:
    """The tries at a Job, newest first."""
    query = select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number.desc()).limit(MAX_ATTEMPTS)
    return session.scalars(query.options(lazyload(Attempt.job))).all()


def newest_attempts(session: Session, job_ids: Collection[int]) -> Mapping[int, Attempt]:
    """The newest try at each of these Jobs."""
    newest = select(func.max(Attempt.number)).where(Attempt.job_id == Job.id).correlate(Job).scalar_subquery()
    query = select(Attempt).join(Job, Attempt.job_id == Job.id).where(Job.id.in_(job_ids), Attempt.number == newest)
    return {attempt.job_id: attempt for attempt in session.scalars(query.options(lazyload(Attempt.job)))}


def list_repos(session: Session, sight: Sight, limit: int, offset: int) -> Sequence[RepoRow]:
    """Repos with their newest Build, the busiest first."""
    newest = select(func.max(Build.number)).where(Build.repo_id == Repo.id).correlate(Repo).scalar_subquery()
    rows = session.execute(
        select(Repo, Build)
        .outerjoin(Build, (Build.repo_id == Repo.id) & (Build.number == newest))
        .where(sight.condition())
        .order_by(Build.id.desc().nulls_last(), Repo.owner, Repo.name)
        .limit(limit)
        .offset(offset)
        .options(lazyload(Build.repo))
    )
    return [RepoRow(repo, build) for repo, build in rows]


def find_repo(session: Session, forge: str, owner: str, name: str) -> Repo | None:
    """One Repo by its name on its forge."""
    query = select(Repo).where(Repo.forge == forge, Repo.owner == owner, Repo.name == name)
    return session.scalar(query)


def list_heads(session: Session, repo_id: int) -> Sequence[RefHead]:
    """The refs of a Repo that moved last and are still there."""
    query = select(RefHead).where(RefHead.repo_id == repo_id, RefHead.commit.is_not(None))
    return session.scalars(query.order_by(RefHead.updated_at.desc(), RefHead.id.desc()).limit(MAX_HEADS)).all()
