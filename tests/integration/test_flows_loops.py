"""Everything at once: two servers with all their loops on one database, and runners that report when they like."""

import logging
import queue
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select, update

from albatros.db.models import Attempt, Build, Publication
from albatros.db.session import Database, now
from albatros.db.signals import Topic
from albatros.domain.states import AttemptState, BuildState, PublicationState
from albatros.errors import ConflictError, GoneError
from albatros.executors.base import StartOrder
from albatros.images.publish import ignore
from albatros.roles import Loop, PublisherRole, stop_all
from tests.support.flows import Runner, World, package, settings_of
from tests.support.pushing import assembled, built, digest_of_build, hub, image, one_registry, tag_states

BUILDS = 6
RUNNERS = 4


class Runners:
    """Threads that do what was started; by chance, the machine fails one Job in four at its first Attempt."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._orders: queue.Queue[StartOrder | None] = queue.Queue()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(RUNNERS)]
        self._failed: set[int] = set()

    def start(self, order: StartOrder) -> None:
        self._orders.put(order)

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            for _ in self._threads:
                self._orders.put(None)
            for thread in self._threads:
                thread.join(60)

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        while (order := self._orders.get()) is not None:
            runner = Runner(self._world, order.attempt_id, order.token)
            try:
                runner.claim()
            except (ConflictError, GoneError):
                # The other server repeated a start that it could not know of.
                continue
            runner.heartbeat()
            job = runner.job()
            if job.id not in self._failed and chance.random() < 0.25:
                self._failed.add(job.id)
                runner.failed("driver", "chance")
            elif job.name == "evaluation":
                parts = [package(f"part-{number}") for number in range(4)]
                runner.evaluated([*parts, package("docker", *(f"part-{number}" for number in range(4)))])
            else:
                runner.built(image(str(job.build_id)) if job.name == "docker" else job.name.encode())
            self._world.executor.end(order.attempt_id)


def loops_of(world: World, number: int) -> list[Loop]:
    role = PublisherRole(world.assembler, world.script_images, world.publisher, ignore)
    steps = [(Topic.SCHEDULER, world.scheduler.step), (Topic.PUBLISHER, role.step), (Topic.PUBLISHER, role.step)]
    return [Loop(f"{number}-{topic}", world.signals, topic, step, 0.05) for topic, step in steps]


def test_two_servers_and_their_runners_finish_every_build_once(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("albatros.flows.settle.RETRY_FIRST", now() - now())
    caplog.set_level(logging.WARNING)
    first = World(database, settings_of(tmp_path, limits={"attempts": 10}))
    second = World(database, first.settings, first.store, first.signals, first.machine, first.registries)
    second.start_again("server-b")
    runners = Runners(first)
    for world in (first, second):
        start = world.executor.start

        def start_and_run(order: StartOrder, start: object = start) -> str:
            assert callable(start)
            reference = str(start(order))
            runners.start(order)
            return reference

        world.executor.start = start_and_run  # type: ignore[method-assign]  # runners of this test
    builds = [first.build(f"repo-{number % 2}") for number in range(BUILDS)]
    loops = loops_of(first, 1) + loops_of(second, 2)
    with runners.running():
        for loop in loops:
            loop.start()
        until = time.monotonic() + 240
        while not all(first.of(build).ended_at for build in builds) and time.monotonic() < until:
            time.sleep(0.05)
        assert stop_all(loops, 60)
    assert {first.state(build) for build in builds} == {BuildState.SUCCEEDED}, [first.of(b).message for b in builds]
    with database.read() as session:
        attempts = session.scalars(select(Attempt)).all()
        publications = session.scalars(select(Publication)).all()
    succeeded = [attempt.job_id for attempt in attempts if attempt.state is AttemptState.SUCCEEDED]
    assert len(succeeded) == len(set(succeeded)) == BUILDS * 6
    assert {row.state for row in publications} <= {PublicationState.PUBLISHED, PublicationState.SUPERSEDED}
    assert len(publications) == BUILDS * 6
    for name in ("repo-0", "repo-1"):
        newest = [build for build in builds if first.of(build).repo.name == name][-1]
        assert hub(first).tag(name, "main") == digest_of_build(first, newest)
    for build in builds:
        assert [kind for kind in first.events(build) if kind.startswith("build.")].count("build.succeeded") == 1
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_publisher_assembles_then_pushes(database: Database, tmp_path: Path) -> None:
    world = one_registry(database, tmp_path)
    build = built(world)
    role = PublisherRole(world.assembler, world.script_images, world.publisher, ignore)
    assert role.step()
    assert len(world.publications(build)) == 3
    assert role.step()
    assert world.state(build) is BuildState.SUCCEEDED
    assert not role.step()


def test_a_registry_that_hangs_keeps_no_other_waiting(database: Database, tmp_path: Path) -> None:
    world = World(database, settings_of(tmp_path))
    first, second = assembled(world, "one"), assembled(world, "two")
    role = PublisherRole(world.assembler, world.script_images, world.publisher, ignore)
    reached, let_go = threading.Event(), threading.Event()

    def hang(*_: str) -> None:
        reached.set()
        let_go.wait(60)

    hub(world).before = hang
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(role.step)
        try:
            assert reached.wait(60)
            late = built(world, "three")
            while role.step():
                pass
            assert not stuck.done()
            for build in (first, second, late):
                assert set(tag_states(world, build, "static").values()) <= {
                    PublicationState.PUBLISHED,
                    PublicationState.SUPERSEDED,
                }
        finally:
            let_go.set()
        assert stuck.result(60)
    while role.step():
        pass
    assert {world.state(build) for build in (first, second, late)} == {BuildState.SUCCEEDED}
    assert hub(world).tag("hello", "main") == digest_of_build(world, late)


def test_a_lease_is_renewed_for_as_long_as_the_work_takes(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("albatros.roles.RENEW_SECONDS", 0.01)
    world = one_registry(database, tmp_path)
    build = assembled(world)
    role = PublisherRole(world.assembler, world.script_images, world.publisher, ignore)

    def slow(call: str, *_: str) -> None:
        if call == "hold":
            with database.write() as session:
                soon = now()
                session.execute(update(Publication).values(lease_until=soon))
            until = time.monotonic() + 60
            while time.monotonic() < until and world.publications(build)[0].lease_until == soon:
                time.sleep(0.01)

    hub(world).before = slow
    assert role.step()
    assert world.state(build) is BuildState.SUCCEEDED


def test_a_lost_lease_is_told(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("albatros.roles.RENEW_SECONDS", 0.01)
    world = one_registry(database, tmp_path)
    build = built(world)
    role = PublisherRole(world.assembler, world.script_images, world.publisher, ignore)
    commit = world.assembler._commit

    def slow(*args: object) -> None:
        with database.write() as session:
            session.execute(update(Build).values(holder="server-b:1"))
        until = time.monotonic() + 60
        while time.monotonic() < until and "a lease was lost" not in caplog.text:
            time.sleep(0.01)
        commit(*args)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(world.assembler, "_commit", slow)
    assert role.step()
    assert world.publications(build) == []
    assert "a lease was lost" in caplog.text
