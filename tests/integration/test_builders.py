"""Bring your own builder, on both databases: what is dispatched, followed, logged, stopped, and tried again."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from albatros.db.models import Attempt, Base, Job, Repo
from albatros.db.session import Database, connect, now
from albatros.db.writer import Writer
from albatros.domain.states import AttemptState, BuildState, JobKind, JobState, Reason
from albatros.executors.builder_base import Stream
from albatros.flows.builder_intents import due_jobs, intend
from albatros.flows.builder_log import BuilderLog
from albatros.flows.cancel import cancel
from albatros.flows.rerun import rerun
from tests.support.builders import BUILDER, BuilderWorld, Server
from tests.support.fake_builder import FakeBuilder, FakeChild
from tests.support.rows import COMMIT

HOUR = timedelta(hours=2)


@pytest.fixture
def world(database: Database, tmp_path: Path) -> BuilderWorld:
    return BuilderWorld.on(database, tmp_path)


@pytest.fixture
def builder() -> FakeBuilder:
    return FakeBuilder()


@pytest.fixture
def server(world: BuilderWorld, builder: FakeBuilder) -> Server:
    return Server(world, builder)


def begun(world: BuilderWorld, builder: FakeBuilder, server: Server) -> tuple[int, FakeChild]:
    """A Build whose builder runs."""
    build_id = world.push()
    server.step()
    child = builder.only
    child.begin()
    server.step()
    return build_id, child


def only_job(world: BuilderWorld, build_id: int) -> Job:
    (job,) = world.jobs(build_id).values()
    return job


def test_a_build_is_one_job_that_no_executor_takes(world: BuilderWorld, builder: FakeBuilder, server: Server) -> None:
    build_id = world.push("refs/heads/feature/x", "nightly")
    job = only_job(world, build_id)
    assert (job.kind, job.name, job.state) == (JobKind.BUILDER, BUILDER, JobState.QUEUED)
    assert world.dispatch() == []
    server.step()
    assert builder.only.meta == {
        "REPO_URL": "https://git.example.org/alba/hello.git",
        "COMMIT": COMMIT,
        "BRANCH": "feature/x",
        "FLAVOR": "nightly",
    }
    assert world.state(build_id) is BuildState.RUNNING
    assert world.attempt(build_id).state is AttemptState.SUBMITTED


def test_it_runs_and_succeeds_with_its_whole_log(world: BuilderWorld, builder: FakeBuilder, server: Server) -> None:
    build_id, child = begun(world, builder, server)
    attempt = world.attempt(build_id)
    assert (attempt.state, attempt.host) == (AttemptState.CLAIMED, "node-1")
    assert attempt.placement == {"allocation": "a1", "node": "node-1"}
    child.say("one\ntw")
    server.step()
    assert world.log(build_id) == "one\n"
    child.say("a warning\n", Stream.STDERR)
    child.say("o\nthree")
    child.end()
    server.step()
    assert world.log(build_id) == "one\ntwo\nthree\na warning\n"
    assert world.state(build_id) is BuildState.SUCCEEDED
    assert world.attempt(build_id).state is AttemptState.SUCCEEDED


def test_an_exit_code_fails_the_build_and_is_not_tried_again(
    world: BuilderWorld, builder: FakeBuilder, server: Server
) -> None:
    build_id, child = begun(world, builder, server)
    child.end(Reason.BUILD_FAILED, "its task ended with exit code 7")
    server.step()
    build = world.of(build_id)
    assert (build.state, build.reason, build.message) == (
        BuildState.FAILED,
        Reason.BUILD_FAILED,
        "house: its task ended with exit code 7",
    )
    assert len(world.attempts(build_id)) == 1


def test_infrastructure_is_tried_again_and_then_given_up(
    world: BuilderWorld, builder: FakeBuilder, server: Server
) -> None:
    build_id = world.push()
    for number in range(1, world.settings.limits.attempts + 1):
        server.step()
        child = list(builder.children.values())[-1]
        child.begin(f"a{number}")
        child.end(Reason.NODE_LOST, "its node is lost")
        server.step()
        assert len(builder.children) == number
        if number < world.settings.limits.attempts:
            assert (world.state(build_id), only_job(world, build_id).state) == (BuildState.RUNNING, JobState.QUEUED)
        world.make_due()
    server.step()
    assert world.state(build_id) is BuildState.ERRORED
    assert {attempt.state for attempt in world.attempts(build_id)} == {AttemptState.LOST}
    assert len(builder.children) == world.settings.limits.attempts


def test_a_dispatch_whose_answer_is_lost_makes_one_child(
    world: BuilderWorld, builder: FakeBuilder, server: Server
) -> None:
    builder.answers_lost = 2
    build_id = world.push()
    for _ in range(2):
        server.step()
        assert world.attempt(build_id).state is AttemptState.SUBMITTING
    server.step()
    assert world.attempt(build_id).executor_ref == builder.only.name


def test_another_server_takes_over_only_once_the_lease_ran_out(
    world: BuilderWorld, builder: FakeBuilder, server: Server
) -> None:
    build_id, child = begun(world, builder, server)
    other = Server(world, builder, "server-b")
    child.say("one\n")
    other.step()
    assert world.log(build_id) == ""
    server.step()
    world.forget_leases()
    child.say("two\n")
    other.step()
    child.say("three\n")
    server.step()
    assert world.log(build_id) == "one\ntwo\n"
    child.end()
    other.step()
    assert world.log(build_id) == "one\ntwo\nthree\n"
    assert world.state(build_id) is BuildState.SUCCEEDED


def test_a_server_that_ends_lets_go_at_once(world: BuilderWorld, builder: FakeBuilder, server: Server) -> None:
    build_id, child = begun(world, builder, server)
    server.start().let_go()
    child.end()
    Server(world, builder, "server-b").step()
    assert world.state(build_id) is BuildState.SUCCEEDED
    assert child.stopped == 0


def test_a_restarted_server_goes_on_with_the_log_where_it_was(
    world: BuilderWorld, builder: FakeBuilder, server: Server
) -> None:
    build_id, child = begun(world, builder, server)
    for number in range(5):
        child.say(f"line {number}\n")
        child.say(f"warning {number}\n", Stream.STDERR)
        Server(world, builder).step()
    child.end()
    Server(world, builder).step()
    assert world.log(build_id).splitlines() == [f"{word} {n}" for n in range(5) for word in ("line", "warning")]


def test_a_server_that_was_overtaken_adds_nothing_to_the_log(
    world: BuilderWorld, builder: FakeBuilder, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_id, child = begun(world, builder, server)
    child.say("one\n")
    other = Server(world, builder, "server-b")
    original = FakeBuilder.read_log

    def overtaken(self: FakeBuilder, *args: object) -> object:
        monkeypatch.setattr(FakeBuilder, "read_log", original)
        world.forget_leases()
        other.step()
        return original(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(FakeBuilder, "read_log", overtaken)
    server.step()
    assert world.log(build_id) == "one\n"


def test_cancelled_it_is_stopped(world: BuilderWorld, builder: FakeBuilder, server: Server) -> None:
    build_id, child = begun(world, builder, server)
    child.say("so far\n")
    cancel(world.database, world.signals, build_id, by="alba")
    server.step()
    assert child.stopped == 1
    attempt = world.attempt(build_id)
    assert (attempt.state, attempt.reason) == (AttemptState.CANCELLED, Reason.CANCELLED)
    assert only_job(world, build_id).state is JobState.CANCELLED
    assert world.log(build_id) == "so far\n"


def test_cancelled_before_its_dispatch_was_answered_its_child_is_stopped_too(
    world: BuilderWorld, builder: FakeBuilder, server: Server
) -> None:
    builder.answers_lost = 1
    build_id = world.push()
    server.step()
    cancel(world.database, world.signals, build_id, by="alba")
    server.step()
    assert world.attempt(build_id).state is AttemptState.CANCELLED
    assert builder.only.stopped == 1


def test_children_of_another_installation_are_let_be(world: BuilderWorld, builder: FakeBuilder, server: Server) -> None:
    builder.dispatch("0a5f7a52-0000-4000-8000-000000000001", {})
    server.step()
    assert builder.only.stopped == 0


def test_it_may_not_run_for_ever(world: BuilderWorld, builder: FakeBuilder, server: Server) -> None:
    build_id, child = begun(world, builder, server)
    child.say("still here\n")
    world.let_pass(build_id, claimed_at=now() - HOUR)
    server.step()
    assert child.stopped == 1
    assert world.of(build_id).reason is Reason.TIMEOUT
    assert world.state(build_id) is BuildState.FAILED


def test_it_may_not_be_silent_for_ever(world: BuilderWorld, builder: FakeBuilder, server: Server) -> None:
    build_id, child = begun(world, builder, server)
    world.fall_silent(build_id, world.settings.limits.silence_seconds + 1)
    child.say("a word\n")
    server.step()
    assert world.state(build_id) is BuildState.RUNNING
    world.fall_silent(build_id, world.settings.limits.silence_seconds + 1)
    server.step()
    assert world.of(build_id).reason is Reason.SILENT
    assert child.stopped == 1


def test_a_node_that_does_not_answer_is_not_silence(world: BuilderWorld, builder: FakeBuilder, server: Server) -> None:
    build_id, child = begun(world, builder, server)
    builder.logs_away = True
    world.fall_silent(build_id, world.settings.limits.silence_seconds + 1)
    server.step()
    assert world.state(build_id) is BuildState.RUNNING
    assert child.stopped == 0


def test_the_end_of_a_log_that_cannot_be_read_is_waited_for(
    world: BuilderWorld, builder: FakeBuilder, server: Server
) -> None:
    build_id, child = begun(world, builder, server)
    child.say("the end\n")
    child.end()
    builder.logs_away = True
    server.step()
    assert world.state(build_id) is BuildState.RUNNING
    builder.logs_away = False
    server.step()
    assert world.log(build_id) == "the end\n"
    assert world.state(build_id) is BuildState.SUCCEEDED


def test_no_place_for_too_long_says_why(world: BuilderWorld, builder: FakeBuilder, server: Server) -> None:
    build_id = world.push()
    server.step()
    world.let_pass(build_id, created_at=now() - HOUR)
    server.step()
    build = world.of(build_id)
    assert (build.state, build.reason) == (BuildState.ERRORED, Reason.NO_CAPACITY)
    assert "there is no place for it" in build.message
    assert builder.only.stopped == 1


def test_a_child_that_is_gone_is_lost(world: BuilderWorld, builder: FakeBuilder, server: Server) -> None:
    build_id, child = begun(world, builder, server)
    del builder.children[child.name]
    server.step()
    attempt = world.attempt(build_id)
    assert (attempt.state, attempt.reason) == (AttemptState.LOST, Reason.NODE_LOST)
    assert only_job(world, build_id).state is JobState.QUEUED


def test_an_engine_that_is_away_changes_nothing(world: BuilderWorld, builder: FakeBuilder, server: Server) -> None:
    build_id, child = begun(world, builder, server)
    builder.away = True
    server.step()
    assert world.attempt(build_id).state is AttemptState.CLAIMED
    builder.away = False
    child.end()
    server.step()
    assert world.state(build_id) is BuildState.SUCCEEDED


def test_a_dispatch_that_is_never_taken_is_given_up(world: BuilderWorld, builder: FakeBuilder, server: Server) -> None:
    builder.away = True
    build_id = world.push()
    server.step()
    world.let_pass(build_id, created_at=now() - HOUR)
    server.step()
    attempt = world.attempt(build_id)
    assert (attempt.state, attempt.reason) == (AttemptState.FAILED, Reason.DRIVER)


def test_started_again_elsewhere_its_new_log_follows(world: BuilderWorld, builder: FakeBuilder, server: Server) -> None:
    build_id, child = begun(world, builder, server)
    child.say("first try\n")
    server.step()
    child.logs[Stream.STDOUT] = b""
    child.begin("a2", "node-2")
    child.say("second try\n")
    child.end()
    server.step()
    again = "[albatros] Nomad started it again, as allocation a2\n"
    assert world.log(build_id) == f"first try\n{again}second try\n"
    assert world.attempt(build_id).host == "node-2"


def test_no_more_than_its_slots_run_at_once(world: BuilderWorld, builder: FakeBuilder, server: Server) -> None:
    builds = [world.push() for _ in range(3)]
    server.step()
    server.step()
    assert len(builder.children) == 2
    for child in list(builder.children.values()):
        child.end()
    server.step()
    server.step()
    assert len(builder.children) == 3
    assert [world.state(build_id) for build_id in builds] == [
        BuildState.SUCCEEDED,
        BuildState.SUCCEEDED,
        BuildState.RUNNING,
    ]


def test_two_servers_at_once_do_not_take_more_than_the_slots(postgres_url: str, tmp_path: Path) -> None:
    """Between one server's count and its commit, another one takes nothing."""
    database = connect(postgres_url)
    try:
        Base.metadata.create_all(database.engine)
        world = BuilderWorld.on(database, tmp_path)
        builds = [world.push() for _ in range(3)]
        (house,) = world.settings.builders
        with database.write() as first:
            due = due_jobs(first, house)
            assert [job.build_id for job in due] == builds[:2]
            with database.write() as second:
                assert not due_jobs(second, house)
            for job in due:
                intend(first, job, "first", HOUR)
        with database.write() as second:
            assert not due_jobs(second, house)
        with database.write() as first:
            first.execute(update(Attempt).values(state=AttemptState.FAILED))
        with database.write() as second:
            assert [job.build_id for job in due_jobs(second, house)] == builds[2:]
    finally:
        database.dispose()


def test_a_long_log_keeps_its_head_and_its_end(database: Database, tmp_path: Path, builder: FakeBuilder) -> None:
    world = BuilderWorld.on(database, tmp_path, log_bytes=2000)
    server = Server(world, builder)
    build_id, child = begun(world, builder, server)
    lines = [f"line {number:04}\n" for number in range(1000)]
    for start in range(0, 1000, 100):
        child.say("".join(lines[start : start + 100]))
        server.step()
    child.say("a warning\n", Stream.STDERR)
    server.step()
    child.end()
    server.step()
    written = "".join(lines)
    note = "\n[albatros] … 8500 bytes of stdout were left out here …\n"
    assert world.log(build_id) == f"{written[:1000]}{note}{written[-500:]}a warning\n"


def test_a_long_log_is_heard_though_it_is_not_copied(database: Database, tmp_path: Path, builder: FakeBuilder) -> None:
    world = BuilderWorld.on(database, tmp_path, log_bytes=2000)
    build_id, child = begun(world, builder, Server(world, builder))
    copied = BuilderLog(database, builder, world.run(build_id), 2000)
    child.say("a line\n" * 400)
    copied.copy()
    copied.copy()
    world.fall_silent(build_id, 500)
    before = world.run(build_id).heard_at
    copied.copy()
    assert world.run(build_id).heard_at == before
    child.say("more\n")
    copied.copy()
    assert world.run(build_id).heard_at != before
    assert len(world.log(build_id)) == 1000


def test_jobs_of_a_builder_that_is_gone_fail_at_once(world: BuilderWorld, builder: FakeBuilder, server: Server) -> None:
    running, _ = begun(world, builder, server)
    queued = world.push()
    bare = Server(world, None)
    bare.step()
    for build_id in (running, queued):
        assert world.attempts(build_id) == [] or world.attempt(build_id).reason is Reason.DRIVER
    world.make_due()
    bare.step()
    assert {world.state(running), world.state(queued)} == {BuildState.ERRORED}
    assert "no builder is named 'house' any more" in world.of(queued).message


def test_a_branch_that_nomad_would_replace_is_not_dispatched(
    world: BuilderWorld, builder: FakeBuilder, server: Server
) -> None:
    build_id = world.push("refs/heads/${NOMAD_TOKEN}")
    server.step()
    assert builder.children == {}
    assert "which Nomad would replace" in world.attempt(build_id).message


def test_a_tag_is_told_whole(world: BuilderWorld, builder: FakeBuilder, server: Server) -> None:
    world.push("refs/tags/v1.0")
    server.step()
    assert builder.only.meta["BRANCH"] == "refs/tags/v1.0"


@pytest.fixture
def writer(world: BuilderWorld) -> Iterator[Writer]:
    writer = Writer(world.database, world.signals)
    yield writer
    writer.close()


def test_a_rerun_is_dispatched_again(world: BuilderWorld, builder: FakeBuilder, server: Server, writer: Writer) -> None:
    world.repo()
    with world.database.write() as session:
        session.execute(update(Repo).values(allowed=True))
    build_id, child = begun(world, builder, server)
    child.end(Reason.BUILD_FAILED, "its task ended with exit code 1")
    server.step()
    again = rerun(world.settings, writer, build_id)
    server.step()
    assert only_job(world, again).kind is JobKind.BUILDER
    assert len(builder.children) == 2
