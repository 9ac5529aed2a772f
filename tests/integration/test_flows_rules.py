"""Rules for when to build, on both databases: skipped Builds, superseded ones, and timetables without storms."""

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from albatros.db.models import Build, Job, Schedule, StatusReport
from albatros.db.session import Database, now
from albatros.domain.inbound import HeadMoved, Inbound
from albatros.domain.states import BuildState, JobState, Reason, Trigger
from albatros.errors import ForgeUnavailableError, NotFoundError
from albatros.flows import plan, schedule
from albatros.flows.cancel import cancel
from albatros.flows.receive import trigger
from albatros.flows.rerun import rerun
from albatros.flows.supersede import end_older
from albatros.forges.base import ForgeAdapter, status_word
from tests.support.clock import stopped_clock
from tests.support.flows import World, package, settings_of
from tests.support.inbox import HELLO, MAIN, A, Inbox

TOPIC = "refs/heads/topic"
SUPERSEDE = "[on]\nsupersede = true\n"
NIGHTLY = '[schedule]\ncron = ["0 3 * * *"]\n'


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, settings_of(tmp_path))


@pytest.fixture
def inbox(database: Database) -> Iterator[Inbox]:
    inbox = Inbox(database)
    yield inbox
    inbox.writer.close()


def moved(
    inbox: Inbox, number: int, *, before: str | None = None, skip: bool = False, paths: tuple[str, ...] | None = None
) -> Build:
    """A push of `main` from its head, unless another is given, to a commit of its own; its Build."""
    before = before or inbox.forge.refs["alba/hello"].get(MAIN)
    inbox.forge.refs["alba/hello"][MAIN] = commit = f"{number:040x}"
    move = HeadMoved(MAIN, before, commit, Trigger.PUSH, "alba", "a title", skip=skip, paths=paths)
    receipt = inbox.send(Inbound(f"r{number}", "push", HELLO, (move,)))
    with inbox.database.read() as session:
        return session.get_one(Build, receipt.builds[0])


def evaluate(world: World, build_id: int, config: str, **changes: object) -> Build:
    if changes:
        with world.database.write() as session:
            session.execute(update(Build).where(Build.id == build_id).values(**changes))
    world.evaluate([package("hello")], config)
    return world.of(build_id)


def test_a_message_that_asks_for_it_ends_a_build_at_once_and_blocks_no_merge(inbox: Inbox) -> None:
    build = moved(inbox, 1, skip=True)
    assert (build.state, build.reason) == (BuildState.SKIPPED, Reason.SKIPPED)
    assert "[skip ci]" in build.message
    assert build.ended_at is not None
    with inbox.database.read() as session:
        assert session.scalars(select(Job)).all() == []
        status = session.scalars(select(StatusReport)).one()
    assert status.state is BuildState.SKIPPED
    assert status_word(status.state) == "success"


def test_a_skipped_commit_is_built_when_it_is_asked_for(inbox: Inbox) -> None:
    build = moved(inbox, 1, skip=True)
    again = rerun(inbox.settings, inbox.writer, build.id)
    by_hand = trigger(inbox.settings, inbox.writer, inbox.forge, ("alba", "hello"), "main")
    with inbox.database.read() as session:
        states = [session.get_one(Build, build_id).state for build_id in (again, by_hand)]
    assert states == [BuildState.QUEUED] * 2


def test_a_tag_of_a_commit_that_asks_for_no_build_is_built(inbox: Inbox) -> None:
    move = HeadMoved("refs/tags/v1", None, A, Trigger.TAG, skip=True)
    receipt = inbox.send(Inbound("t1", "push", HELLO, (move,)))
    with inbox.database.read() as session:
        assert session.get_one(Build, receipt.builds[0]).state is BuildState.QUEUED


def test_changed_paths_are_believed_only_of_a_push_that_follows_from_the_head(inbox: Inbox) -> None:
    assert moved(inbox, 1, paths=("a",)).changed_paths is None
    assert moved(inbox, 2, paths=("a", "b")).changed_paths == ["a", "b"]
    assert moved(inbox, 3, paths=None).changed_paths is None
    assert moved(inbox, 5, before=f"{4:040x}", paths=("a",)).changed_paths is None


@pytest.mark.parametrize(
    ("rules", "changes", "state"),
    [
        ('branches = ["main"]', {}, BuildState.RUNNING),
        ('branches = ["release/*"]', {}, BuildState.SKIPPED),
        ('branches = ["release/*"]', {"trigger": Trigger.API}, BuildState.RUNNING),
        ('paths = ["src/*"]', {"changed_paths": ["README.md"]}, BuildState.SKIPPED),
        ('paths = ["src/*"]', {"changed_paths": ["README.md", "src/a"]}, BuildState.RUNNING),
        ('paths = ["src/*"]', {}, BuildState.RUNNING),
    ],
)
def test_what_the_repos_own_rules_leave_out_ends_after_its_evaluation(
    world: World, rules: str, changes: dict[str, object], state: BuildState
) -> None:
    build = evaluate(world, world.build(), f"[on]\n{rules}\n", **changes)
    assert build.state is state
    skipped = state is BuildState.SKIPPED
    assert (build.reason is Reason.SKIPPED) is skipped
    assert (".albatros.toml" in build.message) is skipped
    assert ("hello" in world.jobs(build.id)) is not skipped


@pytest.mark.parametrize(
    ("config", "state"),
    [('[on]\nbranches = ["x"]', BuildState.SKIPPED), ("", BuildState.FAILED), ("not toml", BuildState.FAILED)],
)
def test_a_branch_that_is_left_out_need_not_evaluate(world: World, config: str, state: BuildState) -> None:
    build_id = world.build()
    runner = world.dispatch_one()
    runner.claim()
    evaluation = {"config": config, "commit_time": 1, "attributes": []}
    runner.report(outcome="failed", reason="evaluation_failed", message="no flake.nix", evaluation=evaluation)
    assert world.state(build_id) is state
    (job,) = world.jobs(build_id).values()
    assert job.state is (JobState.CANCELLED if state is BuildState.SKIPPED else JobState.FAILED)


def test_a_newer_push_ends_the_open_builds_of_its_branch_if_the_branch_says_so(world: World) -> None:
    first = world.build()
    world.evaluate([package("hello")], SUPERSEDE)
    (runner,) = world.dispatch()
    runner.claim()
    other, second = world.build(ref=TOPIC), world.build()
    ended(world, second)
    assert world.state(first) is BuildState.SUPERSEDED
    assert f"build {world.of(second).number}" in world.of(first).message
    assert world.state(other) is BuildState.QUEUED
    assert runner.heartbeat() == "superseded"
    runner.failed("superseded", "A newer Build took the place of this one.")
    assert {job.state for job in world.jobs(first).values()} == {JobState.SUCCEEDED, JobState.CANCELLED}
    third = world.build()
    ended(world, third)
    assert [world.state(build_id) for build_id in (second, third)] == [BuildState.SUPERSEDED, BuildState.QUEUED]


def test_older_builds_of_a_branch_go_on_where_nobody_said_otherwise(world: World) -> None:
    first = world.build()
    world.evaluate([package("hello")], "")
    ended(world, world.build())
    assert world.state(first) is BuildState.RUNNING


def test_a_first_evaluation_that_says_so_ends_older_builds_too(world: World) -> None:
    first, second = world.build(), world.build()
    older, newer = world.dispatch()
    assert older.claim()
    newer.claim()
    newer.evaluated([package("hello")], SUPERSEDE)
    plan.plan_due(world.database, world.signals, world.settings.limits)
    assert world.state(first) is BuildState.SUPERSEDED
    assert world.state(second) is BuildState.RUNNING


def test_a_push_through_the_webhook_ends_what_it_overtakes_and_a_skipped_one_does_not(inbox: Inbox) -> None:
    first = moved(inbox, 1)
    with inbox.database.write() as session:
        session.execute(update(Build).values(config=SUPERSEDE))
    moved(inbox, 2, skip=True)
    assert state_of(inbox, first.id) is BuildState.QUEUED
    moved(inbox, 3)
    assert state_of(inbox, first.id) is BuildState.SUPERSEDED


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_others_have_open_costs_a_push_nothing(world: World) -> None:
    world.build()
    build_id = world.build()
    few = steps_of_ending(world, build_id)
    for _ in range(300):
        world.build(ref=TOPIC)
    # One level more of an index is a step more; a look at each of the others is ten.
    assert steps_of_ending(world, build_id) < few + 100


def steps_of_ending(world: World, build_id: int) -> int:
    """How many steps SQLite's machine takes to look for what a Build overtakes."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    with world.database.read() as session:
        driver = session.connection().connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_progress_handler(count, 1)
        end_older(session, [build_id])
        driver.set_progress_handler(None, 0)
    return steps


def ended(world: World, build_id: int) -> None:
    """What receiving a push does after its Build was made."""
    with world.database.write() as session:
        end_older(session, [build_id])


def state_of(inbox: Inbox, build_id: int) -> BuildState:
    with inbox.database.read() as session:
        return session.get_one(Build, build_id).state


def timetable(database: Database) -> Schedule | None:
    with database.read() as session:
        return session.scalars(select(Schedule)).one_or_none()


def scheduled(world: World, build_id: int, config: str) -> None:
    """Evaluate a Build, and let nothing of it be built."""
    evaluate(world, build_id, config)
    cancel(world.database, world.signals, build_id, by="a test")


def test_the_newest_evaluation_of_the_default_branch_sets_the_timetable(world: World) -> None:
    late = world.build()
    world.dispatch_one()
    for config, crons in ((NIGHTLY, ["0 3 * * *"]), (NIGHTLY.replace("3", "4"), ["0 4 * * *"]), ("", [])):
        scheduled(world, world.build(), config)
        row = timetable(world.database)
        assert row is not None
        assert row.crons == crons
        assert (row.next_at is not None) is bool(crons)
    scheduled(world, world.build(ref=TOPIC), NIGHTLY)
    scheduled(world, world.build(trusted=False), NIGHTLY)
    with world.database.write() as session:
        schedule.remember(session, session.get_one(Build, late), ("0 5 * * *",))
    row = timetable(world.database)
    assert row is not None
    assert row.crons == []


def test_an_evaluation_that_changes_nothing_moves_no_run(world: World) -> None:
    scheduled(world, world.build(), NIGHTLY)
    make_due(world.database)
    before = timetable(world.database)
    scheduled(world, world.build(), NIGHTLY)
    after = timetable(world.database)
    assert before is not None
    assert after is not None
    assert before.next_at == after.next_at
    assert after.sequence > before.sequence


def make_due(database: Database, *, days: int = 40) -> None:
    with database.write() as session:
        session.execute(update(Schedule).values(next_at=now() - timedelta(days=days)))


@pytest.fixture
def timed(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> Inbox:
    """A repo whose nightly run was due forty times; it is noon."""
    clock = stopped_clock(monkeypatch)
    clock.time = clock.time.replace(hour=12)
    build = moved(inbox, 1)
    with inbox.database.write() as session:
        schedule.remember(session, session.get_one(Build, build.id), ("0 3 * * *",))
    make_due(inbox.database)
    return inbox


def run(inbox: Inbox) -> int:
    forges: dict[str, ForgeAdapter] = {"home": inbox.forge}
    return schedule.run_due(inbox.settings, inbox.database, inbox.writer, forges)


def test_what_was_missed_is_made_up_by_one_build(timed: Inbox) -> None:
    assert [run(timed), run(timed)] == [1, 0]
    with timed.database.read() as session:
        build = session.scalars(select(Build).order_by(Build.id.desc())).first()
    assert build is not None
    assert (build.trigger, build.ref, build.commit) == (Trigger.SCHEDULE, MAIN, f"{1:040x}")
    row = timetable(timed.database)
    assert row is not None
    assert row.next_at is not None
    assert row.next_at > now()
    assert (row.next_at.hour, row.next_at.minute) == (3, 0)


def test_two_servers_make_one_build_of_a_run(timed: Inbox) -> None:
    row = timetable(timed.database)
    assert row is not None
    real, made = timed.forge.head, []

    def overtaken(owner: str, name: str, ref: str) -> object:
        timed.forge.head = real  # type: ignore[method-assign]
        made.append(run(timed))
        return real(owner, name, ref)

    timed.forge.head = overtaken  # type: ignore[assignment,method-assign]
    assert run(timed) == 0
    assert made == [1]
    assert len(timed.builds()) == 2


@pytest.mark.parametrize("error", [ForgeUnavailableError("away"), NotFoundError("gone")])
def test_a_forge_in_trouble_is_asked_again_later(timed: Inbox, error: Exception) -> None:
    real = timed.forge.describe

    def fail(owner: str, name: str) -> object:
        raise error

    timed.forge.describe = fail  # type: ignore[assignment,method-assign]
    assert [run(timed), run(timed)] == [0, 0]
    row = timetable(timed.database)
    assert row is not None
    assert row.next_at is not None
    soon = row.next_at <= now() + schedule.PAUSE
    assert soon is isinstance(error, ForgeUnavailableError)
    timed.forge.describe = real  # type: ignore[method-assign]
    make_due(timed.database, days=0)
    assert run(timed) == 1


def test_a_repo_that_may_not_build_any_more_is_not_built_by_its_timetable(timed: Inbox) -> None:
    timed.settings = timed.settings.model_copy(
        update={"forges": (timed.settings.forges[0].model_copy(update={"repos": ()}),)}
    )
    assert run(timed) == 0
    assert len(timed.builds()) == 1
