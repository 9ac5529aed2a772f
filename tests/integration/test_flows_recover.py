"""What a new server process makes of the rows that a killed one left, on both databases."""

from pathlib import Path

import pytest
from sqlalchemy import select, update

from albatros.db.models import Attempt, Build, StatusReport
from albatros.db.session import Database, now
from albatros.domain.states import BuildState, JobState, PublicationState
from albatros.executors.base import StartOrder
from albatros.flows import plan, settle
from albatros.flows.dispatch import attempt_token
from albatros.flows.recover import Recovered, recover
from albatros.images.publish import ignore
from tests.support.flows import HOLDER, KEY, Runner, World, package
from tests.support.pushing import assembled, built, claim, digest_of_build, hub, image, one_registry


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return one_registry(database, tmp_path)


class KilledError(BaseException):
    """Nothing of ours catches the end of the process."""


def restart(world: World) -> Recovered:
    """What a server does at its start: the rows, the blobs and the runners are what the last one left."""
    world.start_again()
    limits = world.settings.limits
    return recover(world.database, limits, world.executor.name, world.executor.alive(), HOLDER)


def runner_of(world: World, build: int, name: str) -> Runner:
    """The newest Attempt's runner."""
    job = world.jobs(build)[name]
    with world.database.read() as session:
        statement = select(Attempt).where(Attempt.job_id == job.id).order_by(Attempt.number.desc())
        attempt = session.scalars(statement).first()
    assert attempt is not None
    return Runner(world, attempt.id, attempt_token(KEY, attempt.id), attempt.nonce or "0" * 32)


def go_on(world: World, build: int) -> None:
    """Run the scheduler and every runner until the Build ended; each Job is built by whoever has its open Attempt."""
    done: set[str] = set()
    for _ in range(20):
        world.make_due()
        world.scheduler.step()
        for name, job in world.jobs(build).items():
            if job.state is JobState.RUNNING:
                runner = runner_of(world, build, name)
                if runner.attempt_id not in done:
                    runner.claim()
                    done.add(runner.attempt_id)
                    if name == "evaluation":
                        runner.evaluated([package("docker")])
                    else:
                        runner.built(image())
        world.finish()
        if world.of(build).ended_at is not None:
            break
    assert world.state(build) is BuildState.SUCCEEDED, world.of(build).message
    for row in world.publications(build):
        assert row.state is PublicationState.PUBLISHED
    assert {digest for _, _, digest in hub(world).moves} == {digest_of_build(world, build)}
    assert world.events(build).count("build.succeeded") == 1


def test_runners_that_other_servers_see_are_not_given_up(world: World) -> None:
    """Whether they run is not asked at the start; a lease that ran out while no server was there begins anew."""
    build = world.build()
    runner = world.dispatch_one()
    runner.claim()
    world.lapse()
    world.start_again()
    recovered = recover(world.database, world.settings.limits, world.executor.name, None, HOLDER)
    assert (recovered.adopted, recovered.lost) == (1, 0)
    world.scheduler.step()
    assert world.jobs(build)["evaluation"].state is JobState.RUNNING
    lease = runner.attempt().lease_until
    assert lease is not None
    assert lease > now()


# What each point leaves behind: the steps of the line up to it.


def queued(world: World) -> int:
    return world.build()


def intended(world: World) -> int:
    """The Attempt's row is committed, and nothing was started."""
    build = world.build()
    world.executor.start = die  # type: ignore[assignment, method-assign]  # this process ends here
    with pytest.raises(KilledError):
        world.dispatcher.dispatch_due()
    return build


def started(world: World) -> int:
    """The executor took it, and the row does not say so yet."""
    build = world.build()
    start = world.executor.start

    def start_and_die(order: StartOrder) -> str:
        start(order)
        raise KilledError

    world.executor.start = start_and_die  # type: ignore[method-assign]  # this process ends here
    with pytest.raises(KilledError):
        world.dispatcher.dispatch_due()
    return build


def submitted(world: World) -> int:
    build = world.build()
    world.dispatch_one()
    return build


def claimed(world: World) -> int:
    build = world.build()
    world.dispatch_one().claim()
    return build


def evaluated(world: World) -> int:
    build = world.build()
    runner = world.dispatch_one()
    runner.claim()
    runner.evaluated([package("docker")])
    return build


def planned(world: World) -> int:
    build = evaluated(world)
    plan.plan_due(world.database, world.signals, world.settings.limits)
    return build


def uploaded(world: World) -> int:
    build = planned(world)
    runner = world.dispatch_one()
    runner.claim()
    runner.upload(image())
    return build


def reported(world: World) -> int:
    return built(world)


def die(*_: object) -> None:
    raise KilledError


def assembling(world: World) -> int:
    """The images are in the store, and no row says so."""
    build = built(world)
    held = world.assembler.claim()
    assert held is not None
    world.assembler._commit = die  # type: ignore[assignment, method-assign]  # this process ends here
    with pytest.raises(KilledError):
        world.assembler.assemble(held)
    return build


def pushing(world: World) -> int:
    build = assembled(world)
    claim(world)
    return build


def tag_moved(world: World) -> int:
    """The tag names the new image, and the row does not say so yet."""
    build = assembled(world)
    push = claim(world)
    world.publisher._end = die  # type: ignore[assignment, method-assign]  # this process ends here
    with pytest.raises(KilledError):
        world.publisher.push(push, ignore)
    assert hub(world).tag("hello", "main") == digest_of_build(world, build)
    return build


POINTS = [
    queued,
    intended,
    started,
    submitted,
    claimed,
    evaluated,
    planned,
    uploaded,
    reported,
    assembling,
    assembled,
    pushing,
    tag_moved,
]


@pytest.mark.parametrize("runners_live", [True, False], ids=["runners live", "runners died too"])
@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.__name__)
def test_a_killed_server_goes_on_where_it_was(world: World, point: object, runners_live: bool) -> None:
    assert callable(point)
    build = point(world)
    if not runners_live:
        for attempt_id in list(world.machine.running):
            world.executor.end(attempt_id, "signal 9")
        world.machine.ended.clear()
    restart(world)
    go_on(world, build)
    assert len(world.artifacts(build)) == 1
    if runners_live:
        with world.database.read() as session:
            numbers = session.scalars(select(Attempt.number)).all()
        assert set(numbers) <= {1}, "nothing was done twice"


def test_what_was_recovered_is_said(world: World) -> None:
    assembled(world)
    claim(world)
    build = claimed(world)
    with world.database.write() as session:
        session.execute(update(StatusReport).values(holder=HOLDER, lease_until=now()))
        reports = len(session.scalars(select(StatusReport)).all())
    found = restart(world)
    assert found == Recovered(builds=2, adopted=1, lost=0, pushes=3, reports=reports)
    assert str(found) == (
        "2 open builds go on, 1 running attempts adopted, 3 pushes are due again, "
        f"{reports} commit statuses are due again"
    )
    assert "attempt.adopted" in world.events(build)
    world.executor.end(runner_of(world, build, "evaluation").attempt_id, "exit code 1")
    assert restart(world).lost == 1
    assert str(Recovered(0, 0, 0, 0, 0)) == "nothing was left open"


def test_an_adopted_runner_gets_a_whole_lease_to_come_back(world: World, database: Database) -> None:
    claimed(world)
    world.lapse()
    restart(world)
    assert settle.expire_leases(database, world.signals, world.settings.limits) == 0


def test_what_other_servers_hold_is_left_to_them(world: World) -> None:
    build = assembled(world)
    push = world.publisher_of("server-b").claim()
    assert push is not None
    evaluation = world.build("other")
    world.dispatch_one().claim()
    with world.database.write() as session:
        session.execute(update(Attempt).values(executor="nomad"))
    found = restart(world)
    assert (found.adopted, found.lost, found.pushes) == (0, 0, 0)
    assert {row.state for row in world.publications(build)} == {PublicationState.PUSHING}
    assert world.jobs(evaluation)["evaluation"].state is JobState.RUNNING
    assert world.dispatcher.start_again() == 0


def test_a_build_held_by_a_dead_process_is_assembled_at_once(world: World) -> None:
    build = built(world)
    assert world.assembler.claim() is not None
    assert not world.assemble(), "the lease has two minutes left"
    restart(world)
    with world.database.read() as session:
        assert session.get_one(Build, build).holder is None
    assert world.assemble()
