"""One row of each kind with the least it needs, for tests that care about a few of its columns."""

import uuid
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from albatros.db.models import Attempt, Build, Job, Repo
from albatros.db.session import now
from albatros.domain.states import AttemptState, BuildState, JobKind, JobState, Trigger, is_end

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def add_repo(session: Session, name: str = "hello") -> Repo:
    repo = Repo(forge="home", owner="alba", name=name, private=False, default_branch="main", created_at=now())
    session.add(repo)
    session.flush()
    return repo


def add_build(
    session: Session,
    repo: Repo,
    state: BuildState = BuildState.SUCCEEDED,
    *,
    ref: str = "refs/heads/main",
    at: datetime | None = None,
) -> Build:
    """A Build made at `at` (now), which also ended then if its state is an end."""
    number = session.scalar(select(func.count()).select_from(Build).where(Build.repo_id == repo.id)) or 0
    build = Build(
        repo=repo,
        number=number + 1,
        ref=ref,
        commit=COMMIT,
        sequence=number + 1,
        trigger=Trigger.PUSH,
        trusted=True,
        state=state,
        created_at=at or now(),
        ended_at=(at or now()) if is_end(state) else None,
    )
    session.add(build)
    session.flush()
    return build


def add_job(session: Session, build: Build, state: JobState = JobState.SUCCEEDED, *, key: str = "evaluation") -> Job:
    job = Job(
        build=build,
        kind=JobKind.EVALUATION if key == "evaluation" else JobKind.BUILD,
        key=key,
        system="",
        name=key,
        attributes=[],
        state=state,
        created_at=build.created_at,
        ended_at=build.created_at if is_end(state) else None,
    )
    session.add(job)
    session.flush()
    return job


def add_attempt(session: Session, job: Job, state: AttemptState = AttemptState.CLAIMED) -> Attempt:
    number = session.scalar(select(func.count()).select_from(Attempt).where(Attempt.job_id == job.id)) or 0
    attempt = Attempt(
        id=str(uuid.uuid4()),
        job=job,
        number=number + 1,
        state=state,
        token_hash=uuid.uuid4().hex,
        executor="local",
        log_bytes=0,
        created_at=job.created_at,
        ended_at=job.created_at if is_end(state) else None,
    )
    session.add(attempt)
    session.flush()
    return attempt
