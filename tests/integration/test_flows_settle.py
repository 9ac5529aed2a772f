"""How Attempts, Jobs and Builds end, on both databases."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from albatros.db.models import Attempt, Build, Job, StatusReport
from albatros.db.session import Database, now
from albatros.domain.plan import PlannedJob
from albatros.domain.states import AttemptState, BuildState, JobState, Reason
from albatros.errors import ConflictError, NotFoundError
from albatros.flows import attempts, plan, settle
from albatros.flows.cancel import cancel
from tests.support.clock import stopped_clock
from tests.support.flows import Runner, World, broken, drv, package, settings_of


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, settings_of(tmp_path))


def running(world: World, *attributes: dict[str, object]) -> tuple[int, dict[str, Runner]]:
    """A planned Build, and the runners of what could start at once, claimed, by the Job's name."""
    build = world.build()
    world.evaluate(attributes)
    return build, claimed(world)


def claimed(world: World) -> dict[str, Runner]:
    runners = {runner.job().name: runner for runner in world.dispatch()}
    for runner in runners.values():
        runner.claim()
    return runners


def attempts_of(world: World, build: int, name: str) -> list[Attempt]:
    job = world.jobs(build)[name]
    with world.database.read() as session:
        return list(session.scalars(select(Attempt).where(Attempt.job_id == job.id).order_by(Attempt.number)))


def statuses(world: World) -> dict[str, BuildState]:
    with world.database.read() as session:
        return {row.context: row.state for row in session.scalars(select(StatusReport))}


@pytest.mark.parametrize(
    "reason", [Reason.BUILD_FAILED, Reason.TIMEOUT, Reason.SILENT, Reason.OOM, Reason.EVALUATION_FAILED]
)
def test_the_commits_own_fault_is_never_tried_again(world: World, reason: Reason) -> None:
    build, runners = running(world, package("hello"))
    runners["hello"].failed(reason.value, "what went wrong")
    assert world.dispatch() == []
    job = world.jobs(build)["hello"]
    assert (job.state, job.reason, job.message) == (JobState.FAILED, reason, "what went wrong")
    ended = world.of(build)
    assert (ended.state, ended.reason) == (BuildState.FAILED, reason)
    assert ended.message == "packages.x86_64-linux.hello: what went wrong"
    assert ended.ended_at is not None
    contexts = statuses(world)
    assert set(contexts.values()) == {BuildState.FAILED}
    assert any(context.endswith("/packages.x86_64-linux.hello") for context in contexts)


@pytest.mark.parametrize("reason", [Reason.DRIVER, Reason.DISK_FULL, Reason.PREEMPTED, Reason.NODE_LOST])
def test_infrastructure_is_tried_again_with_growing_pauses_up_to_the_limit(
    world: World, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_clock(monkeypatch)
    build, runners = running(world, package("hello"))
    pauses = []
    for _ in range(2):
        runners["hello"].failed(reason.value, "the disk is gone")
        job = world.jobs(build)["hello"]
        assert job.state is JobState.QUEUED
        assert job.not_before is not None
        pauses.append((job.not_before - now()).total_seconds())
        assert world.dispatch() == [], "not before its time"
        world.make_due()
        runners = claimed(world)
    runners["hello"].failed(reason.value, "the disk is gone")
    assert pauses == [5, 10]
    assert [row.number for row in attempts_of(world, build, "hello")] == [1, 2, 3]
    ended = world.of(build)
    assert (ended.state, ended.reason) == (BuildState.ERRORED, reason)
    assert ended.message == "packages.x86_64-linux.hello: the disk is gone (tried 3 times)"


def test_no_capacity_is_told_at_once(world: World) -> None:
    build, runners = running(world, package("hello"))
    runners["hello"].failed("no_capacity", "this Nix cannot build riscv64-linux")
    assert world.state(build) is BuildState.ERRORED


def test_a_silent_runner_is_lost_and_another_tries(world: World, database: Database) -> None:
    build, runners = running(world, package("hello"))
    limits = world.settings.limits
    assert settle.expire_leases(database, world.signals, limits) == 0
    world.lapse()
    assert settle.expire_leases(database, world.signals, limits) == 1
    (lost,) = attempts_of(world, build, "hello")
    assert (lost.state, lost.reason, lost.lease_until) == (AttemptState.LOST, Reason.NODE_LOST, None)
    world.make_due()
    again = claimed(world)
    assert again["hello"].attempt_id != runners["hello"].attempt_id
    again["hello"].built(b"out")
    assert world.jobs(build)["hello"].state is JobState.SUCCEEDED


def test_a_runner_that_never_came_is_lost(world: World, database: Database) -> None:
    world.build()
    runner = world.dispatch_one()
    world.lapse()
    assert settle.expire_leases(database, world.signals, world.settings.limits) == 1
    assert runner.attempt().message == "no runner claimed it in time"


def test_a_heartbeat_at_the_last_moment_wins(world: World, database: Database) -> None:
    _, runners = running(world, package("hello"))
    world.lapse()
    at = now()
    assert runners["hello"].heartbeat() is None
    assert not settle._expire(database, world.settings.limits, runners["hello"].attempt_id, at)
    assert runners["hello"].attempt().state is AttemptState.CLAIMED


def test_a_job_handed_back_on_request_is_queued_without_counting(world: World, database: Database) -> None:
    build, runners = running(world, package("hello"))
    for number in range(5):
        assert attempts.hand_back(database, "fake") == 1
        assert runners["hello"].heartbeat() == "handback"
        runners["hello"].failed("handback", "")
        row = attempts_of(world, build, "hello")[number]
        assert (row.state, row.reason) == (AttemptState.HANDED_BACK, None)
        runners = claimed(world)
    runners["hello"].built(b"out")
    assert world.jobs(build)["hello"].state is JobState.SUCCEEDED


@pytest.mark.parametrize("word", ["handback", "cancelled", "superseded"])
def test_a_runner_that_ends_unasked_runs_out_of_tries(world: World, word: str) -> None:
    build, runners = running(world, package("hello"))
    for _ in range(3):
        runners["hello"].failed(word, "the machine goes down")
        world.make_due()
        runners = claimed(world)
    assert runners == {}
    ended = world.of(build)
    assert (ended.state, ended.reason) == (BuildState.ERRORED, Reason.PREEMPTED)


def test_an_evaluation_that_ends_unasked_does_not_hang_its_build(world: World) -> None:
    build = world.build()
    for _ in range(3):
        runner = world.dispatch_one()
        runner.claim()
        runner.failed("cancelled")
        world.make_due()
    assert world.state(build) is BuildState.ERRORED


def test_an_attribute_that_does_not_evaluate_fails_alone(world: World) -> None:
    build, runners = running(world, package("good"), broken("bad", "error: undefined variable 'x'"))
    assert world.job_states(build) == {
        "evaluation": JobState.SUCCEEDED,
        "bad": JobState.FAILED,
        "good": JobState.RUNNING,
    }
    assert world.state(build) is BuildState.RUNNING
    runners["good"].built(b"out")
    ended = world.of(build)
    assert (ended.state, ended.reason) == (BuildState.FAILED, Reason.EVALUATION_FAILED)
    assert ended.message == "packages.x86_64-linux.bad: error: undefined variable 'x'"
    assert world.publications(build) == []


def test_a_build_of_failed_attributes_alone_ends_with_its_plan(world: World) -> None:
    build, runners = running(world, broken("one", "no"), broken("two", "no"), broken("three", "no"))
    assert runners == {}
    assert world.of(build).message == "packages.x86_64-linux.one: no (2 more failed)"
    assert world.events(build).count("build.failed") == 1


def test_what_needs_a_failed_job_is_skipped_and_the_others_go_on(world: World) -> None:
    build, runners = running(world, package("lib"), package("app", "lib"), package("image", "app"), package("docs"))
    assert set(runners) == {"lib", "docs"}
    runners["lib"].failed("build_failed", "exit code 1")
    assert world.job_states(build) == {
        "evaluation": JobState.SUCCEEDED,
        "lib": JobState.FAILED,
        "app": JobState.SKIPPED,
        "image": JobState.SKIPPED,
        "docs": JobState.RUNNING,
    }
    assert world.jobs(build)["image"].message == "lib failed, which this needs"
    assert world.state(build) is BuildState.RUNNING
    assert world.events(build).count("job.skipped") == 2
    runners["docs"].built(b"out")
    assert world.state(build) is BuildState.FAILED


def test_jobs_wait_for_what_they_need(world: World) -> None:
    build, runners = running(world, package("app", "lib", "tool"), package("lib"), package("tool"))
    assert set(runners) == {"lib", "tool"}
    runners["lib"].built(b"lib")
    assert world.dispatch() == []
    runners["tool"].built(b"tool")
    claimed(world)["app"].built(b"app")
    assert world.state(build) is BuildState.PUBLISHING


def test_the_commits_fault_is_told_before_the_machines(database: Database, tmp_path: Path) -> None:
    world = World(database, settings_of(tmp_path, limits={"attempts": 1}))
    build, runners = running(world, package("flaky"), package("wrong"))
    runners["flaky"].failed("driver", "no disk")
    runners["wrong"].failed("build_failed", "exit code 2")
    ended = world.of(build)
    assert (ended.state, ended.reason) == (BuildState.FAILED, Reason.BUILD_FAILED)
    assert ended.message == "packages.x86_64-linux.wrong: exit code 2 (1 more failed)"


def test_jobs_that_end_at_once_settle_their_build_once(world: World) -> None:
    names = [f"part-{number}" for number in range(6)]
    build, runners = running(world, *(package(name) for name in names), package("whole", *names))
    digests = {name: runner.upload(name.encode()).digest for name, runner in runners.items()}
    barrier = threading.Barrier(len(names), timeout=60)

    def end(name: str) -> None:
        barrier.wait()
        file = {"path": "", "kind": "file", "digest": digests[name], "size": 1, "executable": False}
        output = {"output": "out", "store_path": "/nix/store/x", "nar_hash": "h", "closure": [], "files": [file]}
        runners[name].report(outputs=[output])

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(end, names))
    assert world.jobs(build)["whole"].state is JobState.QUEUED
    claimed(world)["whole"].failed("build_failed", "no")
    assert world.events(build).count("build.failed") == 1


def test_cancelling_ends_the_build_now_and_its_runners_soon(world: World, database: Database) -> None:
    build, runners = running(world, package("lib"), package("app", "lib"))
    cancel(database, world.signals, build, by="token 'me'")
    ended = world.of(build)
    assert (ended.state, ended.reason, ended.message) == (
        BuildState.CANCELLED,
        Reason.CANCELLED,
        "cancelled by token 'me'",
    )
    assert world.job_states(build) == {
        "evaluation": JobState.SUCCEEDED,
        "lib": JobState.RUNNING,
        "app": JobState.CANCELLED,
    }
    assert runners["lib"].heartbeat() == "cancelled"
    runners["lib"].failed("cancelled", "The Build was cancelled.")
    assert world.jobs(build)["lib"].state is JobState.CANCELLED
    assert runners["lib"].attempt().state is AttemptState.CANCELLED
    assert world.events(build).count("build.cancelled") == 1
    with pytest.raises(ConflictError, match="has ended already"):
        cancel(database, world.signals, build, by="me")
    with pytest.raises(NotFoundError):
        cancel(database, world.signals, 4711, by="me")


def test_a_result_that_crossed_the_cancelling_changes_no_build(world: World, database: Database) -> None:
    build, runners = running(world, package("lib"), package("app", "lib"))
    cancel(database, world.signals, build, by="me")
    runners["lib"].built(b"out")
    assert world.job_states(build)["lib"] is JobState.SUCCEEDED
    assert world.job_states(build)["app"] is JobState.CANCELLED
    assert world.state(build) is BuildState.CANCELLED
    assert world.dispatch() == []


@pytest.mark.parametrize("reason", ["build_failed", "driver", "handback"])
def test_a_failure_after_the_cancelling_is_not_tried_again(world: World, database: Database, reason: str) -> None:
    build, runners = running(world, package("lib"))
    cancel(database, world.signals, build, by="me")
    runners["lib"].failed(reason, "")
    world.make_due()
    assert world.dispatch() == []
    assert world.jobs(build)["lib"].state is JobState.CANCELLED
    assert world.state(build) is BuildState.CANCELLED


def test_a_build_cancelled_while_it_evaluates_is_never_planned(world: World, database: Database) -> None:
    build = world.build()
    runner = world.dispatch_one()
    runner.claim()
    cancel(database, world.signals, build, by="me")
    runner.evaluated([package("hello")])
    assert plan.plan_due(database, world.signals, world.settings.limits) == 0
    assert set(world.jobs(build)) == {"evaluation"}


def test_a_queued_build_is_cancelled_whole(world: World, database: Database) -> None:
    build = world.build()
    cancel(database, world.signals, build, by="me")
    assert world.job_states(build) == {"evaluation": JobState.CANCELLED}
    assert world.dispatch() == []


@pytest.mark.parametrize(
    ("evaluation", "says"),
    [
        (None, "reported no evaluation"),
        ({"config": None, "attributes": []}, "no packages and no checks"),
        ({"config": 3, "attributes": []}, "no text"),
        ({"config": "imges = 1", "attributes": []}, "did you mean 'images'?"),
        ({"config": "\x00", "attributes": []}, "is not TOML"),
        ({"config": "[images.'a\\u0000b']", "attributes": []}, "a name is at most"),
        ({"config": '["\\u0000"]', "attributes": []}, "unknown key"),
        ({"config": '[images."\\u0000"]', "attributes": []}, "images.\ufffd"),
        ({"config": None, "attributes": [{"attribute": "a", "drv_path": "/etc/passwd"}]}, "path that is none"),
        ({"config": None, "attributes": [package("a", "b"), package("b", "a")]}, "in a circle"),
    ],
)
def test_an_evaluation_that_cannot_be_planned_fails_its_build_alone(
    world: World, evaluation: dict[str, object] | None, says: str
) -> None:
    bad, good = world.build("bad"), world.build("good")
    runners = world.dispatch()
    for runner in runners:
        runner.claim()
    runners[0].report(evaluation=evaluation)
    runners[1].evaluated([package("hello")])
    assert plan.plan_due(world.database, world.signals, world.settings.limits) == 2
    failed = world.of(bad)
    assert (failed.state, failed.reason) == (BuildState.FAILED, Reason.EVALUATION_FAILED)
    assert says in failed.message
    assert world.state(good) is BuildState.RUNNING


def test_a_fault_of_ours_in_planning_ends_one_build(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = world.build("bad"), world.build("good")
    for runner in world.dispatch():
        runner.claim()
        runner.evaluated([package(runner.job().build.repo.name)])
    original = plan._job_row

    def faulty(build: Build, job: PlannedJob) -> Job:
        if job.name == "bad":
            raise RuntimeError("a bug")
        return original(build, job)

    monkeypatch.setattr(plan, "_job_row", faulty)
    plan.plan_due(world.database, world.signals, world.settings.limits)
    assert world.state(bad) is BuildState.ERRORED
    assert world.state(good) is BuildState.RUNNING


def test_a_plan_is_made_once_by_two_servers(world: World, database: Database) -> None:
    build = world.build()
    runner = world.dispatch_one()
    runner.claim()
    runner.evaluated([package("app", "lib"), package("lib")])
    barrier = threading.Barrier(2, timeout=60)

    def make(_server: int) -> None:
        barrier.wait()
        plan.plan_due(database, world.signals, world.settings.limits)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(make, range(2)))
    assert world.job_states(build) == {
        "evaluation": JobState.SUCCEEDED,
        "app": JobState.WAITING,
        "lib": JobState.QUEUED,
    }
    assert world.events(build).count("build.running") == 1


def test_one_derivation_under_two_names_is_built_once(world: World) -> None:
    build, runners = running(world, package("hello"), package("hello", attribute="default"))
    assert list(runners) == ["hello"]
    assert world.jobs(build)["hello"].attributes == ["packages.x86_64-linux.hello", "packages.x86_64-linux.default"]
    assert world.jobs(build)["hello"].drv_path == drv("hello")


def test_a_job_ends_with_the_lease_of_a_cancelled_build(world: World, database: Database) -> None:
    build, _ = running(world, package("lib"))
    cancel(database, world.signals, build, by="me")
    world.lapse()
    assert settle.expire_leases(database, world.signals, world.settings.limits) == 1
    assert world.jobs(build)["lib"].state is JobState.CANCELLED
    assert all(job.ended_at is not None for job in world.jobs(build).values())
