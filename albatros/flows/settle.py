"""Settle: how an Attempt ends. A runner's result, a lost lease and an executor's word all come through here.

An Attempt is closed once, by a guarded UPDATE; closing it, storing what it made and moving its Job is one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from albatros.db import queue
from albatros.db.models import Artifact, Attempt, Blob, Job, RepoBlob
from albatros.db.session import Database, now
from albatros.db.signals import Signals, Topic
from albatros.domain import repo_config
from albatros.domain.outputs import Output, read_outputs
from albatros.domain.plan import package_of
from albatros.domain.states import (
    INFRASTRUCTURE_REASONS,
    OPEN_ATTEMPTS,
    AttemptState,
    JobKind,
    JobState,
    Reason,
    is_end,
)
from albatros.errors import BadInputError
from albatros.flows import progress
from albatros.settings import LimitSettings

CLAIM_WITHIN = timedelta(minutes=10)
RETRY_FIRST = timedelta(seconds=5)
_ENDS = {Reason.CANCELLED: AttemptState.CANCELLED, Reason.SUPERSEDED: AttemptState.CANCELLED}
HANDBACK = "handback"


def claim_deadline() -> datetime:
    """Until when a runner that was started has to claim its Attempt."""
    return now() + CLAIM_WITHIN


def record_result(
    session: Session,
    attempt: Attempt,
    body: Mapping[str, object],
    limits: LimitSettings,
    closure_digests: Mapping[str, str],
) -> None:
    """Store what the claiming runner says of its end. Raises BadInputError for what cannot be read."""
    outcome, message = body.get("outcome"), str(body.get("message") or "")
    attempt.nix_version = str(body.get("nix_version") or "")[:64]
    if outcome == "succeeded":
        _succeed(session, attempt, body, closure_digests)
        return
    if outcome != "failed":
        raise BadInputError(f"outcome is {str(outcome)[:40]!r}; it must be succeeded or failed")
    word = body.get("reason")
    if word == HANDBACK:
        close(session, attempt, limits, AttemptState.HANDED_BACK, None, message or "handed back by its server")
        return
    try:
        reason = Reason(str(word))
    except ValueError:
        raise BadInputError(f"reason is {str(word)[:40]!r}, which is none of {', '.join(Reason)}") from None
    close(session, attempt, limits, _ENDS.get(reason, AttemptState.FAILED), reason, message)


def _succeed(
    session: Session, attempt: Attempt, body: Mapping[str, object], closure_digests: Mapping[str, str]
) -> None:
    job = attempt.job
    if job.kind is JobKind.EVALUATION:
        attempt.result = {"evaluation": body.get("evaluation")}
    else:
        outputs = read_outputs(body.get("outputs"))
        try:
            _store_outputs(session, job, outputs, closure_digests)
        except BadInputError as error:
            _end_attempt(session, attempt, AttemptState.FAILED, Reason.BUILD_FAILED, error.detail)
            progress.end_job(session, job, JobState.FAILED, Reason.BUILD_FAILED, error.detail)
            return
    _end_attempt(session, attempt, AttemptState.SUCCEEDED, None, "")
    progress.end_job(session, job, JobState.SUCCEEDED)


def _store_outputs(session: Session, job: Job, outputs: tuple[Output, ...], closure_digests: Mapping[str, str]) -> None:
    """Keep the files as Artifacts: only bytes that this Repo's runners uploaded, at the size the server counted."""
    wanted = {file.digest for output in outputs for file in output.files}
    known = dict(
        session.execute(
            select(Blob.digest, Blob.size)
            .join(RepoBlob, RepoBlob.digest == Blob.digest)
            .where(RepoBlob.repo_id == job.build.repo_id, Blob.digest.in_(wanted))
        )
        .tuples()
        .all()
    )
    missing_binaries = set(_binaries_of(job)) - {file.path for output in outputs for file in output.files}
    if missing_binaries:
        wanted_path = min(missing_binaries)
        raise BadInputError(
            f"{job.attributes[0]}: the output has no file {wanted_path!r}; check `binary` in .albatros.toml"
        )
    for output in outputs:
        for file in output.files:
            if file.digest not in known:
                raise BadInputError(
                    f"{job.attributes[0]}: the runner named {file.digest}, which it did not upload; run the build again"
                )
            session.add(
                Artifact(
                    job_id=job.id,
                    output=output.name,
                    path=file.path,
                    kind=file.kind,
                    digest=file.digest,
                    size=known[file.digest],
                    executable=file.executable,
                    store_path=output.store_path,
                    nar_hash=output.nar_hash,
                    closure_digest=closure_digests.get(output.name),
                    created_at=now(),
                )
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
    if to is AttemptState.HANDED_BACK:
        _queue_again(session, job, timedelta(0))
    elif reason in INFRASTRUCTURE_REASONS and reason is not Reason.NO_CAPACITY and tried < limits.attempts:
        _queue_again(session, job, RETRY_FIRST * 2 ** (tried - 1) if tried else RETRY_FIRST)
    elif to is AttemptState.CANCELLED:
        progress.end_job(session, job, JobState.CANCELLED, reason, message)
    else:
        progress.end_job(session, job, JobState.FAILED, reason, message)


def _queue_again(session: Session, job: Job, delay: timedelta) -> None:
    queue.move_job(session, job, JobState.QUEUED)
    job.not_before = now() + delay
    progress.emit_job(session, job)


def _end_attempt(session: Session, attempt: Attempt, to: AttemptState, reason: Reason | None, message: str) -> None:
    queue.move_attempt(session, attempt, to)
    attempt.ended_at = now()
    attempt.lease_until = None
    attempt.reason, attempt.message = reason, message[: progress.MAX_MESSAGE]


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
        attempt = session.get(Attempt, attempt_id)
        if attempt is None or attempt.state not in OPEN_ATTEMPTS:
            return False
        close(session, attempt, limits, to, reason, message)
    signals.notify(Topic.SCHEDULER, Topic.PUBLISHER, Topic.REPORTER, Topic.WATCHERS)
    return True


def expire_leases(database: Database, signals: Signals, limits: LimitSettings) -> int:
    """Close every Attempt whose runner fell silent; returns how many."""
    with database.write() as session:
        expired = queue.expired_attempts(session, now())
        for attempt in expired:
            silent = "its runner stopped renewing its lease" if attempt.claimed_at else "no runner claimed it in time"
            close(session, attempt, limits, AttemptState.LOST, Reason.NODE_LOST, silent)
    if expired:
        signals.notify(Topic.SCHEDULER, Topic.PUBLISHER, Topic.REPORTER, Topic.WATCHERS)
    return len(expired)


def closures_of(body: Mapping[str, object]) -> dict[str, bytes]:
    """The closure of each reported output as canonical JSON, to be stored beside it. Raises BadInputError."""
    return {
        output.name: json.dumps(output.closure, sort_keys=True).encode()
        for output in read_outputs(body.get("outputs") or [])
    }
