"""Settle: how an Attempt ends. A runner's result, a lost lease and an executor's word all come through here.

An Attempt is closed once, by a guarded UPDATE; closing it, storing what it made and moving its Job is one transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from albatros.db import queue
from albatros.db.models import Artifact, Attempt, Blob, Job, RepoBlob
from albatros.db.session import Database, now
from albatros.db.signals import Signals, Topic
from albatros.domain import repo_config
from albatros.domain.outputs import Output
from albatros.domain.plan import package_of
from albatros.domain.result import HANDBACK, RunnerResult
from albatros.domain.states import (
    INFRASTRUCTURE_REASONS,
    OPEN_ATTEMPTS,
    AttemptState,
    BuildState,
    JobKind,
    JobState,
    Reason,
    is_end,
)
from albatros.domain.text import plain
from albatros.errors import EvaluationError
from albatros.flows import progress
from albatros.settings import LimitSettings

CLAIM_WITHIN = timedelta(minutes=10)
RETRY_FIRST = timedelta(seconds=5)
RETRY_DOUBLINGS = 7
_STOPPED = {Reason.CANCELLED: AttemptState.CANCELLED, Reason.SUPERSEDED: AttemptState.CANCELLED}


def claim_deadline() -> datetime:
    """Until when a runner that was started has to claim its Attempt."""
    return now() + CLAIM_WITHIN


def give_time(database: Database, attempt_ids: Collection[str]) -> None:
    """Let the time to claim begin anew for Attempts whose executor does not answer: that is no fault of theirs.

    Those that were asked to stop get no more.
    """
    waiting = (AttemptState.SUBMITTING, AttemptState.SUBMITTED)
    with database.write() as session:
        wanted = update(Attempt).where(Attempt.id.in_(attempt_ids), Attempt.state.in_(waiting), Attempt.stop.is_(None))
        queue.changed(session, wanted.values(lease_until=claim_deadline()))


def record_result(
    session: Session,
    attempt: Attempt,
    result: RunnerResult,
    limits: LimitSettings,
    closure_digests: Mapping[str, str],
) -> None:
    """Commit what the claiming runner says of its end, in a transaction that holds the Build and the Attempt."""
    attempt.nix_version = result.nix_version
    if result.succeeded:
        _succeed(session, attempt, result, closure_digests)
    elif result.handed_back and attempt.stop == HANDBACK:
        close(session, attempt, limits, AttemptState.HANDED_BACK, None, result.message or "handed back by its server")
    elif result.handed_back or (result.reason in _STOPPED and attempt.stop is None):
        # Nobody here asked for it: the machine did, and a runner that says so for ever must run out of tries.
        message = result.message or "something outside Albatros ended its runner"
        close(session, attempt, limits, AttemptState.FAILED, Reason.PREEMPTED, message)
    elif result.reason is Reason.EVALUATION_FAILED and (why_not := _left_out(attempt.job, result)):
        progress.move_build(session, attempt.job.build, BuildState.SKIPPED, Reason.SKIPPED, why_not)
        close(session, attempt, limits, AttemptState.FAILED, result.reason, result.message)
    elif result.reason is not None:
        state = _STOPPED.get(result.reason, AttemptState.FAILED)
        close(session, attempt, limits, state, result.reason, result.message)


def _left_out(job: Job, result: RunnerResult) -> str:
    """Why a Build was not to be built, whose flake does not even evaluate; empty when it was."""
    config = (result.evaluation or {}).get("config")
    if job.kind is not JobKind.EVALUATION or is_end(job.build.state) or not isinstance(config, str):
        return ""
    try:
        return progress.left_out(job.build, config)
    except EvaluationError:
        return ""


def _succeed(session: Session, attempt: Attempt, result: RunnerResult, closure_digests: Mapping[str, str]) -> None:
    job = attempt.job
    if job.kind is JobKind.BUILD:
        known = _sizes(session, job, result.outputs)
        wrong = _what_is_wrong(job, result.outputs, known)
        if wrong:
            _end_attempt(session, attempt, AttemptState.FAILED, Reason.BUILD_FAILED, wrong)
            progress.end_job(session, job, JobState.FAILED, Reason.BUILD_FAILED, wrong)
            return
        _store_outputs(session, job, result.outputs, known, closure_digests)
    succeed(session, attempt)


def succeed(session: Session, attempt: Attempt) -> None:
    """Close an Attempt that did what its Job asks for, in a transaction that holds the Build and the Attempt."""
    _end_attempt(session, attempt, AttemptState.SUCCEEDED, None, "")
    progress.end_job(session, attempt.job, JobState.SUCCEEDED)


def _sizes(session: Session, job: Job, outputs: tuple[Output, ...]) -> dict[str, int]:
    """The reported files that this Repo's runners really uploaded, at the size that the server counted."""
    wanted = {file.digest for output in outputs for file in output.files}
    uploaded = select(Blob.digest, Blob.size).join(RepoBlob, RepoBlob.digest == Blob.digest)
    of_repo = uploaded.where(RepoBlob.repo_id == job.build.repo_id, Blob.digest.in_(wanted))
    return {row.digest: row.size for row in session.execute(of_repo)}


def _what_is_wrong(job: Job, outputs: tuple[Output, ...], known: Mapping[str, int]) -> str:
    """Why the outputs cannot be kept; empty when they can."""
    files = [file for output in outputs for file in output.files]
    missing = set(_binaries_of(job)) - {file.path for file in files}
    if missing:
        return f"the output has no file {min(missing)!r}; check `binary` in .albatros.toml"
    foreign = next((file.digest for file in files if file.digest not in known), None)
    if foreign is not None:
        return f"the runner named {foreign}, which it did not upload; run the build again"
    return ""


def _store_outputs(
    session: Session,
    job: Job,
    outputs: tuple[Output, ...],
    sizes: Mapping[str, int],
    closure_digests: Mapping[str, str],
) -> None:
    session.add_all(
        Artifact(
            job_id=job.id,
            output=output.name,
            path=file.path,
            kind=file.kind,
            digest=file.digest,
            size=sizes[file.digest],
            executable=file.executable,
            store_path=output.store_path,
            nar_hash=output.nar_hash,
            closure_digest=closure_digests.get(output.name),
            created_at=now(),
        )
        for output in outputs
        for file in output.files
    )
    session.flush()


def _binaries_of(job: Job) -> tuple[str, ...]:
    config = repo_config.parse(job.build.config)
    names = [package[1] for attribute in job.attributes if (package := package_of(attribute))]
    return tuple(sorted({binary for name in names for binary in config.binaries(name)}))


def close(
    session: Session, attempt: Attempt, limits: LimitSettings, to: AttemptState, reason: Reason | None, message: str
) -> None:
    """Close an Attempt that did not succeed; queue its Job again if infrastructure was at fault and tries are left."""
    job = attempt.job
    _end_attempt(session, attempt, to, reason, message)
    if is_end(job.state) or is_end(job.build.state):
        if not is_end(job.state):
            progress.end_job(session, job, JobState.CANCELLED, reason, message)
        return
    session.flush()
    tried = queue.attempts_tried(session, job)
    again = reason in INFRASTRUCTURE_REASONS and reason is not Reason.NO_CAPACITY
    if to is AttemptState.HANDED_BACK:
        _queue_again(session, job, timedelta(0))
    elif again and tried < limits.attempts:
        _queue_again(session, job, RETRY_FIRST * 2 ** min(tried - 1, RETRY_DOUBLINGS))
    elif to is AttemptState.CANCELLED:
        progress.end_job(session, job, JobState.CANCELLED, reason, message)
    else:
        tries = f" (tried {tried} times)" if again and tried > 1 else ""
        progress.end_job(session, job, JobState.FAILED, reason, message + tries)


def _queue_again(session: Session, job: Job, delay: timedelta) -> None:
    queue.move_job(session, job, JobState.QUEUED)
    job.not_before = now() + delay
    progress.emit_job(session, job)


def _end_attempt(session: Session, attempt: Attempt, to: AttemptState, reason: Reason | None, message: str) -> None:
    queue.move_attempt(session, attempt, to)
    attempt.ended_at = now()
    attempt.lease_until = None
    attempt.reason, attempt.message = reason, plain(message, progress.MAX_MESSAGE)


def close_attempt(
    database: Database,
    signals: Signals,
    limits: LimitSettings,
    attempt_id: str,
    to: AttemptState,
    reason: Reason | None,
    message: str,
) -> bool:
    """Close an Attempt on an executor's word, in a transaction of its own; False when it was closed already."""
    with database.write() as session:
        attempt = queue.lock_attempt(session, attempt_id)
        if attempt is None or attempt.state not in OPEN_ATTEMPTS:
            return False
        close(session, attempt, limits, to, reason, message)
    signals.notify(Topic.SCHEDULER, Topic.PUBLISHER, Topic.REPORTER, Topic.WATCHERS)
    return True


def expire_leases(database: Database, signals: Signals, limits: LimitSettings) -> int:
    """Close every Attempt whose runner fell silent; returns how many."""
    at = now()
    with database.read() as session:
        silent = queue.expired_attempts(session, at)
    expired = sum(_expire(database, limits, attempt_id, at) for attempt_id in silent)
    if expired:
        signals.notify(Topic.SCHEDULER, Topic.PUBLISHER, Topic.REPORTER, Topic.WATCHERS)
    return expired


def _expire(database: Database, limits: LimitSettings, attempt_id: str, at: datetime) -> bool:
    """Close one Attempt, unless it was heard of since."""
    with database.write() as session:
        attempt = queue.lock_attempt(session, attempt_id)
        if attempt is None or attempt.state not in OPEN_ATTEMPTS:
            return False
        if attempt.lease_until is None or attempt.lease_until >= at:
            return False
        silent = "its runner stopped renewing its lease" if attempt.claimed_at else "no runner claimed it in time"
        close(session, attempt, limits, AttemptState.LOST, Reason.NODE_LOST, silent)
    return True
