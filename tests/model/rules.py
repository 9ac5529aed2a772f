"""What must hold whatever happens, read from the database after each step."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from albatros.db.models import Attempt, Build, Job, StatusReport
from albatros.db.outbox import aggregate_of
from albatros.domain.states import OPEN_ATTEMPTS, AttemptState, BuildState, JobKind, JobState, Reason, is_end
from tests.model.site import Site


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

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_ATTEMPTS


@dataclass
class Rules:
    """Remembers what had ended, to see that it stays so."""

    site: Site
    skewed: bool = False
    """Whether the servers' clocks differ: then a lease says nothing about who is alive."""
    tries: dict[str, Try] = field(default_factory=dict)
    ended_jobs: dict[int, JobState] = field(default_factory=dict)
    ended_builds: dict[int, BuildState] = field(default_factory=dict)

    def check(self) -> None:
        """Raise ViolationError for the first rule that does not hold."""
        with Session(self.site.engine) as session:
            tries = _tries(session)
            jobs = {row.id: row for row in session.execute(select(Job.id, Job.build_id, Job.kind, Job.state))}
            builds = {row.id: row.state for row in session.execute(select(Build.id, Build.state))}
            shown = session.execute(select(StatusReport.build_id, StatusReport.context, StatusReport.state)).all()
        self._attempts(tries)
        self._fence(tries)
        self._jobs(tries, {job_id: row.state for job_id, row in jobs.items()})
        self._builds(builds, Counter(row.build_id for row in jobs.values() if not is_end(row.state)))
        planned = {row.build_id for row in jobs.values() if row.kind is JobKind.BUILD}
        for build_id, state in builds.items():
            hold(state is not BuildState.RUNNING or build_id in planned, "a Build that runs is planned")
        failed = {row.build_id for row in jobs.values() if row.state is JobState.FAILED}
        for build_id, context, state in shown:
            if context == aggregate_of(""):
                hold(state == builds[build_id], "the forge is told where the Build stands")
            elif state is BuildState.FAILED:
                hold(build_id in failed, "no failure is shown for a Job that is tried again")

    def quiet(self) -> None:
        """The same once nothing is left to happen."""
        self.check()
        hold(len(self.ended_builds) == len(_builds(self.site)), "every Build ends")
        hold(not any(one.is_open for one in self.tries.values()), "no Attempt is left open")
        hold(not self.site.processes, "every runner ends")
        hold(not any(list(cluster.living()) for cluster in self.site.clusters), "no slot is leaked")

    def _attempts(self, tries: dict[str, Try]) -> None:
        open_of = Counter(one.job_id for one in tries.values() if one.is_open)
        hold(max(open_of.values(), default=0) <= 1, "a Job has one open Attempt")
        for attempt_id, old in self.tries.items():
            one = tries[attempt_id]
            hold(old.nonce in (None, one.nonce), "an Attempt stays with the runner that claimed it")
            hold(old.is_open or one == old, "what closed an Attempt stays")
        for attempt_id, one in tries.items():
            before = self.tries.get(attempt_id)
            if one.state is AttemptState.LOST and not self.skewed and (before is None or before.is_open):
                hold(self._was_silent(attempt_id, one), "a runner that is alive and heard of is not lost")
        self.tries = tries

    def _was_silent(self, attempt_id: str, one: Try) -> bool:
        if all(cluster.is_dead(attempt_id) for cluster in self.site.clusters):
            return True
        if any(attempt_id in cluster.jobs and cluster.jobs[attempt_id].waits for cluster in self.site.clusters):
            return False
        heard = [
            process.heard_at
            for cluster in self.site.clusters
            for process in cluster.processes
            if process.attempt_id == attempt_id and process.nonce == one.nonce and process.heard_at
        ]
        lease = timedelta(seconds=self.site.settings.limits.lease_seconds)
        return not heard or max(heard) + lease <= self.site.clock.time

    def _fence(self, tries: dict[str, Try]) -> None:
        for cluster in self.site.clusters:
            hold(not cluster.started_twice, "an Attempt is registered once")
        machines = Counter(attempt_id for cluster in self.site.clusters for attempt_id in cluster.jobs)
        hold(max(machines.values(), default=0) <= 1, "an Attempt stays on its own executor")
        for attempt_id, nonces in self.site.orders_given.items():
            hold(nonces <= {tries[attempt_id].nonce}, "only the runner that claimed first is told what to do")
        for attempt_id, nonces in self.site.results_taken.items():
            hold(nonces <= {tries[attempt_id].nonce}, "only the runner that claimed is heard")

    def _jobs(self, tries: dict[str, Try], jobs: dict[int, JobState]) -> None:
        opened = {one.job_id for one in tries.values() if one.is_open}
        good = Counter(one.job_id for one in tries.values() if one.state is AttemptState.SUCCEEDED)
        counted = (AttemptState.FAILED, AttemptState.LOST, AttemptState.SUCCEEDED)
        tried = Counter(one.job_id for one in tries.values() if one.state in counted)
        for job_id, state in jobs.items():
            hold((state is JobState.RUNNING) == (job_id in opened), "a Job runs exactly while an Attempt is open")
            hold(good[job_id] == (state is JobState.SUCCEEDED), "a Job has one committed result, or none")
            hold(tried[job_id] <= self.site.settings.limits.attempts, "tries are bounded")
            hold(self.ended_jobs.get(job_id, state) is state, "a Job ends once")
        self.ended_jobs = {job_id: state for job_id, state in jobs.items() if is_end(state)}

    def _builds(self, builds: dict[int, BuildState], open_jobs: Counter[int]) -> None:
        for build_id, state in builds.items():
            hold(self.ended_builds.get(build_id, state) is state, "a Build ends once")
            busy = state in (BuildState.QUEUED, BuildState.RUNNING)
            hold(not busy or open_jobs[build_id], "a Build that is open has something left to do")
        self.ended_builds = {build_id: state for build_id, state in builds.items() if is_end(state)}


def _tries(session: Session) -> dict[str, Try]:
    columns = (
        Attempt.id, Attempt.job_id, Attempt.state, Attempt.nonce, Attempt.reason, Attempt.ended_at, Attempt.result,
    )  # fmt: skip
    return {
        row.id: Try(row.job_id, row.state, row.nonce, row.reason, row.ended_at, (row.result or {}).get("report"))
        for row in session.execute(select(*columns))
    }


def _builds(site: Site) -> list[int]:
    with Session(site.engine) as session:
        return list(session.scalars(select(Build.id)))
