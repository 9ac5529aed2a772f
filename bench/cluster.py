"""A scheduler on a queue that is there, and a simulated cluster whose runs end in the order in which they began.

`python -m bench.cluster URL JOBS` works off so many Jobs in a process of its own, so that its memory is the
scheduler's, and prints what that took as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from albatros.db import metrics
from albatros.db.builds import check_room
from albatros.db.session import Database, connect
from albatros.db.signals import Signals
from albatros.domain.states import AttemptState, JobKind
from albatros.executors.base import RunnerNews, Slots, StartOrder
from albatros.flows import attempts
from albatros.flows.dispatch import Dispatcher
from albatros.forges.base import Forge
from albatros.roles import Scheduler
from bench.world import Memory
from tests.support.flows import KEY, CloneForge, package, settings_of
from tests.support.stores import MemoryStore

SYSTEMS = ("aarch64-linux", "armv7l-linux", "x86_64-linux")
NODES_OF_A_SYSTEM, NODES_OF_EVALUATIONS = 300, 100
NODES = NODES_OF_A_SYSTEM * len(SYSTEMS) + NODES_OF_EVALUATIONS
PACKAGES = 3
"""For each system, in each Build: as many Jobs as end are added by evaluations, while all nodes are busy."""
FREED_A_ROUND = 100
LOOKS = 20
PATIENCE_SECONDS = 3600


@dataclass
class Cluster:
    """An executor with a place on each node, in groups as Nomad's has them."""

    name: str = "nomad"
    shared: bool = True
    running: dict[str, StartOrder] = field(default_factory=dict)
    unclaimed: deque[StartOrder] = field(default_factory=deque)

    def slots(self) -> Sequence[Slots]:
        """What no run has."""
        busy = [order.system for order in self.running.values()]
        evaluations = Slots(frozenset(), NODES_OF_EVALUATIONS - busy.count(""), evaluates=True)
        builds = [Slots(frozenset({one}), NODES_OF_A_SYSTEM - busy.count(one), evaluates=False) for one in SYSTEMS]
        return [evaluations, *builds]

    def lacks(self, system: str) -> str:
        """Nothing here is refused."""
        return f"0 of {NODES} nodes have {system}"

    def start(self, order: StartOrder) -> str:
        """A run that has yet to claim."""
        self.running[order.attempt_id] = order
        self.unclaimed.append(order)
        return order.attempt_id

    def stop(self, attempt_id: str, *, kill: bool) -> None:  # noqa: ARG002 - there is but one way
        """End a run without a word."""
        self.running.pop(attempt_id, None)

    def alive(self) -> frozenset[str]:
        """All runs."""
        return frozenset(self.running)

    def poll(self, open_attempts: Mapping[str, AttemptState]) -> list[RunnerNews]:  # noqa: ARG002 - no news
        """Every run speaks for itself."""
        return []

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class Worked:
    """What some Jobs took: seconds of all, of each round, claim and result; MiB; seconds of looks at the whole."""

    jobs: int = 0
    started: int = 0
    seconds: float = 0.0
    processor: float = 0.0
    rounds: list[float] = field(default_factory=list)
    claims: list[float] = field(default_factory=list)
    results: list[float] = field(default_factory=list)
    resident_mib: float = 0.0
    room: list[float] = field(default_factory=list)
    metrics: list[float] = field(default_factory=list)


class Site:
    """A server's scheduler, and the runners that it hears of."""

    def __init__(self, database: Database, data: Path) -> None:
        self._database = database
        self._signals, self._store, self._cluster = Signals(), MemoryStore(), Cluster()
        self._settings = settings_of(data, limits={"lease_seconds": PATIENCE_SECONDS})
        self._forges = cast("dict[str, Forge]", {"home": CloneForge()})
        limits = self._settings.limits
        dispatcher = Dispatcher(database, self._signals, self._cluster, limits, KEY, "http://127.0.0.1:1")
        self._scheduler = Scheduler(database, self._signals, dispatcher, self._cluster, limits)
        self._ends: deque[tuple[StartOrder, object]] = deque()

    def fill(self) -> None:
        """Have a run on every node."""
        while len(self._cluster.running) < NODES:
            self._scheduler.step()
            self._claim_all(Worked())

    def work(self, jobs: int) -> Worked:
        """Work off so many Jobs, on nodes that are all busy."""
        worked = Worked(jobs)
        began, processor = time.perf_counter(), time.process_time()
        while len(worked.results) < jobs:
            self._end_oldest(worked)
            before, at = len(self._cluster.unclaimed), time.perf_counter()
            self._scheduler.step()
            worked.rounds.append(time.perf_counter() - at)
            worked.started += len(self._cluster.unclaimed) - before
            self._claim_all(worked)
        worked.seconds, worked.processor = time.perf_counter() - began, time.process_time() - processor
        for _ in range(LOOKS):
            self._look(worked)
        return worked

    def _claim_all(self, worked: Worked) -> None:
        while self._cluster.unclaimed:
            order = self._cluster.unclaimed.popleft()
            at = time.perf_counter()
            told = attempts.claim(
                self._database, self._signals, self._settings, self._forges, order.token, order.attempt_id, "a-node"
            )
            worked.claims.append(time.perf_counter() - at)
            self._ends.append((order, told["kind"]))

    def _end_oldest(self, worked: Worked) -> None:
        """Runs end in the order in which they began."""
        for _ in range(FREED_A_ROUND):
            order, kind = self._ends.popleft()
            report: dict[str, object] = {
                "nonce": order.attempt_id,
                "outcome": "succeeded",
                "reason": None,
                "message": "",
                "outputs": [],
            }
            if kind == JobKind.EVALUATION.value:
                found = [
                    package(f"{n}-{system}", system=system, placed=system)
                    for system in SYSTEMS
                    for n in range(PACKAGES)
                ]
                report["evaluation"] = {"config": None, "commit_time": 1_700_000_000, "attributes": found}
            at = time.perf_counter()
            attempts.report_result(self._database, self._store, self._signals, self._settings, order.token, report)
            worked.results.append(time.perf_counter() - at)
            del self._cluster.running[order.attempt_id]

    def _look(self, worked: Worked) -> None:
        at = time.perf_counter()
        with self._database.read() as session:
            check_room(session, sys.maxsize)
        worked.room.append(time.perf_counter() - at)
        at = time.perf_counter()
        with self._database.read() as session:
            metrics.gather(session)
        worked.metrics.append(time.perf_counter() - at)


def main() -> int:
    url, jobs = sys.argv[1:]
    database = connect(url)
    with TemporaryDirectory(prefix="albatros-bench-") as data:
        site = Site(database, Path(data))
        site.fill()
        worked = site.work(int(jobs))
    worked.resident_mib = Memory(os.getpid()).resident()
    database.dispose()
    print(json.dumps(asdict(worked)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
