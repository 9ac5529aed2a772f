"""What a runner may do with its one Attempt, on both databases."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import select, update

from albatros.db.models import Blob, Build, RepoBlob
from albatros.db.session import Database, now
from albatros.domain import references
from albatros.domain.references import Digest, digest_of
from albatros.domain.states import AttemptState, BuildState, JobState, Reason
from albatros.errors import (
    BadInputError,
    ConflictError,
    ForgeError,
    ForgeUnavailableError,
    GoneError,
    UnauthorizedError,
)
from albatros.flows import attempts, settle
from albatros.flows.cancel import cancel
from tests.support.flows import Runner, World, output_of, package, settings_of


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    secret = {"example.org": "flake-token"}
    forge = {"name": "home", "kind": "git", "url": "/git", "webhook_secret": "not-a-secret", "flake_tokens": secret}
    executor = {"import_from_derivation": True}
    return World(database, settings_of(tmp_path, forges=[forge], executor=executor))


def end(world: World, runner: Runner, state: AttemptState = AttemptState.LOST) -> None:
    assert settle.close_attempt(
        world.database, world.signals, world.settings.limits, runner.attempt_id, state, Reason.NODE_LOST, "gone"
    )


def test_the_first_runner_gets_the_order_and_may_ask_again(world: World) -> None:
    build = world.of(world.build())
    runner = world.dispatch_one()
    order = runner.claim()
    assert order == runner.claim()
    assert (order["attempt"], order["kind"], order["build"]) == (runner.attempt_id, "evaluation", None)
    repo = cast("dict[str, object]", order["repo"])
    assert (repo["commit"], repo["ref"], repo["password"]) == (build.commit, build.ref, "clone-token")
    assert repo["repo_alone"] is False
    assert order["access_tokens"] == {"example.org": "flake-token"}
    attempt = runner.attempt()
    assert (attempt.state, attempt.nonce, attempt.host) == (AttemptState.CLAIMED, runner.nonce, "a-host")
    assert attempt.lease_until is not None
    assert attempt.lease_until > now()


def test_another_runner_is_turned_away(world: World) -> None:
    world.build()
    runner = world.dispatch_one()
    runner.claim()
    with pytest.raises(ConflictError, match="claimed by another runner"):
        Runner(world, runner.attempt_id, runner.token).claim()
    assert runner.attempt().nonce == runner.nonce


def test_of_two_runners_that_claim_at_once_one_gets_it(world: World) -> None:
    world.build()
    first = world.dispatch_one()
    rivals = [first, *(Runner(world, first.attempt_id, first.token) for _ in range(3))]
    barrier = threading.Barrier(len(rivals), timeout=60)

    def claim(rival: Runner) -> str:
        barrier.wait()
        try:
            rival.claim()
        except ConflictError:
            return ""
        return rival.nonce

    with ThreadPoolExecutor(len(rivals)) as pool:
        nonces = [nonce for nonce in pool.map(claim, rivals) if nonce]
    assert nonces == [first.attempt().nonce]


def test_one_runner_may_claim_twice_at_once(world: World) -> None:
    world.build()
    runner = world.dispatch_one()
    barrier = threading.Barrier(4, timeout=60)

    def claim(_number: int) -> dict[str, object]:
        barrier.wait()
        return runner.claim()

    with ThreadPoolExecutor(4) as pool:
        orders = list(pool.map(claim, range(4)))
    assert orders == [orders[0]] * 4


@pytest.mark.parametrize("token", ["", "nobody", "\x00"])
def test_a_wrong_token_opens_nothing(world: World, token: str) -> None:
    world.build()
    runner = world.dispatch_one()
    with pytest.raises(UnauthorizedError):
        Runner(world, runner.attempt_id, token).claim()
    with pytest.raises(UnauthorizedError):
        attempts.check_token(world.database, token)
    attempts.check_token(world.database, runner.token)


def test_a_closed_attempt_is_gone(world: World) -> None:
    world.build()
    runner = world.dispatch_one()
    runner.claim()
    end(world, runner)
    with pytest.raises(GoneError, match="lost"):
        runner.claim()
    with pytest.raises(GoneError, match="lost"):
        runner.heartbeat()
    with pytest.raises(GoneError, match="lost"):
        runner.upload(b"late")
    with pytest.raises(GoneError, match="lost"):
        runner.evaluated([package("hello")])


def test_nothing_is_heard_before_the_claim(world: World) -> None:
    world.build()
    runner = world.dispatch_one()
    for call in (runner.heartbeat, lambda: runner.upload(b"x"), lambda: runner.evaluated([])):
        with pytest.raises(ConflictError, match="not claimed by this runner"):
            call()


def test_a_heartbeat_renews_and_tells_when_to_stop(world: World, database: Database) -> None:
    build = world.build()
    runner = world.dispatch_one()
    runner.claim()
    world.lapse()
    assert runner.heartbeat() is None
    assert settle.expire_leases(database, world.signals, world.settings.limits) == 0
    assert attempts.unwanted(database, "fake") == set()
    cancel(database, world.signals, build, by="somebody")
    assert runner.heartbeat() == "cancelled"
    assert attempts.unwanted(database, "fake") == {runner.attempt_id}
    assert attempts.unwanted(database, "other") == set()
    with pytest.raises(ConflictError):
        attempts.heartbeat(database, runner.token, "0" * 32, 30)


def test_what_was_asked_first_is_what_the_runner_hears(world: World, database: Database) -> None:
    build = world.build()
    runner = world.dispatch_one()
    runner.claim()
    cancel(database, world.signals, build, by="somebody")
    assert attempts.hand_back(database, "fake") == 0, "it ends already, and its Job is nobody's any more"
    assert runner.heartbeat() == "cancelled"


def test_strangers_get_no_secret(world: World) -> None:
    world.build(trusted=False)
    order = world.dispatch_one().claim()
    assert order["access_tokens"] == {}
    assert cast("dict[str, object]", order["nix"])["import_from_derivation"] is False
    assert cast("dict[str, object]", order["repo"])["password"] is None


def test_a_private_repo_cannot_be_cloned_without_its_credential(world: World) -> None:
    world.repo("secret", private=True)
    world.build("secret", trusted=False)
    repo = cast("dict[str, object]", world.dispatch_one().claim()["repo"])
    assert (repo["password"], repo["repo_alone"]) == ("clone-token", True)


@pytest.mark.parametrize(("trusted", "config_commit"), [(True, None), (False, "b" * 40)])
def test_a_merge_result_is_ordered_as_two_commits(
    world: World, database: Database, trusted: bool, config_commit: str | None
) -> None:
    build = world.build(ref="refs/pull/7/merge", trusted=trusted)
    with database.write() as session:
        merged = {"merge_into": "refs/heads/release/2", "base_commit": "b" * 40}
        session.execute(update(Build).where(Build.id == build).values(merged))
    repo = cast("dict[str, object]", world.dispatch_one().claim()["repo"])
    assert repo["merge"] == {"commit": "b" * 40, "branch": "release/2"}
    assert (repo["commit"], repo["ref"]) == (world.of(build).commit, "refs/pull/7/head")
    assert repo["config_commit"] == config_commit


def test_a_conflict_fails_the_build_with_the_runners_sentence(world: World) -> None:
    build = world.build()
    runner = world.dispatch_one()
    runner.claim()
    runner.failed("merge_conflict", "it does not merge with main: conflicts in a, b")
    assert (world.of(build).state, world.of(build).reason) == (BuildState.FAILED, Reason.MERGE_CONFLICT)
    assert world.of(build).message == "it does not merge with main: conflicts in a, b"


def test_an_order_says_what_is_wanted_of_the_build(world: World) -> None:
    world.build()
    config = '[images.web]\noutput = "hello"\nbinary = "bin/web"\n[limits]\njob_seconds = 5\nsilence_seconds = 99999\n'
    world.evaluate([package("hello"), package("hello", attribute="default")], config)
    order = world.dispatch_one().claim()
    wanted = cast("dict[str, object]", order["build"])
    assert wanted["attribute"] == "packages.x86_64-linux.hello"
    assert (wanted["binaries"], wanted["keep"]) == (["bin/web"], True)
    limits = cast("dict[str, object]", order["limits"])
    assert (limits["wall_seconds"], limits["silence_seconds"]) == (5, 900), "a repo can only narrow"


def test_a_repo_that_cannot_be_cloned_ends_its_attempt_with_the_forges_words(world: World) -> None:
    build = world.build()
    world.forge.error = ForgeUnavailableError("the forge sleeps")
    runner = world.dispatch_one()
    with pytest.raises(ForgeUnavailableError):
        runner.claim()
    assert runner.attempt().state is AttemptState.CLAIMED, "the same runner asks again"
    world.forge.error = ForgeError("there is no such directory")
    with pytest.raises(GoneError, match="no such directory"):
        runner.claim()
    attempt = runner.attempt()
    assert (attempt.state, attempt.reason) == (AttemptState.FAILED, Reason.DRIVER)
    assert world.jobs(build)["evaluation"].state is JobState.QUEUED


def known(world: World, runner: Runner, *blobs: references.Blob) -> set[Digest]:
    missing = attempts.missing_blobs(world.database, world.store, runner.token, runner.nonce, blobs)
    return {blob.digest for blob in blobs} - set(missing)


def test_what_is_there_is_known_per_repo(world: World) -> None:
    world.build("hello")
    mine = world.dispatch_one()
    mine.claim()
    blob = mine.upload(b"secret bytes")
    world.build("other")
    other = world.dispatch_one()
    other.claim()
    assert known(world, mine, blob) == {blob.digest}
    assert known(world, other, blob) == set()
    other.upload(b"secret bytes")
    assert known(world, other, blob) == {blob.digest}


def test_a_blob_counts_as_there_only_with_its_bytes_and_size(world: World, database: Database) -> None:
    world.build()
    runner = world.dispatch_one()
    runner.claim()
    blob, gone = runner.upload(b"bytes"), runner.upload(b"other")
    longer = references.Blob(blob.digest, blob.size + 1)
    world.store.delete(gone.digest, now())
    long_ago = now().replace(year=2000)
    with database.write() as session:
        session.execute(update(Blob).values(touched_at=long_ago))
    assert known(world, runner, blob, gone) == {blob.digest}
    assert known(world, runner, longer) == set()
    with database.read() as session:
        touched = session.get_one(Blob, blob.digest).touched_at
    assert touched > long_ago, "the collector leaves it alone now"


def test_uploads_are_counted(world: World, database: Database) -> None:
    world.build()
    runner = world.dispatch_one()
    runner.claim()
    runner.upload(b"x" * 60)
    assert attempts.upload_allowance(database, runner.token, runner.nonce, 100).bytes_left == 40
    runner.upload(b"x" * 60)
    assert attempts.upload_allowance(database, runner.token, runner.nonce, 100).bytes_left == 0, "sent is sent"


def test_the_same_result_again_changes_nothing(world: World, database: Database) -> None:
    build = world.build()
    runner = world.dispatch_one()
    runner.claim()
    runner.evaluated([package("hello")])
    kinds = world.events(build)
    runner.evaluated([package("hello")])
    assert world.events(build) == kinds
    with pytest.raises(GoneError, match="succeeded"):
        runner.evaluated([package("other")])
    with pytest.raises(ConflictError):
        Runner(world, runner.attempt_id, runner.token).evaluated([package("hello")])


def test_a_result_that_comes_too_late_is_gone(world: World) -> None:
    world.build()
    runner = world.dispatch_one()
    runner.claim()
    end(world, runner)
    for _ in range(2):
        with pytest.raises(GoneError):
            runner.failed("build_failed", "too late")


def test_one_result_sent_twice_at_once_is_taken_once(world: World) -> None:
    build = world.build()
    world.evaluate([package("hello")])
    runner = world.dispatch_one()
    runner.claim()
    digest = runner.upload(b"out").digest
    file = {"path": "", "kind": "file", "digest": digest, "size": 3, "executable": False}
    barrier = threading.Barrier(3, timeout=60)

    def report(_number: int) -> None:
        barrier.wait()
        runner.report(outputs=[output_of([file])])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(report, range(3)))
    assert len(world.artifacts(build)) == 1
    assert world.events(build).count("job.succeeded") == 2


def test_what_cannot_be_read_leaves_the_attempt_open(world: World) -> None:
    world.build()
    runner = world.dispatch_one()
    runner.claim()
    for body in ({"outcome": "great"}, {"outputs": ["x"]}, {"evaluation": "x"}):
        with pytest.raises(BadInputError):
            runner.report(**body)
    assert runner.attempt().state is AttemptState.CLAIMED
    assert list(world.store.list()) == []
    runner.evaluated([package("hello")])


def test_a_result_keeps_files_and_closures(world: World, database: Database) -> None:
    build = world.build()
    world.evaluate([package("hello")])
    runner = world.dispatch_one()
    runner.claim()
    runner.built(b"the output")
    (artifact,) = world.artifacts(build)
    assert (artifact.path, artifact.size, artifact.digest) == ("", 10, digest_of(b"the output"))
    assert artifact.closure_digest is not None
    with world.store.open(Digest(artifact.closure_digest)) as file:
        assert b"nar_hash" in file.read()
    with database.read() as session:
        assert set(session.scalars(select(RepoBlob.digest))) == {artifact.digest, artifact.closure_digest}


def test_a_digest_of_another_repo_is_never_taken(world: World) -> None:
    world.build("other")
    other = world.dispatch_one()
    other.claim()
    secret = other.upload(b"secret bytes").digest
    build = world.build("hello")
    world.evaluate([package("hello")])
    runner = world.dispatch_one()
    runner.claim()
    mine = runner.upload(b"mine").digest
    files = [
        {"path": path, "kind": "binary", "digest": digest, "size": 1, "executable": True}
        for path, digest in (("bin/a", mine), ("bin/b", secret))
    ]
    runner.report(outputs=[output_of(files)])
    job = world.jobs(build)["hello"]
    assert (job.state, job.reason) == (JobState.FAILED, Reason.BUILD_FAILED)
    assert "the runner named sha256:" in job.message
    assert world.artifacts(build) == [], "nothing of a refused result is kept"
    assert world.state(build) is BuildState.FAILED


def test_a_binary_that_is_not_there_fails_with_its_attribute(world: World) -> None:
    build = world.build()
    world.evaluate([package("hello")], '[images.hello]\nbinary = "bin/hello"\n')
    runner = world.dispatch_one()
    runner.claim()
    runner.built(b"x", binaries=["bin/other"])
    assert world.of(build).message == (
        "packages.x86_64-linux.hello: the output has no file 'bin/hello'; check `binary` in .albatros.toml"
    )


def test_texts_that_no_database_keeps_are_cleaned(world: World) -> None:
    build = world.build()
    runner = world.dispatch_one()
    runner.claim()
    runner.failed("evaluation_failed", "bad\x00 \ud800 \x1b[31mred")
    job = world.jobs(build)["evaluation"]
    assert job.message == "bad\ufffd \ufffd red"
    assert world.of(build).message == "evaluation: bad\ufffd \ufffd red"
