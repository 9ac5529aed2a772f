"""Which Jobs are started where, and what becomes of their runners, on both databases."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, select, update
from sqlalchemy.orm import Session

from albatros.db import queue
from albatros.db.models import Attempt
from albatros.db.session import Database, now
from albatros.domain.states import AttemptState, BuildState, JobState, Reason
from albatros.errors import ExecutorError, ExecutorUnavailableError, NoCapacityError
from albatros.executors.base import RunnerPlaced, RunnerUnseen, Slots, StartOrder
from albatros.flows import dispatch, plan, settle
from albatros.flows.cancel import cancel
from albatros.flows.dispatch import Dispatcher, attempt_token, token_hash
from tests.support.clock import stopped_clock
from tests.support.flows import KEY, Runner, World, package
from tests.support.pushing import one_registry


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return one_registry(database, tmp_path)


def intend(world: World) -> int:
    """An Attempt whose row is committed, and which nothing has started."""

    def refuse(order: StartOrder) -> str:
        raise KeyboardInterrupt

    build = world.build()
    world.executor.start = refuse  # type: ignore[method-assign]  # this process ends here
    with pytest.raises(KeyboardInterrupt):
        world.dispatcher.dispatch_due()
    return build


def test_a_token_is_derived_and_only_its_hash_is_kept(world: World) -> None:
    world.build()
    runner = world.dispatch_one()
    assert runner.token == attempt_token(KEY, runner.attempt_id)
    assert runner.token != attempt_token(b"other" * 7, runner.attempt_id)
    attempt = runner.attempt()
    assert attempt.token_hash == token_hash(runner.token)
    assert runner.token not in {str(value) for value in vars(attempt).values()}
    assert runner.token not in repr(world.machine.started)


def test_no_more_is_started_than_there_is_room_for(world: World) -> None:
    for _ in range(3):
        world.build()
    world.slots = 2
    world.start_again()
    assert len(world.dispatch()) == 2
    assert world.dispatch() == []
    world.executor.end(next(iter(world.executor.alive())))
    assert len(world.dispatch()) == 1


def test_an_executor_that_cannot_start_is_tried_again(world: World) -> None:
    def refuse(order: StartOrder) -> str:
        raise ExecutorError("no such user: albatros-runner")

    build = world.build()
    world.executor.start = refuse  # type: ignore[method-assign]  # a machine that lacks something
    for _ in range(3):
        world.make_due()
        world.dispatcher.dispatch_due()
    ended = world.of(build)
    assert (ended.state, ended.reason) == (BuildState.ERRORED, Reason.DRIVER)
    assert "no such user: albatros-runner (tried 3 times)" in ended.message


def test_what_waits_for_an_executor_that_does_not_answer_is_started_later(world: World) -> None:
    asked: list[str] = []

    def keep_silent(order: StartOrder) -> str:
        asked.append(order.attempt_id)
        raise ExecutorUnavailableError("the cluster does not answer")

    world.build()
    world.build()
    start, world.executor.start = world.executor.start, keep_silent  # type: ignore[method-assign]  # a cluster that is away
    assert world.dispatcher.dispatch_due() == 2
    assert len(asked) == 1, "the second is not tried where the first got no answer"
    with world.database.read() as session:
        assert {attempt.state for attempt in session.scalars(select(Attempt))} == {AttemptState.SUBMITTING}
    world.executor.start = start  # type: ignore[method-assign]  # it is back
    assert world.dispatcher.start_again() == 2
    assert len(world.executor.alive()) == 2


def be_away(world: World) -> None:
    """Let the executor answer nothing from now on."""

    def start(order: StartOrder) -> str:
        raise ExecutorUnavailableError("the cluster does not answer")

    def stop(attempt_id: str, *, kill: bool) -> None:
        raise ExecutorUnavailableError("the cluster does not answer")

    world.executor.start = start  # type: ignore[method-assign]  # a cluster that is away
    world.executor.stop = stop  # type: ignore[method-assign]  # as above


def attempts_of(world: World) -> list[tuple[int, AttemptState]]:
    """Number and state of each Attempt."""
    with world.database.read() as session:
        return [
            (attempt.number, attempt.state) for attempt in session.scalars(select(Attempt).order_by(Attempt.number))
        ]


def begun_before(world: World) -> None:
    """Let every Attempt be so old that nobody is just starting it."""
    with world.database.write() as session:
        session.execute(update(Attempt).values(created_at=now() - timedelta(minutes=1)))


def test_an_outage_of_the_executor_uses_up_no_try(world: World) -> None:
    """However long it takes: the start is repeated until it is answered."""
    build = world.build()
    start, stop = world.executor.start, world.executor.stop
    be_away(world)
    world.dispatcher.dispatch_due()
    begun_before(world)
    for _ in range(world.settings.limits.attempts + 1):
        world.lapse()
        world.scheduler.step()
    assert attempts_of(world) == [(1, AttemptState.SUBMITTING)]
    world.executor.start, world.executor.stop = start, stop  # type: ignore[method-assign]  # it is back
    world.scheduler.step()
    assert attempts_of(world) == [(1, AttemptState.SUBMITTED)]
    assert world.state(build) is BuildState.EVALUATING


def test_what_was_cancelled_does_not_wait_for_an_executor_that_is_away(world: World) -> None:
    build = world.build()
    be_away(world)
    world.dispatcher.dispatch_due()
    begun_before(world)
    cancel(world.database, world.signals, build, by="me")
    world.lapse()
    world.scheduler.step()
    assert attempts_of(world) == [(1, AttemptState.LOST)]
    assert world.state(build) is BuildState.CANCELLED


def test_groups_of_places_are_filled_each_on_its_own(world: World) -> None:
    world.executor.slots = lambda: [  # type: ignore[method-assign]  # a cluster: one place for evaluations, one for arm
        Slots(frozenset(), 1, evaluates=True),
        Slots(frozenset({"aarch64-linux"}), 1, evaluates=False),
        Slots(frozenset({"x86_64-linux"}), 0, evaluates=False),
    ]
    build = world.build()
    systems = ("x86_64-linux", "aarch64-linux", "aarch64-linux")
    world.evaluate([package(f"web-{n}", placed=system, system=system) for n, system in enumerate(systems)])
    world.build()
    world.build()
    started = world.dispatch()
    assert sorted(runner.job().name for runner in started) == ["evaluation", "web-1"]
    orders = {order.system: order for order in world.machine.started}
    assert orders.keys() == {"", "aarch64-linux"}
    assert world.state(build) is BuildState.RUNNING, "what has no free place waits, and is not refused"


def test_an_executor_that_does_not_know_its_places_refuses_nothing(world: World) -> None:
    build = world.build()
    world.evaluate([package("web", placed="riscv64-linux", system="riscv64-linux")])
    slots, world.executor.slots = world.executor.slots, list  # type: ignore[method-assign]  # a cluster that is away
    assert world.dispatch() == []
    assert world.state(build) is BuildState.RUNNING
    world.executor.slots = slots  # type: ignore[method-assign]  # it is back, and has no such node
    world.dispatch()
    assert world.state(build) is BuildState.ERRORED


def test_an_order_says_where_and_for_how_long(world: World) -> None:
    world.build(trusted=False)
    (evaluation,) = world.dispatch()
    (order,) = world.machine.started
    assert (order.system, order.trusted, order.limit_seconds) == ("", False, world.settings.limits.job_seconds)
    evaluation.claim()
    evaluation.evaluated([package("hello")], "[limits]\njob_seconds = 60\nmemory_mb = 512\n")
    plan.plan_due(world.database, world.signals, world.settings.limits)
    world.dispatch_one()
    order = world.machine.started[-1]
    assert (order.system, order.trusted, order.limit_seconds, order.memory_mb) == ("x86_64-linux", False, 60, 512)


def test_a_start_that_was_not_noted_is_repeated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault between the start and its row, without a restart: the same runner is found again."""
    stopped_clock(monkeypatch)
    world.scheduler.step()
    world.build()

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(world.dispatcher, "_note_submitted", fail)
        with pytest.raises(RuntimeError):
            world.dispatcher.dispatch_due()
    assert world.dispatcher.start_again() == 0, "another server may be starting it just now"
    with world.database.write() as session:
        session.execute(update(Attempt).values(created_at=now() - timedelta(minutes=1)))
    world.scheduler.step()
    (attempt_id,) = world.executor.alive()
    with world.database.read() as session:
        attempt = session.get_one(Attempt, attempt_id)
    assert (attempt.state, attempt.executor_ref) == (AttemptState.SUBMITTED, "fake-1")
    assert len(world.machine.started) == 1


def test_an_intent_that_is_never_started_runs_out(world: World, database: Database) -> None:
    intend(world)
    world.lapse()
    assert settle.expire_leases(database, world.signals, world.settings.limits) == 1


def test_a_runner_that_claims_before_its_start_is_noted(world: World) -> None:
    world.build()
    start = world.executor.start

    def start_and_claim(order: StartOrder) -> str:
        reference = start(order)
        Runner(world, order.attempt_id, order.token).claim()
        return reference

    world.executor.start = start_and_claim  # type: ignore[method-assign]  # a fast machine
    runner = world.dispatch_one()
    attempt = runner.attempt()
    assert (attempt.state, attempt.executor_ref) == (AttemptState.CLAIMED, "fake-1")


def test_a_system_that_nothing_here_builds_is_said(world: World) -> None:
    build = world.build()
    world.evaluate([package("web", placed="riscv64-linux", system="riscv64-linux")])
    assert world.dispatch() == []
    ended = world.of(build)
    assert (ended.state, ended.reason) == (BuildState.ERRORED, Reason.NO_CAPACITY)
    assert "nothing here builds riscv64-linux, which packages.riscv64-linux.web asks for" in ended.message
    assert "the fake builds x86_64-linux, and not riscv64-linux" in ended.message


def test_a_cross_build_runs_where_its_derivation_says(world: World) -> None:
    world.build()
    world.evaluate([package("web", placed="x86_64-linux", system="armv6l-linux")])
    assert len(world.dispatch()) == 1


def test_strangers_are_refused_where_they_could_reach_too_far(world: World) -> None:
    limits = world.settings.limits
    world.dispatcher = Dispatcher(
        world.database, world.signals, world.executor, limits, KEY, "http://127.0.0.1:1", takes_strangers=False
    )
    stranger, friend = world.build(trusted=False), world.build()
    (runner,) = world.dispatch()
    assert runner.job().build_id == friend
    ended = world.of(stranger)
    assert (ended.state, ended.reason) == (BuildState.ERRORED, Reason.DRIVER)
    assert "builds nothing for strangers" in ended.message


def test_strangers_are_not_started_before_they_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "BATCH", 2)
    limits = world.settings.limits
    world.dispatcher = Dispatcher(
        world.database, world.signals, world.executor, limits, KEY, "http://127.0.0.1:1", takes_strangers=False
    )
    strangers = [world.build(trusted=False) for _ in range(5)]
    for _ in range(3):
        assert world.dispatch() == []
    assert {world.state(build) for build in strangers} == {BuildState.ERRORED}


def test_many_starts_are_noted_in_one_transaction(world: World, database: Database) -> None:
    for number in range(5):
        world.build(ref=f"refs/heads/{number}")
    commits = 0

    def count(_: object) -> None:
        nonlocal commits
        commits += 1

    event.listen(database.engine, "commit", count)
    runners = world.dispatch()
    event.remove(database.engine, "commit", count)
    assert {runner.attempt().state for runner in runners} == {AttemptState.SUBMITTED}
    assert (len(runners), commits) == (5, 2), "one for the intents, one for what the executor has"


def test_a_start_that_another_holds_is_noted_later(world: World, database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has one writer at a time")
    world.build()
    start = world.executor.start
    held: list[Session] = []

    def start_and_hold(order: StartOrder) -> str:
        session = Session(database.engine)
        held.append(session)
        assert queue.lock_attempt(session, order.attempt_id) is not None
        return start(order)

    world.executor.start = start_and_hold  # type: ignore[method-assign]  # somebody cancels it just now
    runner = world.dispatch_one()
    held[0].close()
    assert runner.attempt().state is AttemptState.SUBMITTING
    world.executor.start = start  # type: ignore[method-assign]  # nobody does any more
    world.dispatcher.start_again()
    assert runner.attempt().state is AttemptState.SUBMITTED
    assert len(world.machine.started) == 1


def test_a_runner_that_died_without_a_word_is_lost(world: World) -> None:
    build = world.build()
    runner = world.dispatch_one()
    runner.claim()
    world.executor.end(runner.attempt_id, "exit code 1: Traceback: oh no")
    assert world.scheduler.step()
    attempt = runner.attempt()
    assert (attempt.state, attempt.reason) == (AttemptState.LOST, Reason.NODE_LOST)
    assert attempt.message == "its runner ended (exit code 1: Traceback: oh no) without a report"
    assert world.jobs(build)["evaluation"].state is JobState.QUEUED


def test_a_runner_killed_for_memory_is_not_tried_again(world: World) -> None:
    build = world.build()
    runner = world.dispatch_one()
    world.executor.end(runner.attempt_id, "signal 9", Reason.OOM)
    world.scheduler.step()
    assert world.of(build).reason is Reason.OOM
    assert world.state(build) is BuildState.FAILED


def test_a_runner_that_reported_may_end(world: World) -> None:
    build = world.build()
    runner = world.dispatch_one()
    runner.claim()
    runner.evaluated([package("hello")])
    world.executor.end(runner.attempt_id)
    world.scheduler.step()
    assert runner.attempt().state is AttemptState.SUCCEEDED
    assert world.state(build) is BuildState.RUNNING


def test_an_end_that_cannot_be_written_down_is_not_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.build()
    world.build()
    runners = world.dispatch()
    for runner in runners:
        world.executor.end(runner.attempt_id, "exit code 1")
    close = settle.close_attempt
    calls = 0

    def fail_once(*args: object) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("the database is away")
        return close(*args)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(settle, "close_attempt", fail_once)
    with pytest.raises(RuntimeError):
        world.scheduler.step()
    world.scheduler.step()
    assert {runner.attempt().state for runner in runners} == {AttemptState.LOST}


def test_a_runner_that_should_stop_is_told_once_by_the_executor_too(world: World) -> None:
    build = world.build()
    runner = world.dispatch_one()
    runner.claim()
    told: list[str] = []

    def listen(attempt_id: str, *, kill: bool) -> None:
        told.append(attempt_id)

    world.executor.stop = listen  # type: ignore[method-assign]  # a runner that takes its time
    cancel(world.database, world.signals, build, by="me")
    world.scheduler.step()
    world.scheduler.step()
    assert told == [runner.attempt_id]


def test_an_attempt_that_waits_for_a_place_is_not_given_up(world: World) -> None:
    """Its executor says that it waits, and why: its time to claim begins anew, and the page can say so."""
    world.build()
    runner = world.dispatch_one()
    for _ in range(2):
        world.lapse()
        world.machine.ended.append(RunnerPlaced(runner.attempt_id, waits=True, facts={"waits": "no memory left"}))
        world.scheduler.step()
    attempt = runner.attempt()
    assert (attempt.state, attempt.placement) == (AttemptState.SUBMITTED, {"waits": "no memory left"})
    assert world.events(attempt.job.build_id).count("attempt.placed") == 1, "nothing new is no news"


def test_a_place_gives_a_claimed_attempt_no_more_time(world: World) -> None:
    """A runner that fell silent is lost by its lease, whatever its executor believes."""
    world.build()
    runner = world.dispatch_one()
    runner.claim()
    world.lapse()
    world.machine.ended.append(RunnerPlaced(runner.attempt_id, waits=True, facts={"state": "running"}))
    world.scheduler.step()
    attempt = runner.attempt()
    assert (attempt.state, attempt.reason) == (AttemptState.LOST, Reason.NODE_LOST)
    assert attempt.placement == {"state": "running"}


def test_an_attempt_of_which_nothing_can_be_said_is_not_given_up(world: World) -> None:
    """Its executor is away, and it may be waiting there for a place; what was told of it before holds."""
    world.build()
    runner = world.dispatch_one()
    waits = {"waits": "no memory left"}
    world.machine.ended.append(RunnerPlaced(runner.attempt_id, waits=True, facts=waits))
    for _ in range(2):
        world.scheduler.step()
        world.lapse()
        world.machine.ended.append(RunnerUnseen(runner.attempt_id))
    world.scheduler.step()
    attempt = runner.attempt()
    assert (attempt.state, attempt.placement) == (AttemptState.SUBMITTED, waits)


def test_an_executor_that_is_away_gives_a_claimed_attempt_no_more_time(world: World) -> None:
    """Heartbeats do not pass through it."""
    world.build()
    runner = world.dispatch_one()
    runner.claim()
    world.lapse()
    world.machine.ended.append(RunnerUnseen(runner.attempt_id))
    world.scheduler.step()
    assert runner.attempt().state is AttemptState.LOST


def test_what_will_have_no_place_is_not_tried_again(world: World) -> None:
    def refuse(order: StartOrder) -> str:
        raise NoCapacityError("0 of 3 nodes have nix_sandbox=true")

    build = world.build(trusted=False)
    world.executor.start = refuse  # type: ignore[method-assign]  # a cluster that lacks something
    world.dispatcher.dispatch_due()
    ended = world.of(build)
    assert (ended.state, ended.reason) == (BuildState.ERRORED, Reason.NO_CAPACITY)
    assert ended.message.count("nix_sandbox") == 1


def test_an_executor_that_cannot_be_told_to_stop_is_told_later(world: World) -> None:
    build = world.build()
    runner = world.dispatch_one()
    runner.claim()
    cancel(world.database, world.signals, build, by="me")
    stop = world.executor.stop

    def keep_silent(attempt_id: str, *, kill: bool) -> None:
        raise ExecutorUnavailableError("the cluster does not answer")

    world.executor.stop = keep_silent  # type: ignore[method-assign]  # a cluster that is away
    world.scheduler.step()
    assert world.executor.alive() == {runner.attempt_id}
    world.executor.stop = stop  # type: ignore[method-assign]  # it is back
    world.scheduler.step()
    assert world.executor.alive() == frozenset()
