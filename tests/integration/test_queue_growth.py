"""Nothing that the scheduler and its runners ask the database grows with what is queued, or with what ever ran."""

from collections.abc import Callable
from pathlib import Path

import pytest

from albatros.db import builders, builds, queue
from albatros.db.session import Database
from albatros.errors import OverloadedError
from tests.support.flows import Runner, World, settings_of
from tests.support.queues import add_past, add_queue
from tests.support.touched import touched

HERE, ELSEWHERE = "x86_64-linux", "aarch64-linux"
FEW, MANY = 60, 3_000


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, settings_of(tmp_path), slots=1, systems=frozenset({HERE, ELSEWHERE}))


def grow(database: Database, count: int) -> None:
    add_past(database, count)
    add_queue(database, count, (ELSEWHERE, HERE), 2)


def a_job(world: World) -> None:
    """Dispatched, claimed and reported, while publishers look for work."""
    world.scheduler.step()
    order = world.machine.started[-1]
    runner = Runner(world, order.attempt_id, order.token)
    runner.claim()
    runner.heartbeat()
    runner.failed("build_failed", "it does not compile")
    world.executor.end(order.attempt_id)
    world.scheduler.step()
    world.assembler.claim()
    world.script_images.claim()
    world.publisher.claim()


def the_queues(world: World) -> None:
    with world.database.write() as session:
        assert len(queue.ready_jobs(session, [HERE], 3, evaluations=False)) == 3
        assert len(queue.ready_jobs(session, [ELSEWHERE, HERE], 3)) == 3
        assert len(queue.unplaceable_jobs(session, [HERE], 3)) == 3
        assert queue.unplaceable_jobs(session, [HERE, ELSEWHERE], 3) == []
        assert queue.queued_scripts(session, 3) == []
        assert queue.strangers_jobs(session, 3) == []
        assert queue.builds_to_plan(session) == []
        assert builders.is_there_work(session) == (False, False)


WORK: dict[str, Callable[[World], None]] = {"a job": a_job, "the queues": the_queues}


@pytest.mark.parametrize("name", WORK)
def test_the_work_does_not_grow(world: World, name: str) -> None:
    looked_at = []
    for count in (FEW, MANY):
        grow(world.database, count)
        WORK[name](world)
        with touched(world.database) as seen:
            WORK[name](world)
        looked_at.append(seen.count)
    assert looked_at[1] < 2 * looked_at[0] + 100, looked_at


def test_open_builds_are_not_counted_for_every_push(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "_COUNTED_SECONDS", 3600)
    add_queue(world.database, FEW, (HERE,), 2)
    looked_at = []
    for _ in range(2):
        with touched(world.database) as seen, world.database.write() as session:
            builds.check_room(session, 100_000)
        looked_at.append(seen.count)
    assert looked_at[0] > 2 * looked_at[1]


def test_open_builds_are_counted_where_their_bound_is_near(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "_COUNTED_SECONDS", 3600)
    monkeypatch.setattr(builds, "_ALWAYS_COUNTED", 2)
    world.build()
    world.build()
    for _ in range(2):
        with world.database.write() as session:
            builds.check_room(session, 4)
        world.build()
    with pytest.raises(OverloadedError), world.database.write() as session:
        builds.check_room(session, 4)
