"""A server that ends in order gives running Jobs back, or waits for them, on both databases."""

import threading
from pathlib import Path

import pytest

from albatros.db.session import Database
from albatros.domain.states import AttemptState, BuildState, JobState
from albatros.executors.base import StartOrder
from albatros.flows import attempts
from albatros.flows.dispatch import Dispatcher, attempt_token
from albatros.roles import Scheduler
from albatros.settings import ShutdownMode
from tests.support.fake_executor import FakeExecutor
from tests.support.flows import KEY, Runner, World, package
from tests.support.pushing import one_registry


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return one_registry(database, tmp_path)


class Machine(FakeExecutor):
    """Its runners hand back what they have when they are asked to stop; a deaf one ends only when it is killed."""

    world: World
    deaf = False

    def stop(self, attempt_id: str, *, kill: bool) -> None:
        if attempt_id in self.machine.running and (kill or not self.deaf):
            if not kill:
                attempt = self._runner(attempt_id)
                attempt.failed("handback")
            super().stop(attempt_id, kill=kill)

    def _runner(self, attempt_id: str) -> Runner:
        runner = Runner(self.world, attempt_id, attempt_token(KEY, attempt_id))
        runner.nonce = runner.attempt().nonce or runner.nonce
        return runner


def on_machine(world: World) -> tuple[Machine, Scheduler]:
    executor = Machine(world.machine, 100)
    executor.world = world
    dispatcher = Dispatcher(world.database, world.signals, executor, world.settings.limits, KEY, "http://127.0.0.1:1")
    world.dispatcher = dispatcher
    return executor, Scheduler(world.database, world.signals, dispatcher, executor, world.settings.limits)


def drain(scheduler: Scheduler, mode: ShutdownMode) -> None:
    """Drain as a server does, while the scheduler's loop goes on."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.is_set():
            scheduler.step()
            ended.wait(0.01)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        scheduler.drain(mode)
    finally:
        ended.set()
        thread.join()


def test_a_shutdown_hands_running_jobs_back(world: World) -> None:
    build = world.build()
    _, scheduler = on_machine(world)
    runner = world.dispatch_one()
    runner.claim()
    drain(scheduler, ShutdownMode.HAND_BACK)
    assert runner.attempt().state is AttemptState.HANDED_BACK
    assert world.jobs(build)["evaluation"].state is JobState.QUEUED
    assert world.executor.alive() == frozenset()
    scheduler.step()
    assert world.jobs(build)["evaluation"].state is JobState.QUEUED, "nothing new is started"
    world.start_again()
    again = world.dispatch_one()
    assert again.job().build_id == build


def test_a_shutdown_kills_what_does_not_hear(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("albatros.roles.HAND_BACK_SECONDS", 0.0)
    build = world.build()
    executor, scheduler = on_machine(world)
    executor.deaf = True
    runner = world.dispatch_one()
    runner.claim()
    drain(scheduler, ShutdownMode.HAND_BACK)
    assert executor.alive() == frozenset()
    attempt = runner.attempt()
    assert attempt.state in {AttemptState.HANDED_BACK, AttemptState.LOST}
    assert world.jobs(build)["evaluation"].state is JobState.QUEUED


def test_a_shutdown_may_wait_for_what_runs(world: World) -> None:
    build = world.build()
    _, scheduler = on_machine(world)
    runner = world.dispatch_one()
    runner.claim()
    timer = threading.Timer(0.2, lambda: runner.evaluated([package("hello")]))
    timer.start()
    drain(scheduler, ShutdownMode.FINISH)
    timer.join()
    assert runner.attempt().state is AttemptState.SUCCEEDED
    assert world.state(build) in {BuildState.RUNNING, BuildState.EVALUATING}
    assert attempts.running(world.database, "fake") == {}


@pytest.mark.parametrize("mode", list(ShutdownMode))
def test_a_shutdown_leaves_runners_alone_that_other_servers_see(world: World, mode: ShutdownMode) -> None:
    build = world.build()
    executor, scheduler = on_machine(world)
    executor.shared = True
    runner = world.dispatch_one()
    runner.claim()
    scheduler.drain(mode)
    world.build()
    assert scheduler.step() is False, "nothing new is started"
    assert runner.heartbeat() is None
    assert executor.alive() == {runner.attempt_id}
    assert world.jobs(build)["evaluation"].state is JobState.RUNNING


def test_nothing_is_started_once_it_is_paused(world: World) -> None:
    """A dispatch that is under way is over when `pause` returns, so nothing comes after the last look at what runs."""
    entered, release, paused = threading.Event(), threading.Event(), threading.Event()
    start = world.executor.start

    def slow(order: StartOrder) -> str:
        entered.set()
        assert release.wait(60)
        return start(order)

    def pause() -> None:
        world.dispatcher.pause()
        paused.set()

    world.executor.start = slow  # type: ignore[method-assign]  # a machine under load
    world.build()
    threads = [threading.Thread(target=world.dispatcher.dispatch_due), threading.Thread(target=pause)]
    threads[0].start()
    assert entered.wait(60)
    threads[1].start()
    assert not paused.wait(0.1)
    release.set()
    for thread in threads:
        thread.join(60)
    assert len(world.executor.alive()) == 1
    world.build()
    assert world.dispatch() == []
