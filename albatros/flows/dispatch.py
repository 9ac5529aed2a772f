"""Dispatch: intent first, then the executor.

The Attempt's row is committed before anything starts, and its token is derived from its id with the server's key, so
that a killed server can repeat the very same start.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from albatros.db import queue
from albatros.db.models import Attempt, Job
from albatros.db.session import Database, now
from albatros.db.signals import Signals, Topic
from albatros.domain.states import AttemptState, BuildState, JobKind, JobState, Reason
from albatros.errors import ExecutorError, ExecutorUnavailableError, NoCapacityError
from albatros.executors.base import Executor, Slots, StartOrder
from albatros.flows import progress, scripts, settle
from albatros.flows.bounds import bounds_of
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
        takes_scripts: bool = True,
    ) -> None:
        """`takes_strangers`: runners and builders are shut off well enough for what nobody trusted has pushed.

        `takes_scripts`: the Jobs of a machine are shut off from one another, or the operator does without.
        """
        self._database = database
        self._signals = signals
        self._executor = executor
        self._limits = limits
        self._key = key
        self._server_url = server_url
        self._takes_strangers = takes_strangers
        self._takes_scripts = takes_scripts
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
        groups = self._executor.slots()
        self._refuse_what_cannot_run(groups)
        free = [group for group in groups if group.free > 0]
        if not free:
            return 0
        with self._database.write() as session:
            attempts = [attempt for group in free for attempt in self._intend_group(session, group)]
        self._start_all(attempts)
        if attempts:
            self._signals.notify(Topic.WATCHERS, Topic.REPORTER)
        return len(attempts)

    def _intend_group(self, session: Session, group: Slots) -> list[Attempt]:
        limit = min(group.free, BATCH)
        jobs = queue.ready_jobs(
            session,
            group.systems,
            limit,
            evaluations=group.evaluates,
            scripts=self._takes_scripts,
            strangers=self._takes_strangers,
        )
        return [self._intend(session, job) for job in jobs]

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
        self._start_all(attempts)
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

    def _start_all(self, attempts: Sequence[Attempt]) -> None:
        """Start one after the other; when the executor does not answer, the rest stays intended for a later try."""
        started: dict[str, str] = {}
        for number, attempt in enumerate(attempts):
            try:
                reference = self._start(attempt)
            except ExecutorUnavailableError as error:
                waiting = [attempt.id for attempt in attempts[number:]]
                log.warning("attempts wait for their executor", attempts=len(waiting), error=error.detail)
                settle.give_time(self._database, waiting)
                break
            if reference is not None:
                started[attempt.id] = reference
        if started:
            self._note_submitted(started)

    def _start(self, attempt: Attempt) -> str | None:
        """Start one; how the executor calls it, or None for one that cannot be started and is closed."""
        build = attempt.job.build
        bounds = bounds_of(self._limits, build.config)
        order = StartOrder(
            attempt.id,
            attempt_token(self._key, attempt.id),
            self._server_url,
            attempt.job.system,
            build.trusted,
            bounds.wall_seconds,
            bounds.memory_mb,
        )
        try:
            return self._executor.start(order)
        except ExecutorUnavailableError:
            raise
        except ExecutorError as error:
            log.error("an attempt could not be started", attempt=attempt.id, error=error.detail)
            reason = Reason.NO_CAPACITY if isinstance(error, NoCapacityError) else Reason.DRIVER
            settle.close_attempt(
                self._database,
                self._signals,
                self._limits,
                attempt.id,
                AttemptState.FAILED,
                reason,
                error.detail,
            )
            return None

    def _note_submitted(self, started: Mapping[str, str]) -> None:
        """Keep how the executor calls what it has, all at once: a commit for each would take longer than to start it.

        A fast runner may have claimed, or even ended, its Attempt before this is noted. What somebody changes just now
        is passed over, since nothing is lost by starting it once more.
        """
        with self._database.write() as session:
            for attempt in queue.free_attempts(session, started):
                attempt.executor_ref = started[attempt.id]
                if attempt.state is AttemptState.SUBMITTING:
                    queue.move_attempt(session, attempt, AttemptState.SUBMITTED)
                    attempt.lease_until = settle.claim_deadline()

    def _refuse_what_cannot_run(self, groups: Sequence[Slots]) -> None:
        systems = frozenset[str]().union(*(group.systems for group in groups))
        with self._database.read() as session:
            unisolated = [] if self._takes_scripts else list(queue.queued_scripts(session, BATCH))
            strangers = [] if self._takes_strangers else list(queue.strangers_jobs(session, BATCH))
            # An executor that does not know its places now may have one.
            unplaceable = list(queue.unplaceable_jobs(session, systems, BATCH)) if groups else []
        for job in strangers:
            self._refuse(job, Reason.DRIVER, STRANGERS_REFUSED)
        for job in unisolated:
            self._refuse(job, Reason.DRIVER, scripts.UNISOLATED)
        for job in unplaceable:
            message = (
                f"nothing here builds {job.system}, which {', '.join(job.attributes[:3])} asks for "
                f"({self._executor.lacks(job.system)}); cross-build it, or add a worker of that system"
            )
            self._refuse(job, Reason.NO_CAPACITY, message)
        if strangers or unisolated or unplaceable:
            self._signals.notify(Topic.REPORTER, Topic.WATCHERS, Topic.PUBLISHER)

    def _refuse(self, found: Job, reason: Reason, message: str) -> None:
        with self._database.write() as session:
            queue.lock_build(session, found.build_id)
            job = session.get(Job, found.id)
            if job is not None and job.state is JobState.QUEUED:
                progress.end_job(session, job, JobState.FAILED, reason, message)
