"""What is dispatched to a builder: its Attempt is committed before anything is sent.

The Attempt's id is the token that the engine knows the dispatch by: a killed server, or another one, repeats the very
same dispatch and is told the same child.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from albatros.db import builders as db
from albatros.db import queue
from albatros.db.models import Attempt, BuilderRun, Job
from albatros.db.session import Database, now
from albatros.db.signals import Signals, Topic
from albatros.domain.refs import BRANCH_PREFIX
from albatros.domain.states import AttemptState, BuildState, JobState, Reason
from albatros.errors import ExecutorError, ForgeError, NotFoundError
from albatros.flows import progress
from albatros.flows.dispatch import token_hash
from albatros.forges.base import Forge
from albatros.settings import BuilderSettings

EXECUTOR = "builder"
BATCH = 50


def unknown(name: str) -> str:
    """What to say of a Job whose builder is no longer configured."""
    return f"no builder is named {name!r} any more: add it to [[builders]] again, or rerun the build"


def refuse_unknown(database: Database, signals: Signals, known: Collection[str]) -> None:
    """Fail queued Jobs of builders that are not among `known`: nothing would ever take them."""
    with database.read() as session:
        found = db.unknown_jobs(session, known, BATCH)
    for one in found:
        with database.write() as session:
            queue.lock_build(session, one.build_id)
            job = session.get(Job, one.id)
            if job is not None and job.state is JobState.QUEUED:
                progress.end_job(session, job, JobState.FAILED, Reason.DRIVER, unknown(job.name))
    if found:
        signals.notify(Topic.REPORTER, Topic.WATCHERS)


def due_jobs(session: Session, builder: BuilderSettings) -> Sequence[Job]:
    """As many queued Jobs of a builder as it has free slots, held with their Builds; none while others look."""
    if not db.take_turn(session, builder.name):
        return ()
    free = builder.slots - db.open_runs(session, builder.name)
    return db.ready_jobs(session, builder.name, min(free, BATCH)) if free > 0 else ()


def intend(session: Session, job: Job, holder: str, lease: timedelta) -> None:
    """Make the Attempt of a due Job, which `holder` follows, in the caller's transaction."""
    queue.move_job(session, job, JobState.RUNNING)
    job.started_at = job.started_at or now()
    if job.build.state is BuildState.QUEUED:
        progress.move_build(session, job.build, BuildState.RUNNING)
    number = (session.scalar(select(func.max(Attempt.number)).where(Attempt.job_id == job.id)) or 0) + 1
    attempt = Attempt(
        id=str(uuid.uuid4()),
        job_id=job.id,
        job=job,
        number=number,
        state=AttemptState.SUBMITTING,
        # No runner of ours is in it: nobody is given a token, and none is kept.
        token_hash=token_hash(secrets.token_hex()),
        executor=EXECUTOR,
        lease_until=None,
        created_at=now(),
    )
    session.add(attempt)
    session.add(BuilderRun(attempt=attempt, holder=holder, lease_until=now() + lease, streams={}))
    progress.emit_job(session, job)


def meta_of(forges: Mapping[str, Forge], job: Job) -> dict[str, str]:
    """What the builder is told. Raises ExecutorError for what cannot be told, or not safely."""
    build, repo = job.build, job.build.repo
    forge = forges.get(repo.forge)
    if forge is None:
        raise ExecutorError(f"forge {repo.forge!r} is no longer configured; add it again, or cancel the build")
    try:
        url = forge.clone_source(repo.owner, repo.name).url
    except (ForgeError, NotFoundError) as error:
        raise ExecutorError(f"{repo.full_name} has no address to clone it from: {error.detail}") from error
    meta = {
        "REPO_URL": url,
        "COMMIT": build.commit,
        "BRANCH": build.ref.removeprefix(BRANCH_PREFIX),
        "FLAVOR": build.flavor,
    }
    unsafe = next((name for name, value in meta.items() if "${" in value), None)
    if unsafe is not None:
        # Nomad's client would put the value of a variable of the task there, which may be a secret.
        raise ExecutorError(f"{unsafe} holds '${{', which Nomad would replace; rename the ref")
    return meta
