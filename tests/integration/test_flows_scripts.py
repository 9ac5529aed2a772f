"""Scripts on both databases: who has one run, what it is given, and who never does."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import select, update

from albatros.bootstrap.server import isolates_jobs
from albatros.db import secrets
from albatros.db.keyring import Keyring
from albatros.db.models import Build, Job
from albatros.db.session import Database
from albatros.domain.secrets import Place
from albatros.domain.states import BuildState, JobKind, JobState, Reason
from albatros.errors import GoneError
from albatros.flows import plan
from albatros.flows.dispatch import Dispatcher
from albatros.settings import ForgeSettings
from tests.support.flows import KEY, MAIN, Runner, World, package, settings_of

HELLO = Place("home", "alba", "hello")
FORGE = {"name": "home", "kind": "git", "url": "/git", "webhook_secret": "not-a-secret"}


def world_of(database: Database, data: Path, *scripts: str) -> World:
    return World(database, settings_of(data, forges=[FORGE | {"scripts": scripts}]))


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return world_of(database, tmp_path, "alba/hello")


def evaluate(world: World, *attributes: Mapping[str, object], script: bool = True) -> None:
    """Run the one evaluation that is due, and plan what it reports."""
    runner = world.dispatch_one()
    order = runner.claim()
    assert order["script"] is None
    runner.report(evaluation={"config": None, "commit_time": 1, "script": script, "attributes": list(attributes)})
    forges: Mapping[str, ForgeSettings] = {item.name: item for item in world.settings.forges}
    plan.plan_due(world.database, world.signals, world.settings.limits, forges)


def put(world: World, name: str, value: str, *refs: str, place: Place = HELLO) -> None:
    with world.database.write() as session:
        secrets.put(session, Keyring(world.settings.secrets_key), place, name, refs, value)


def claimed(runner: Runner) -> Mapping[str, object]:
    return cast("Mapping[str, object]", runner.claim()["script"])


def test_a_script_runs_beside_the_flake_and_both_have_to_succeed(world: World) -> None:
    build = world.build()
    evaluate(world, package("hello"))
    assert world.job_states(build) == {
        "evaluation": JobState.SUCCEEDED, "hello": JobState.QUEUED, ".albatros": JobState.QUEUED
    }  # fmt: skip
    by_kind = {runner.job().kind: runner for runner in world.dispatch()}
    by_kind[JobKind.BUILD].claim()
    by_kind[JobKind.BUILD].built(b"#!")
    assert world.state(build) is BuildState.RUNNING
    by_kind[JobKind.SCRIPT].claim()
    by_kind[JobKind.SCRIPT].failed("build_failed", ".albatros ended with exit status 3.")
    assert world.state(build) is BuildState.FAILED
    assert world.of(build).message == ".albatros ended with exit status 3."


def test_a_repo_without_a_flake_has_its_script_alone(world: World) -> None:
    build = world.build()
    evaluate(world)
    runner = world.dispatch_one()
    assert claimed(runner)["branch"] == "main"
    runner.report()
    assert world.state(build) is BuildState.SUCCEEDED


@pytest.mark.parametrize(
    ("ref", "branch", "tag"), [(MAIN, "main", ""), ("refs/tags/v1.0", "", "v1.0"), ("a" * 40, "", "")]
)
def test_a_script_is_told_its_ref_and_flavor(world: World, ref: str, branch: str, tag: str) -> None:
    world.build(ref=ref, flavor="nightly")
    evaluate(world)
    told = claimed(world.dispatch_one())
    assert (told["branch"], told["tag"], told["flavor"]) == (branch, tag, "nightly")
    assert told["repo_url"] == "https://git.example.org/alba/hello.git"


def test_secrets_reach_the_claim_of_a_script_and_no_other(world: World) -> None:
    put(world, "DEPLOY_KEY", "of-the-server", place=Place())
    put(world, "DEPLOY_KEY", "line one\nline two")
    put(world, "RELEASE_KEY", "for-tags-alone", "refs/tags/*")
    put(world, "git.example.org", "token-of-a-host")
    world.build()
    evaluation = world.dispatch_one()
    order = evaluation.claim()
    assert order["access_tokens"] == {"git.example.org": "token-of-a-host"}
    assert "line one" not in str(order)
    evaluation.report(evaluation={"config": None, "script": True, "attributes": [package("hello")]})
    forges = {item.name: item for item in world.settings.forges}
    plan.plan_due(world.database, world.signals, world.settings.limits, forges)
    by_kind = {runner.job().kind: runner for runner in world.dispatch()}
    assert "line one" not in str(by_kind[JobKind.BUILD].claim())
    told = claimed(by_kind[JobKind.SCRIPT])
    assert told["secrets"] == {"DEPLOY_KEY": "line one\nline two"}


def test_nothing_of_a_stranger_runs_and_a_check_does_not_fail_for_it(world: World) -> None:
    put(world, "DEPLOY_KEY", "never-for-strangers")
    alone = world.build(trusted=False)
    evaluate(world)
    assert (world.state(alone), world.of(alone).reason) == (BuildState.SKIPPED, Reason.SKIPPED)
    beside = world.build(trusted=False)
    evaluate(world, package("hello"))
    assert set(world.job_states(beside)) == {"evaluation", "hello"}


def test_a_merge_result_runs_no_script_since_it_publishes_nothing(world: World) -> None:
    alone = world.build()
    with world.database.write() as session:
        merged = {"merge_into": "refs/heads/main", "base_commit": "b" * 40}
        session.execute(update(Build).where(Build.id == alone).values(merged))
    evaluate(world)
    assert (world.state(alone), world.of(alone).reason) == (BuildState.SKIPPED, Reason.SKIPPED)
    assert "merge result" in world.of(alone).message


def test_a_repo_that_no_operator_listed_runs_no_script(database: Database, tmp_path: Path) -> None:
    world = world_of(database, tmp_path, "alba/other")
    beside = world.build()
    evaluate(world, package("hello"))
    assert set(world.job_states(beside)) == {"evaluation", "hello"}
    alone = world.build()
    world.dispatch()
    with world.database.read() as session:
        kinds = session.scalars(select(Job.kind).where(Job.build_id == alone)).all()
    assert kinds == [JobKind.EVALUATION]


def test_a_repo_with_a_script_alone_that_may_not_run_says_whom_to_ask(database: Database, tmp_path: Path) -> None:
    world = world_of(database, tmp_path)
    build = world.build()
    evaluate(world)
    assert world.state(build) is BuildState.FAILED
    assert "an operator lists the repo in `scripts`" in world.of(build).message


def test_a_script_that_is_not_allowed_any_more_is_given_nothing(database: Database, tmp_path: Path) -> None:
    world = world_of(database, tmp_path, "alba/hello")
    world.build()
    evaluate(world)
    world.settings = settings_of(tmp_path, forges=[FORGE])
    with pytest.raises(GoneError, match="may not run here"):
        world.dispatch_one().claim()


def test_where_jobs_are_not_shut_off_from_one_another_a_script_is_refused(world: World) -> None:
    world.dispatcher = Dispatcher(
        world.database, world.signals, world.executor, world.settings.limits, KEY, "http://x", takes_scripts=False
    )
    build = world.build()
    evaluate(world, package("hello"))
    (runner,) = world.dispatch()
    runner.claim()
    runner.built(b"#!")
    job = world.jobs(build)[".albatros"]
    assert (job.state, job.reason) == (JobState.FAILED, Reason.DRIVER)
    assert "allow_unisolated_scripts" in job.message
    assert world.state(build) is BuildState.ERRORED


def test_what_a_script_claims_to_have_built_is_not_kept(world: World) -> None:
    build = world.build()
    evaluate(world)
    runner = world.dispatch_one()
    runner.claim()
    runner.built(b"an artifact")
    assert world.artifacts(build) == []
    assert world.state(build) is BuildState.SUCCEEDED


@pytest.mark.parametrize(
    ("executor", "driver", "shut_off"),
    [("local", "exec", False), ("nomad", "raw_exec", False), ("nomad", "exec", True), ("nomad", "docker", True)],
)
def test_which_executors_shut_jobs_off_from_one_another(
    tmp_path: Path, executor: str, driver: str, shut_off: bool
) -> None:
    cluster = {"driver": driver, "image": "registry.example.org/nix:1", "addresses": ["http://127.0.0.1:4646"]}
    server = {"data": str(tmp_path), "url": "https://ci.example.org"}
    settings = settings_of(tmp_path, executor={"kind": executor}, nomad=cluster, server=server)
    assert isolates_jobs(settings) is shut_off
