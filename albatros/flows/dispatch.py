"""Dispatch: intent first, then the executor.

The Attempt's row is committed before anything starts, and its token is derived from its id with the server's key, so
that a killed server can repeat the very same start.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import uuid
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from albatros.db import queue
from albatros.db.models import Attempt, Job
from albatros.db.session import Database, now
from albatros.db.signals import Signals, Topic
from albatros.domain.states import AttemptState, BuildState, JobKind, JobState, Reason
from albatros.errors import ExecutorError
from albatros.executors.base import Executor, StartOrder
from albatros.flows import progress, settle
from albatros.log import get_logger
from albatros.settings import LimitSettings

log = get_logger(__name__)
BATCH = 50
REPEAT_AFTER = timedelta(seconds=10)
STRANGERS_REFUSED = (
    "this server builds nothing for strangers, since a build could reach what is not its own; "
    "`albatros doctor` says what to change"
)


def attempt_token(key: bytes, attempt_id: str) -> str:
    """The runner's credential for one Attempt: derived, so it is never stored."""
    return hmac.new(key, f"attempt:{attempt_id}".encode(), hashlib.sha256).hexdigest()


def token_hash(token: str) -> str:
    """What the database knows of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Dispatcher:
    """Sends queued Jobs to one executor, and repeats a send that a killed server may not have made."""

    def __init__(
        self,
        database: Database,
        signals: Signals,
        executor: Executor,
        limits: LimitSettings,
        key: bytes,
        server_url: str,
        *,
        takes_strangers: bool = True,
    ) -> None:
        """`takes_strangers`: runners and builders are shut off well enough for what nobody trusted has pushed."""
        self._database = database
        self._signals = signals
        self._executor = executor
        self._limits = limits
        self._key = key
        self._server_url = server_url
        self._takes_strangers = takes_strangers
        self._paused = False
        self._starting = threading.Lock()
        self._patience = timedelta(0)

    def pause(self) -> None:
        """Start nothing new from now on; a dispatch that is under way is waited for."""
        with self._starting:
            self._paused = True

    def dispatch_due(self) -> int:
        """Start as many queued Jobs as there are free slots; returns how many were started."""
        with self._starting:
            return 0 if self._paused else self._dispatch()

    def _dispatch(self) -> int:
        self._refuse_what_cannot_run()
        free = min(self._executor.free_slots(), BATCH)
        if free <= 0:
            return 0
        with self._database.write() as session:
            jobs = queue.ready_jobs(session, self._executor.systems(), free)
            attempts = [self._intend(session, job) for job in jobs]
        for attempt in attempts:
            self._start(attempt)
        if attempts:
            self._signals.notify(Topic.WATCHERS, Topic.REPORTER)
        return len(attempts)

    def start_again(self) -> int:
        """Repeat the start of every Attempt that was intended and may not have reached the executor.

        The first call is for what a dead process left; later ones leave alone what is just being started.
        """
        with self._starting:
            return 0 if self._paused else self._start_intended()

    def _start_intended(self) -> int:
        with self._database.read() as session:
            intended = queue.open_attempts(session, (AttemptState.SUBMITTING,))
        before = now() - self._patience
        self._patience = REPEAT_AFTER
        mine = [attempt for attempt in intended if attempt.executor == self._executor.name]
        attempts = [attempt for attempt in mine if attempt.created_at <= before]
        for attempt in attempts:
            self._start(attempt)
        return len(attempts)

    def _intend(self, session: Session, job: Job) -> Attempt:
        queue.move_job(session, job, JobState.RUNNING)
        job.started_at = job.started_at or now()
        if job.kind is JobKind.EVALUATION and job.build.state is BuildState.QUEUED:
            progress.move_build(session, job.build, BuildState.EVALUATING)
        number = (session.scalar(select(func.max(Attempt.number)).where(Attempt.job_id == job.id)) or 0) + 1
        attempt_id = str(uuid.uuid4())
        attempt = Attempt(
            id=attempt_id,
            job_id=job.id,
            job=job,
            number=number,
            state=AttemptState.SUBMITTING,
            token_hash=token_hash(attempt_token(self._key, attempt_id)),
            executor=self._executor.name,
            lease_until=settle.claim_deadline(),
            created_at=now(),
        )
        session.add(attempt)
        progress.emit_job(session, job)
        return attempt

    def _start(self, attempt: Attempt) -> None:
        order = StartOrder(attempt.id, attempt_token(self._key, attempt.id), self._server_url)
        try:
            reference = self._executor.start(order)
        except ExecutorError as error:
            log.error("an attempt could not be started", attempt=attempt.id, error=error.detail)
            settle.close_attempt(
                self._database,
                self._signals,
                self._limits,
                attempt.id,
                AttemptState.FAILED,
                Reason.DRIVER,
                error.detail,
            )
            return
        self._note_submitted(attempt.id, reference)

    def _note_submitted(self, attempt_id: str, reference: str) -> None:
        """A fast runner may have claimed, or even ended, its Attempt before this is noted."""
        with self._database.write() as session:
            attempt = queue.lock_attempt(session, attempt_id)
            if attempt is None:
                return
            attempt.executor_ref = reference
            if attempt.state is AttemptState.SUBMITTING:
                queue.move_attempt(session, attempt, AttemptState.SUBMITTED)
                attempt.lease_until = settle.claim_deadline()

    def _refuse_what_cannot_run(self) -> None:
        systems = self._executor.systems()
        with self._database.read() as session:
            strangers = [] if self._takes_strangers else list(queue.strangers_jobs(session, BATCH))
            unplaceable = list(queue.unplaceable_jobs(session, systems, BATCH))
        for job in strangers:
            self._refuse(job, Reason.DRIVER, STRANGERS_REFUSED)
        for job in unplaceable:
            message = (
                f"nothing here builds {job.system}, which {', '.join(job.attributes[:3])} asks for "
                f"(this server builds {', '.join(sorted(systems))}); cross-build it, or add a worker of that system"
            )
            self._refuse(job, Reason.NO_CAPACITY, message)
        if strangers or unplaceable:
            self._signals.notify(Topic.REPORTER, Topic.WATCHERS, Topic.PUBLISHER)

    def _refuse(self, found: Job, reason: Reason, message: str) -> None:
        with self._database.write() as session:
            queue.lock_build(session, found.build_id)
            job = session.get(Job, found.id)
            if job is not None and job.state is JobState.QUEUED:
                progress.end_job(session, job, JobState.FAILED, reason, message)
