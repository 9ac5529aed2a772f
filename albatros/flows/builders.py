"""Bring your own builder: Jobs that a parameterized job of the operator's does, outside of Albatros.

The engine alone tells of an Attempt. One server follows it, and the next one takes it over when that server's lease
runs out: the child is found by what was committed, or by dispatching again, which makes no second one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from albatros.db import builders as db
from albatros.db import events, queue
from albatros.db.models import Attempt, BuilderRun
from albatros.db.session import Database, now
from albatros.db.signals import Signals, Topic
from albatros.domain.states import OPEN_ATTEMPTS, AttemptState, Reason
from albatros.errors import (
    AlbatrosError,
    ExecutorError,
    ExecutorUnavailableError,
    GoneError,
)
from albatros.executors.builder_base import Builder, ChildState, Phase
from albatros.flows import settle
from albatros.flows.builder_intents import due_jobs, intend, meta_of, refuse_unknown, unknown
from albatros.flows.builder_log import BuilderLog, TakenOverError
from albatros.forges.base import Forge
from albatros.log import get_logger
from albatros.settings import Settings

log = get_logger(__name__)
LEASE = timedelta(seconds=60)
FOLLOWERS = 4
"""Attempts that are asked after at once: so many connections to the engine, and no more."""
POLL_SECONDS = 1.0
LONGEST_POLL = 30.0
REST = 4.0
"""A round of asking is followed by so many times its own length of rest, so that a slow engine is asked less."""
DRAIN_SECONDS = 60.0
"""How long the end of a log is waited for, when the place where it lies does not answer."""
UNREADABLE_SECONDS = 15.0
ORPHANS_SECONDS = 60.0


class BuilderFollower:
    """Dispatches and follows every Attempt of a builder that no other server follows."""

    def __init__(
        self,
        database: Database,
        signals: Signals,
        settings: Settings,
        builders: Mapping[str, Builder],
        forges: Mapping[str, Forge],
        holder: str,
    ) -> None:
        """`builders` are the configured ones by name; `holder` names this server among those on one database."""
        self._database = database
        self._signals = signals
        self._settings = settings
        self._builders = builders
        self._forges = forges
        self._holder = holder
        self._logs: dict[str, BuilderLog] = {}
        self._drains: dict[str, float] = {}
        self._next_round = 0.0
        self._pause = POLL_SECONDS
        self._next_orphans = 0.0
        self._unreadable: dict[str, float] = {}
        self._pool = ThreadPoolExecutor(FOLLOWERS, thread_name_prefix="builder")

    def step(self) -> bool:
        """One round; True when there may be more to do at once."""
        with self._database.read() as session:
            queued, running = db.is_there_work(session)
        intended = 0
        if queued:
            refuse_unknown(self._database, self._signals, list(self._builders))
            intended = self._intend_due()
        if intended or (running and time.monotonic() >= self._next_round):
            self._follow_all()
        if time.monotonic() >= self._next_orphans:
            self._stop_orphans()
            self._next_orphans = time.monotonic() + ORPHANS_SECONDS
        return intended > 0

    def let_go(self) -> None:
        """Leave what runs to another server, or to the next start; `step` may not be called again."""
        self._pool.shutdown()
        with self._database.write() as session:
            db.let_go(session, self._holder)

    def _intend_due(self) -> int:
        with self._database.write() as session:
            due = [job for one in self._settings.builders for job in due_jobs(session, one)]
            for job in due:
                intend(session, job, self._holder, LEASE)
        if due:
            self._signals.notify(Topic.WATCHERS, Topic.REPORTER)
        return len(due)

    def _follow_all(self) -> None:
        began = time.monotonic()
        with self._database.write() as session:
            ids = db.claim_runs(session, self._holder, LEASE)
        self._logs = {attempt_id: log for attempt_id, log in self._logs.items() if attempt_id in set(ids)}
        for times in (self._drains, self._unreadable):
            for gone in times.keys() - set(ids):
                del times[gone]
        answered = list(self._pool.map(self._follow, ids))
        length = time.monotonic() - began
        self._pause = min(self._pause * 2, LONGEST_POLL) if not all(answered) else POLL_SECONDS
        self._next_round = time.monotonic() + min(max(self._pause, length * REST), LONGEST_POLL)

    def _follow(self, attempt_id: str) -> bool:
        """Do what is due for one Attempt; False when the engine does not answer."""
        with self._database.read() as session:
            run = db.find_run(session, attempt_id)
        if run is None or run.attempt.state not in OPEN_ATTEMPTS:
            return True
        builder = self._builders.get(run.attempt.job.name)
        try:
            if builder is None:
                self._close(run.attempt, AttemptState.FAILED, Reason.DRIVER, unknown(run.attempt.job.name))
            elif run.attempt.state is AttemptState.SUBMITTING:
                self._dispatch(builder, run.attempt)
            else:
                self._look(builder, run)
        except ExecutorUnavailableError as error:
            log.warning("a builder cannot be asked now", attempt=attempt_id, error=error.detail)
            return False
        except ExecutorError as error:
            self._close(run.attempt, AttemptState.FAILED, Reason.DRIVER, error.detail)
        except (TakenOverError, GoneError):
            self._logs.pop(attempt_id, None)
        except AlbatrosError:
            raise
        except Exception:
            log.exception("an attempt of a builder cannot be followed", attempt=attempt_id)
            return False
        return True

    def _dispatch(self, builder: Builder, attempt: Attempt) -> None:
        if attempt.stop is not None:
            # A dispatch whose answer was lost may have made a child all the same: it is stopped as an orphan.
            self._close(attempt, AttemptState.CANCELLED, Reason(attempt.stop), "stopped before it was dispatched")
            return
        try:
            child = builder.dispatch(attempt.id, meta_of(self._forges, attempt.job))
        except ExecutorUnavailableError as error:
            if now() > attempt.created_at + self._wall:
                message = f"it could not be dispatched for {_seconds(self._wall)}: {error.detail}"
                self._close(attempt, AttemptState.FAILED, Reason.DRIVER, message)
            raise
        with self._database.write() as session:
            found = queue.lock_attempt(session, attempt.id)
            if found is None or found.state is not AttemptState.SUBMITTING:
                return
            found.executor_ref = child
            queue.move_attempt(session, found, AttemptState.SUBMITTED)
        self._signals.notify(Topic.WATCHERS)

    def _look(self, builder: Builder, run: BuilderRun) -> None:
        attempt = run.attempt
        child = builder.look(attempt.executor_ref)
        attempt = self._note(attempt, child)
        copied = self._log_of(builder, run, child)
        if attempt.stop is not None:
            self._end(builder, copied, child, AttemptState.CANCELLED, Reason(attempt.stop), "stopped on request")
        elif child.phase is Phase.GONE:
            self._close(attempt, AttemptState.LOST, Reason.NODE_LOST, child.detail)
        elif child.phase is Phase.ENDED:
            self._settle(attempt, copied, child)
        elif attempt.claimed_at is None:
            if now() > attempt.created_at + self._wall:
                message = f"it waited {_seconds(self._wall)} for a place: {child.detail}"
                self._end(builder, copied, child, AttemptState.FAILED, Reason.NO_CAPACITY, message)
        else:
            self._follow_running(builder, copied, child, attempt.claimed_at)

    def _follow_running(self, builder: Builder, copied: BuilderLog, child: ChildState, since: datetime) -> None:
        readable = self._copy(copied, child)
        heard = max(copied.run.heard_at or since, since)
        silence = timedelta(seconds=self._settings.limits.silence_seconds)
        if now() > since + self._wall:
            message = f"it ran longer than {_seconds(self._wall)} (limits.job_seconds)"
            self._end(builder, copied, child, AttemptState.FAILED, Reason.TIMEOUT, message)
        elif readable and now() > heard + silence:
            message = f"it said nothing for {_seconds(silence)} (limits.silence_seconds)"
            self._end(builder, copied, child, AttemptState.FAILED, Reason.SILENT, message)

    def _copy(self, copied: BuilderLog, child: ChildState) -> bool:
        """Copy what is new; False when its node does not answer, which is asked again after a while."""
        attempt_id = copied.run.attempt_id
        if not child.allocation or time.monotonic() < self._unreadable.get(attempt_id, 0.0):
            return False
        try:
            copied.copy()
        except ExecutorUnavailableError as error:
            log.warning("a log cannot be read now", attempt=attempt_id, error=error.detail)
            self._unreadable[attempt_id] = time.monotonic() + UNREADABLE_SECONDS
            return False
        self._unreadable.pop(attempt_id, None)
        return True

    def _note(self, attempt: Attempt, child: ChildState) -> Attempt:
        """Commit that it runs, and where."""
        begins = attempt.claimed_at is None and child.phase in (Phase.RUNNING, Phase.ENDED)
        if not begins and attempt.placement == child.placement:
            return attempt
        with self._database.write() as session:
            found = queue.lock_attempt(session, attempt.id)
            if found is None or found.state not in OPEN_ATTEMPTS:
                raise GoneError(f"attempt {attempt.id} is closed")
            if begins and found.state is not AttemptState.CLAIMED:
                queue.move_attempt(session, found, AttemptState.CLAIMED)
                found.claimed_at = now()
            found.host = child.host[:255]
            found.placement = dict(child.placement)
            events.emit(session, found.job.build, "attempt.placed", attempt=found.id, job=found.job_id)
        self._signals.notify(Topic.WATCHERS)
        return found

    def _log_of(self, builder: Builder, run: BuilderRun, child: ChildState) -> BuilderLog:
        limit = self._settings.limits.log_bytes
        copied = self._logs.setdefault(run.attempt_id, BuilderLog(self._database, builder, run, limit))
        if copied.run.revision != run.revision or copied.run.holder != run.holder:
            copied = self._logs[run.attempt_id] = BuilderLog(self._database, builder, run, limit)
        before = copied.run.allocation
        if child.allocation and child.allocation != before:
            note = f"[albatros] Nomad started it again, as allocation {child.allocation}\n" if before else ""
            copied.begin(child.allocation, note)
        return copied

    def _settle(self, attempt: Attempt, copied: BuilderLog, child: ChildState) -> None:
        if not self._drain(copied, child):
            return
        if child.reason is not None:
            state = AttemptState.LOST if child.reason is Reason.NODE_LOST else AttemptState.FAILED
            self._close(attempt, state, child.reason, child.detail)
            return
        with self._database.write() as session:
            found = queue.lock_attempt(session, attempt.id)
            if found is not None and found.state in OPEN_ATTEMPTS:
                settle.succeed(session, found)
        self._signals.notify(Topic.SCHEDULER, Topic.PUBLISHER, Topic.REPORTER, Topic.WATCHERS)

    def _end(
        self,
        builder: Builder,
        copied: BuilderLog,
        child: ChildState,
        to: AttemptState,
        reason: Reason,
        message: str,
    ) -> None:
        """End it before its time: the engine has committed the stop by then, so nothing of it goes on."""
        builder.stop(copied.run.attempt.executor_ref)
        try:
            if child.allocation:
                copied.finish()
        except ExecutorError as error:
            log.warning("the end of a log cannot be read", attempt=copied.run.attempt_id, error=error.detail)
        self._close(copied.run.attempt, to, reason, message)

    def _drain(self, copied: BuilderLog, child: ChildState) -> bool:
        """Read the log to its end; False when it is to be tried again."""
        if not child.allocation:
            return True
        until = self._drains.setdefault(copied.run.attempt_id, time.monotonic() + DRAIN_SECONDS)
        try:
            copied.finish()
        except ExecutorError as error:
            log.warning("the end of a log cannot be read", attempt=copied.run.attempt_id, error=error.detail)
            if time.monotonic() < until:
                return False
            copied.say(f"[albatros] the end of this log could not be read: {error.detail}\n")
        return True

    def _close(self, attempt: Attempt, to: AttemptState, reason: Reason, message: str) -> None:
        settle.close_attempt(self._database, self._signals, self._settings.limits, attempt.id, to, reason, message)

    def _stop_orphans(self) -> None:
        """End what runs in the engine for an Attempt that is closed here; those of other installations are let be."""
        for name, builder in self._builders.items():
            try:
                running = builder.running()
                with self._database.read() as session:
                    closed = set(db.closed_among(session, list(running.values())))
                for child, attempt_id in running.items():
                    if attempt_id in closed:
                        log.warning("a builder's run outlived its attempt and is stopped", attempt=attempt_id)
                        builder.stop(child)
            except ExecutorError as error:
                log.warning("what a builder runs cannot be listed", builder=name, error=error.detail)

    @property
    def _wall(self) -> timedelta:
        return timedelta(seconds=self._settings.limits.job_seconds)


def _seconds(length: timedelta) -> str:
    return f"{int(length.total_seconds())} s"
