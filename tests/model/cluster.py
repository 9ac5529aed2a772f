"""A cluster that runs runners as Nomad does: registered once, restarted, replaced, collected."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from albatros.domain.states import AttemptState, Reason
from albatros.errors import ExecutorUnavailableError
from albatros.executors.base import RunnerEnded, RunnerNews, RunnerPlaced, Slots, StartOrder

SYSTEM = "x86_64-linux"


@dataclass
class Process:
    """A runner: what it was started with, and what it knows."""

    attempt_id: str
    token: str
    nonce: str
    order: dict[str, object] | None = None
    report: dict[str, object] | None = None
    """What it tells the server until it is heard."""
    ended: bool = False
    heard_at: datetime | None = None
    """When the server last promised it a lease."""

    @property
    def works(self) -> bool:
        """Whether it does what it was told."""
        return self.order is not None and self.report is None and not self.ended


@dataclass
class Registered:
    """The cluster's job of one Attempt; without processes it waits for a place."""

    order: StartOrder
    lost: bool = False
    """The cluster gave up on its node; the runner there may well go on."""
    processes: list[Process] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        return not self.processes and not self.lost

    @property
    def dead(self) -> bool:
        return not self.waits and (self.lost or all(process.ended for process in self.processes))


class Answers(StrEnum):
    """What a server hears of the next registration."""

    GOOD = "good"
    LOST = "lost"
    """It took effect, and the answer did not come back."""
    AWAY = "away"
    """It was not received."""


class Cluster:
    """Outlives every server. Without `enforce_index` a job that is registered twice runs twice."""

    def __init__(self, places: int, queue: int, *, enforce_index: bool = True) -> None:
        """So many processes run at once, and so many jobs more are taken."""
        self.places = places
        self.queue = queue
        self.enforce_index = enforce_index
        self.answers = Answers.GOOD
        self.jobs: dict[str, Registered] = {}
        self.known: set[str] = set()
        """Attempts that were ever registered, those of collected jobs too."""
        self.processes: list[Process] = []
        self.started_twice: list[str] = []
        self._numbers = itertools.count(1)

    def register(self, order: StartOrder) -> None:
        """Take a job. Raises ExecutorUnavailableError when the answer does not arrive."""
        answers, self.answers = self.answers, Answers.GOOD
        if answers is Answers.AWAY:
            raise ExecutorUnavailableError("the cluster does not answer")
        job = self.jobs.get(order.attempt_id)
        if job is None:
            self.jobs[order.attempt_id] = Registered(order)
            self.known.add(order.attempt_id)
            self.place()
        elif not self.enforce_index:
            self.started_twice.append(order.attempt_id)
            self.run(job)
        if answers is Answers.LOST:
            raise ExecutorUnavailableError("the cluster's answer was lost")

    def place(self) -> None:
        """Start what waits, the oldest first, where there is a place; without a queue there is."""
        for job in self.jobs.values():
            if job.waits and (not self.queue or self._running() < self.places):
                self.run(job)

    def _running(self) -> int:
        return sum(not process.ended for process in self.processes)

    def run(self, job: Registered) -> Process:
        """Another process for a job; whatever ran before may go on."""
        process = Process(job.order.attempt_id, job.order.token, f"{next(self._numbers):032x}")
        job.processes.append(process)
        self.processes.append(process)
        return process

    def collect(self, attempt_id: str) -> None:
        """Forget a dead job, whether or not anybody saw how it ended."""
        if attempt_id in self.jobs and self.jobs[attempt_id].dead:
            del self.jobs[attempt_id]

    def living(self) -> Iterable[Registered]:
        return [job for job in self.jobs.values() if not job.dead]


class ClusterExecutor:
    """One server's `Executor` on a cluster: a new one is told again of everything that ended."""

    def __init__(self, name: str, cluster: Cluster, moment: Callable[[], None], *, shared: bool) -> None:
        """`moment` is called before and after a job is registered: its server may die there."""
        self.name = name
        self.shared = shared
        self._cluster = cluster
        self._moment = moment
        self._told: set[str] = set()

    def slots(self) -> list[Slots]:
        taken = len(list(self._cluster.living()))
        free = max(0, self._cluster.places + self._cluster.queue - taken)
        return [Slots(frozenset({SYSTEM}), free, evaluates=True)]

    def lacks(self, system: str) -> str:
        return f"the cluster builds {SYSTEM}, and not {system}"

    def start(self, order: StartOrder) -> str:
        self._moment()
        self._cluster.register(order)
        self._moment()
        return f"alb-{order.attempt_id}"

    def stop(self, attempt_id: str, *, kill: bool) -> None:
        job = self._cluster.jobs.get(attempt_id)
        if job is None or job.lost:
            # A lost node hears nothing.
            return
        if job.waits:
            job.lost = True
        elif not kill:
            # A runner that is asked to end reports first, as `Site.heartbeat` does.
            return
        for process in job.processes:
            process.ended = True

    def alive(self) -> frozenset[str]:
        return frozenset(job.order.attempt_id for job in self._cluster.living())

    def poll(self, open_attempts: Mapping[str, AttemptState]) -> list[RunnerNews]:
        self._cluster.place()
        dead = [job.order.attempt_id for job in self._cluster.jobs.values() if job.dead]
        news = [attempt_id for attempt_id in dead if attempt_id not in self._told]
        self._told.update(news)
        ended = [RunnerEnded(attempt_id, Reason.NODE_LOST, "its runner ended without a report") for attempt_id in news]
        waiting = [job.order.attempt_id for job in self._cluster.jobs.values() if job.waits]
        placed = [RunnerPlaced(one, waits=True, facts={}) for one in waiting if one in open_attempts]
        return [*placed, *ended]

    def close(self) -> None:
        return
