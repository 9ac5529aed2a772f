"""What must hold whatever happens, read from the database after each step."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import select

from albatros.db.models import Attempt, Build, Job, JobEdge, StatusReport
from albatros.db.outbox import aggregate_of
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
from albatros.flows.settle import RETRY_FIRST
from tests.model.site import Site

COUNTED = (AttemptState.FAILED, AttemptState.LOST, AttemptState.SUCCEEDED)
"""How an Attempt ends that uses up a try."""


class ViolationError(AssertionError):
    """A rule does not hold."""


def hold(condition: object, rule: str) -> None:
    """Raise ViolationError unless the condition holds."""
    if not condition:
        raise ViolationError(rule)


@dataclass(frozen=True, slots=True)
class Try:
    """An Attempt as a rule sees it."""

    job_id: int
    state: AttemptState
    nonce: str | None
    reason: Reason | None
    ended_at: datetime | None
    report: object
    executor: str
    lease_until: datetime | None
    stop: str | None
    created_at: datetime

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_ATTEMPTS


@dataclass(frozen=True, slots=True)
class Work:
    """A Job as a rule sees it."""

    build_id: int
    kind: JobKind
    state: JobState
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What the database says at one moment."""

    tries: dict[str, Try]
    jobs: dict[int, Work]
    needs: list[tuple[int, int]]
    builds: dict[int, BuildState]
    shown: list[tuple[int, str, BuildState]]


@dataclass
class Rules:
    """Remembers what had ended, to see that it stays so."""

    site: Site
    skewed: bool = False
    """Whether the servers' clocks may differ: then a lease says nothing about who is alive."""
    tries: dict[str, Try] = field(default_factory=dict)
    ended_jobs: dict[int, JobState] = field(default_factory=dict)
    ended_builds: dict[int, BuildState] = field(default_factory=dict)
    all_built: bool = False

    def check(self) -> None:
        """Raise ViolationError for the first rule that does not hold."""
        seen = _read(self.site)
        self._attempts(seen)
        self._fence(seen.tries)
        self._jobs(seen)
        self._builds(seen)
        self._shown(seen)

    def is_over(self) -> bool:
        """Whether everything had ended when it was last looked at."""
        return self.all_built and not any(one.is_open for one in self.tries.values())

    def quiet(self) -> None:
        """The same once nothing is left to happen."""
        self.check()
        hold(self.all_built, "every Build ends")
        hold(not any(one.is_open for one in self.tries.values()), "no Attempt is left open")
        hold(not self.site.processes, "every runner ends")
        hold(not any(list(cluster.living()) for cluster in self.site.clusters), "no slot is leaked")

    def _attempts(self, seen: Seen) -> None:
        tries = seen.tries
        open_of = Counter(one.job_id for one in tries.values() if one.is_open)
        hold(max(open_of.values(), default=0) <= 1, "a Job has one open Attempt")
        for attempt_id, old in self.tries.items():
            one = tries[attempt_id]
            hold(old.nonce in (None, one.nonce), "an Attempt stays with the runner that claimed it")
            hold(old.is_open or one == old, "what closed an Attempt stays")
        for attempt_id, one in tries.items():
            before = self.tries.get(attempt_id)
            if not self.skewed and one.state is AttemptState.LOST and (before is None or before.is_open):
                hold(self._was_silent(attempt_id, one, before), "a runner that is alive and in its lease is not lost")
            if not self.skewed and before is None:
                hold(_has_paused(one, tries.values()), "a Job is tried again after a pause")
            ended = is_end(seen.builds[seen.jobs[one.job_id].build_id])
            hold(not (ended and one.is_open) or one.stop, "what runs for a Build that has ended is told to stop")
        self.tries = tries

    def _was_silent(self, attempt_id: str, one: Try, before: Try | None) -> bool:
        jobs = [cluster.jobs[attempt_id] for cluster in self.site.clusters if attempt_id in cluster.jobs]
        known = any(attempt_id in cluster.known for cluster in self.site.clusters)
        if known and all(job.dead for job in jobs):
            return True
        if any(job.waits for job in jobs):
            return False
        heard = [
            process.heard_at
            for cluster in self.site.clusters
            for process in cluster.processes
            if process.attempt_id == attempt_id and process.nonce == one.nonce and process.heard_at
        ]
        if heard:
            return max(heard) + timedelta(seconds=self.site.settings.limits.lease_seconds) <= self.site.clock.time
        lease = before.lease_until if before is not None else None
        return lease is not None and lease <= self.site.clock.time.replace(tzinfo=None)

    def _fence(self, tries: dict[str, Try]) -> None:
        for server in self.site.servers:
            hold(not server.cluster.started_twice, "an Attempt is registered once")
            own = all(tries[attempt_id].executor == server.executor_name for attempt_id in server.cluster.known)
            hold(own, "an Attempt stays on its own executor")
        for attempt_id, nonces in self.site.orders_given.items():
            hold(nonces <= {tries[attempt_id].nonce}, "only the runner that claimed first is told what to do")
        for attempt_id, nonces in self.site.results_taken.items():
            hold(nonces <= {tries[attempt_id].nonce}, "only the runner that claimed is heard")
        for attempt_id, nonce in self.site.results_refused:
            one = tries[attempt_id]
            hold(one.nonce != nonce or one.report is None, "a report that was taken is not refused when it comes again")

    def _jobs(self, seen: Seen) -> None:
        tries = seen.tries.values()
        opened = {one.job_id for one in tries if one.is_open}
        good = Counter(one.job_id for one in tries if one.state is AttemptState.SUCCEEDED)
        tried = Counter(one.job_id for one in tries if one.state in COUNTED)
        limit = self.site.settings.limits.attempts
        for job_id, job in seen.jobs.items():
            hold((job.state is JobState.RUNNING) == (job_id in opened), "a Job runs exactly while an Attempt is open")
            hold(good[job_id] == (job.state is JobState.SUCCEEDED), "a Job has one committed result, or none")
            hold(tried[job_id] <= limit, "tries are bounded")
            given_up = job.state is JobState.FAILED and job.reason in INFRASTRUCTURE_REASONS
            hold(not given_up or tried[job_id] == limit, "infrastructure fails a Job after its last try only")
            hold(job.state is not JobState.FAILED or job.reason is not None, "a Job fails for a reason")
            hold(self.ended_jobs.get(job_id, job.state) is job.state, "a Job ends once")
        begun = (JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED)
        for job_id, need_id in seen.needs:
            met = seen.jobs[need_id].state is JobState.SUCCEEDED
            hold(met or seen.jobs[job_id].state not in begun, "a Job waits for what it needs")
        self.ended_jobs = {job_id: job.state for job_id, job in seen.jobs.items() if is_end(job.state)}

    def _builds(self, seen: Seen) -> None:
        open_jobs = Counter(job.build_id for job in seen.jobs.values() if not is_end(job.state))
        planned = {job.build_id for job in seen.jobs.values() if job.kind is JobKind.BUILD}
        for build_id, state in seen.builds.items():
            hold(self.ended_builds.get(build_id, state) is state, "a Build ends once")
            busy = state in (BuildState.QUEUED, BuildState.RUNNING)
            hold(not busy or open_jobs[build_id], "a Build that is open has something left to do")
            hold(state is not BuildState.RUNNING or build_id in planned, "a Build that runs is planned")
        self.ended_builds = {build_id: state for build_id, state in seen.builds.items() if is_end(state)}
        self.all_built = len(self.ended_builds) == len(seen.builds)

    def _shown(self, seen: Seen) -> None:
        failed = {job.build_id for job in seen.jobs.values() if job.state is JobState.FAILED}
        for build_id, context, state in seen.shown:
            if context == aggregate_of(""):
                hold(state == seen.builds[build_id], "the forge is told where the Build stands")
            elif state is BuildState.FAILED:
                hold(build_id in failed, "no failure is shown for a Job that is tried again")


def _has_paused(new: Try, tries: Iterable[Try]) -> bool:
    """Whether the first pause at least is over since a try that failed."""
    failed = [one for one in tries if one.job_id == new.job_id and one.state in COUNTED and one is not new]
    return all(one.ended_at is None or new.created_at >= one.ended_at + RETRY_FIRST for one in failed)


def _read(site: Site) -> Seen:
    columns = (
        Attempt.id, Attempt.job_id, Attempt.state, Attempt.nonce, Attempt.reason, Attempt.ended_at, Attempt.result,
        Attempt.executor, Attempt.lease_until, Attempt.stop, Attempt.created_at,
    )  # fmt: skip
    with site.engine.connect() as session:
        tries = {
            row.id: Try(
                row.job_id, row.state, row.nonce, row.reason, row.ended_at, (row.result or {}).get("report"),
                row.executor, row.lease_until, row.stop, row.created_at,
            )
            for row in session.execute(select(*columns))
        }  # fmt: skip
        jobs = {
            row.id: Work(row.build_id, row.kind, row.state, row.reason)
            for row in session.execute(select(Job.id, Job.build_id, Job.kind, Job.state, Job.reason))
        }
        edges = session.execute(select(JobEdge.job_id, JobEdge.needs_id))
        needs = [(row.job_id, row.needs_id) for row in edges]
        builds = {row.id: row.state for row in session.execute(select(Build.id, Build.state))}
        reports = session.execute(select(StatusReport.build_id, StatusReport.context, StatusReport.state))
        shown = [(row.build_id, row.context, row.state) for row in reports]
    return Seen(tries, jobs, needs, builds, shown)
