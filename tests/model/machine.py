"""The scheduler as a state machine that hypothesis explores: every rule is something that happens to a real server."""

import hashlib
import itertools
import sys
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from albatros import roles
from albatros.db import session as db_session
from albatros.db.builds import NewBuild, create_build
from albatros.db.models import Base, Build
from albatros.domain.states import OPEN_BUILDS, Trigger
from albatros.errors import ConflictError
from albatros.flows import cancel, dispatch
from tests.model.cluster import Answers, Cluster, Process
from tests.model.rules import Rules
from tests.model.site import Server, Site, success
from tests.support.clock import Clock
from tests.support.rows import add_repo

BRANCHES = ("refs/heads/main", "refs/heads/next")
SERVERS = st.integers(0, 1)
SOME = st.integers(0, 31)
"""One of what there is, counted round."""
MOMENTS = st.sampled_from([None, None, None, 0, 1, 2, 3, 4, 5, 8])
"""At which moment of a round its server dies, if it does; most have fewer than this."""
CALL_MOMENTS = st.sampled_from([None, None, 0, 1, 2, 2])
"""The same of a runner's call: before its transaction, before the commit, after it."""
PACKAGES = st.sampled_from([3, 0, 1, 3])
REASONS = st.sampled_from(["disk_full", "preempted", "driver", "handback", "build_failed", "timeout"])
JUMPS = st.sampled_from([1, 5, 20, 31, 90, 700, 3600])
MOST_BUILDS = 4
ROUNDS = 200
"""Rounds of a site left alone in which everything must have ended."""


@dataclass
class Explored:
    """How far the machine got, and a fingerprint of every state it saw: the same for the same walks."""

    walks: int = 0
    steps: int = 0
    fingerprint: str = ""

    def note(self, state: object) -> None:
        self.steps += 1
        self.fingerprint = hashlib.sha256(f"{self.fingerprint}{state}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Place:
    """Where the machine runs; `enforce_index` is what makes a repeated start change nothing."""

    engine: Engine
    data: Path
    enforce_index: bool = True
    explored: Explored = field(default_factory=Explored)


def machine_on(place: Place) -> type[RuleBasedStateMachine]:
    """What hypothesis makes a new machine with, on empty tables."""

    class Placed(SchedulerMachine):
        def __init__(self) -> None:
            super().__init__(place)

    return Placed


class SchedulerMachine(RuleBasedStateMachine):
    """Pushes, server rounds and deaths, runners and their troubles, in any order."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._place = place
        self._patches = pytest.MonkeyPatch()
        self._clock = Clock()
        self._numbers = itertools.count(1)
        self._pushed = 0
        self._patches.setattr(db_session, "datetime", self._clock)
        clock = SimpleNamespace(monotonic=self._clock.monotonic, sleep=self._while_draining)
        self._patches.setattr(roles, "time", clock)
        ids = SimpleNamespace(uuid4=lambda: uuid.UUID(int=next(self._numbers)))
        self._patches.setattr(dispatch, "uuid", ids)
        self._site = Site(place.engine, place.data, self._clock)
        self._rules = Rules(self._site)
        self._checked: tuple[int, ...] = ()
        with Session(place.engine) as session:
            for table in reversed(Base.metadata.sorted_tables):
                # Compiling the same as an expression takes longer than running it.
                session.connection().exec_driver_sql(f'DELETE FROM "{table.name}"')
            self._repo_id = add_repo(session).id
            session.commit()

    @initialize(shared=st.booleans(), slots=st.integers(1, 3), skewed=st.sampled_from([False, False, True]))
    def found(self, shared: bool, slots: int, skewed: bool) -> None:
        """`skewed`: the servers' clocks may come to differ, and then a lease says nothing about who is alive."""
        self._rules.skewed = skewed
        self._site.found(shared=shared, slots=slots, enforce_index=self._place.enforce_index)
        self.push(BRANCHES[0])
        self.step_undisturbed(0)

    # What people do

    @precondition(lambda self: self._pushed < MOST_BUILDS)
    @rule(branch=st.sampled_from(BRANCHES))
    def push(self, branch: str) -> None:
        self._pushed += 1
        number = next(self._numbers)
        new = NewBuild(branch, f"{number:040x}", number, Trigger.PUSH, trusted=True)
        with self._server(0).database.write() as session:
            create_build(session, self._repo_id, new)

    @rule(which=SOME, on=SERVERS, moment=MOMENTS)
    def cancel(self, which: int, on: int, moment: int | None) -> None:
        with Session(self._place.engine) as session:
            ids = session.scalars(select(Build.id).where(Build.state.in_(OPEN_BUILDS)).order_by(Build.id)).all()
        server = self._server(on)
        if not ids or server.scheduler is None:
            return
        build_id = ids[which % len(ids)]
        self._site.act(server, lambda: cancel.cancel(server.database, self._site.signals, build_id, by="alice"), moment)

    # What servers do, and what befalls them

    @rule(on=SERVERS, moment=MOMENTS)
    def step(self, on: int, moment: int | None) -> None:
        self._site.step(self._server(on), moment)

    @rule(on=SERVERS)
    def step_undisturbed(self, on: int) -> None:
        self._site.step(self._running(on))

    @rule(on=SERVERS, moment=st.sampled_from([0, 0, 3, 3, 1, 6]), which=SOME, seconds=st.sampled_from([31, 0]))
    def step_overtaken(self, on: int, moment: int, which: int, seconds: int) -> None:
        """In the middle of its round a runner calls the other server, which has a round too."""
        other = self._running(1 - on)
        process = self._at_work(which, 1 - on) if self._site.processes else None
        self._clock.sleep(seconds)

        def meanwhile() -> None:
            if process is not None and not process.ended:
                self._advance(process, other, packages=1)
            self._site.step(other)

        # The loop says so and has another round: whoever was overtaken changed nothing.
        with suppress(ConflictError):
            self._site.step(self._running(on), moment, meanwhile)

    @precondition(lambda self: self._site.processes)
    @rule(on=SERVERS, moment=st.sampled_from([3, 0]), which=SOME)
    def hear_late(self, on: int, moment: int, which: int) -> None:
        """A runner is heard again just when a server has found its lease over."""
        self.step_overtaken(on, moment, which, 31)

    @rule(on=SERVERS, moment=MOMENTS)
    def start(self, on: int, moment: int | None) -> None:
        """Killed and started again."""
        self._site.start(self._server(on), moment)

    @rule(on=SERVERS)
    def stop(self, on: int) -> None:
        self._site.drain(self._server(on))

    @rule(seconds=JUMPS)
    def wait(self, seconds: int) -> None:
        self._clock.sleep(seconds)

    @precondition(lambda self: self._rules.skewed)
    @rule(on=SERVERS, minutes=st.sampled_from([0, 60]))
    def set_clock(self, on: int, minutes: int) -> None:
        """One server's clock is an hour ahead."""
        self._server(on).ahead = timedelta(minutes=minutes)

    @rule(on=SERVERS, answers=st.sampled_from([Answers.LOST, Answers.AWAY]))
    def lose_answer(self, on: int, answers: Answers) -> None:
        """What the cluster answers to the next registration does not arrive."""
        self._server(on).cluster.answers = answers

    # What runners do, and what befalls them

    @rule(on=SERVERS, packages=PACKAGES)
    def go_on(self, on: int, packages: int) -> None:
        """For a while all goes well."""
        server = self._running(on)
        for _ in range(3):
            self._site.step(server)
            for process in self._site.processes:
                self._advance(process, server, packages=packages)

    @precondition(lambda self: self._site.processes)
    @rule(which=SOME, on=SERVERS, moment=CALL_MOMENTS)
    def claim(self, which: int, on: int, moment: int | None) -> None:
        """For the first time, or again since the answer was lost."""
        self._site.claim(self._process(which), self._server(on), moment)

    @precondition(lambda self: self._site.processes)
    @rule(which=SOME, on=SERVERS, moment=CALL_MOMENTS)
    def heartbeat(self, which: int, on: int, moment: int | None) -> None:
        process = self._process(which)
        if process.order is not None:
            self._site.heartbeat(process, self._server(on), moment)

    @precondition(lambda self: self._site.processes)
    @rule(which=SOME, on=SERVERS, moment=CALL_MOMENTS, packages=PACKAGES, supersede=st.booleans())
    def succeed(self, which: int, on: int, moment: int | None, packages: int, supersede: bool) -> None:
        process = self._at_work(which, on)
        if process.works:
            self._site.finish(process, success(process, packages=packages, supersede=supersede))
        self._report(process, on, moment)

    @precondition(lambda self: self._site.processes)
    @rule(which=SOME, on=SERVERS, moment=CALL_MOMENTS, reason=REASONS)
    def fail(self, which: int, on: int, moment: int | None, reason: str) -> None:
        process = self._at_work(which, on)
        if process.works:
            self._site.finish(process, {"outcome": "failed", "reason": reason})
        self._report(process, on, moment)

    @precondition(lambda self: self._site.processes)
    @rule(which=SOME)
    def crash(self, which: int) -> None:
        """The process is gone without a word, before its claim, its result or the answer to it."""
        self._process(which).ended = True

    @precondition(lambda self: self._jobs())
    @rule(which=SOME, on=SERVERS, replaced=st.booleans(), claims=st.booleans())
    def restart(self, which: int, on: int, replaced: bool, claims: bool) -> None:
        """An operator restarts an allocation, or its node comes back; `replaced`: the old process goes on elsewhere."""
        cluster, attempt_id = self._job(which)
        server = self._running(on)
        job = cluster.jobs[attempt_id]
        for process in job.processes:
            if process.order is None and not process.ended:
                self._site.claim(process, server)
            process.ended = process.ended or not replaced
        process = cluster.run(job)
        if claims:
            self._site.claim(process, server)
        else:
            self._speak_out_of_turn(process, server)

    @precondition(lambda self: self._jobs() and self._server(0).shared)
    @rule(which=SOME)
    def lose_node(self, which: int) -> None:
        """The cluster gives a node up, whose runner goes on."""
        cluster, attempt_id = self._job(which)
        cluster.jobs[attempt_id].lost = True

    @precondition(lambda self: self._jobs())
    @rule(which=SOME)
    def collect(self, which: int) -> None:
        cluster, attempt_id = self._job(which)
        cluster.collect(attempt_id)

    @invariant()
    def rules_hold(self) -> None:
        self._check()
        self._place.explored.note((self._clock.time, self._rules.tries))

    def _check(self) -> None:
        """Look at the database when something may have changed there, or in a cluster."""
        commits = sum(server.database.commits for server in self._site.servers)
        known = sum(len(cluster.known) + len(cluster.started_twice) for cluster in self._site.clusters)
        changed = (commits, known, len(self._site.results_refused))
        if changed != self._checked:
            self._rules.check()
            self._checked = changed

    def teardown(self) -> None:
        """Left alone, everything comes to its end."""
        try:
            # After a violation there is nothing left to show.
            if sys.exc_info()[0] is None and self._site.servers:
                self._come_to_rest()
                self._rules.quiet()
                self._place.explored.walks += 1
        finally:
            self._patches.undo()

    def _come_to_rest(self) -> None:
        for server in self._site.servers:
            server.ahead = timedelta(0)
            if server.scheduler is None:
                self._site.start(server)
        for _ in range(ROUNDS):
            busy = self._round()
            running = bool(self._site.processes)
            for process in self._site.processes:
                self._advance(process, self._site.servers[0])
            self._check()
            if not (busy or running) and self._rules.is_over():
                return
            if not busy:
                # Runners say something in each lease; without any there are pauses and claims that nobody will make.
                self._clock.sleep(10 if running else 300)

    def _round(self) -> bool:
        """A round of each server; whether one did something."""
        return sum(self._site.step(server) for server in self._site.servers) > 0

    def _advance(
        self,
        process: Process,
        server: Server,
        moment: int | None = None,
        *,
        packages: int = 0,
        supersede: bool = False,
    ) -> None:
        """The next thing that a runner does for which all goes well."""
        if process.order is None:
            self._site.claim(process, server, moment)
        elif process.report is not None:
            self._site.report(process, server, moment)
        else:
            self._site.heartbeat(process, server, moment)
            if process.works:
                self._site.finish(process, success(process, packages=packages, supersede=supersede))

    def _speak_out_of_turn(self, process: Process, server: Server) -> None:
        """It reports and never claimed: no runner of ours does, but what runs there may."""
        self._site.finish(process, {"outcome": "failed", "reason": "timeout"})
        self._site.report(process, server)

    def _while_draining(self, seconds: float) -> None:
        """A server that stops waits for its runners, which go on meanwhile."""
        self._clock.sleep(max(1.0, seconds))
        for process in self._site.processes:
            if process.order is not None:
                self._site.heartbeat(process, self._site.servers[0])

    def _server(self, which: int) -> Server:
        return self._site.servers[which]

    def _running(self, which: int) -> Server:
        """Whoever watches over a server starts it again."""
        server = self._server(which)
        if server.scheduler is None:
            self._site.start(server)
        return server

    def _process(self, which: int) -> Process:
        processes = self._site.processes
        return processes[which % len(processes)]

    def _at_work(self, which: int, on: int) -> Process:
        """A runner that was told what to do, unless it was turned away."""
        process = self._process(which)
        if process.order is None:
            self._site.claim(process, self._running(on))
        return process

    def _report(self, process: Process, on: int, moment: int | None) -> None:
        if process.report is not None and not process.ended:
            self._site.report(process, self._running(on), moment)

    def _jobs(self) -> list[tuple[Cluster, str]]:
        return [(cluster, attempt_id) for cluster in self._site.clusters for attempt_id in cluster.jobs]

    def _job(self, which: int) -> tuple[Cluster, str]:
        jobs = self._jobs()
        return jobs[which % len(jobs)]
