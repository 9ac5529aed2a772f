"""Images that scripts ask for, on both databases: what may go where, once, and on after a kill."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from sqlalchemy import select

from albatros.db.models import Image, ImageRequest, RefHead
from albatros.db.session import Database, now
from albatros.domain.references import Blob, Digest, digest_of
from albatros.domain.states import BuildState, JobKind, PublicationState
from albatros.errors import BadInputError, ConflictError, ForbiddenError, GoneError, NotFoundError, RegistryError
from albatros.flows import plan, script_images
from albatros.flows.script_images import Asked, Outcome
from albatros.images.publish import ignore
from tests.support.flows import MAIN, Runner, World, settings_of
from tests.support.pushing import failing, hub, image

FORGE = {"name": "home", "kind": "git", "url": "/git", "webhook_secret": "not-a-secret", "scripts": ["alba/*"]}
HUB = {"name": "hub", "url": "docker://hub.example.org/team", "names": ["{repo}"]}
RELEASE = "refs/tags/v1.2.3"
IMAGE = image()


def world_of(database: Database, data: Path, **registry: object) -> World:
    return World(database, settings_of(data, forges=[FORGE], registries=[HUB | registry]))


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return world_of(database, tmp_path)


def script(world: World, **build: object) -> tuple[int, Runner]:
    """A Build whose script runs; its id and runner."""
    build_id = world.build(**build)  # type: ignore[arg-type]
    runner = world.dispatch_one()
    runner.claim()
    runner.report(evaluation={"config": None, "commit_time": 1, "script": True, "attributes": []})
    forges = {item.name: item for item in world.settings.forges}
    plan.plan_due(world.database, world.signals, world.settings.limits, forges)
    runner = world.dispatch_one()
    runner.claim()
    assert runner.job().kind is JobKind.SCRIPT
    return build_id, runner


def ask(
    world: World, runner: Runner, data: bytes | None = None, name: str = "hello", tag: str = "main", where: str = "hub"
) -> int:
    blob = runner.upload(IMAGE if data is None else data)
    asked = Asked(where, name, tag, (("linux.amd64.tar.gz", blob),))
    return script_images.ask(world.database, world.settings, world.signals, runner.token, runner.nonce, asked)


def make(world: World) -> bool:
    request = world.script_images.claim()
    if request is not None:
        world.script_images.make(request)
    return request is not None


def outcome(world: World, runner: Runner, request: int) -> Outcome:
    return script_images.outcome(world.database, world.settings, runner.token, runner.nonce, request)


def test_a_script_has_an_image_published_and_the_build_is_green(world: World) -> None:
    build, runner = script(world)
    request = ask(world, runner)
    assert outcome(world, runner, request).state == "waiting"
    assert make(world)
    assert not make(world)
    assert outcome(world, runner, request) == Outcome("waiting", "hello:main is being pushed")
    world.publish()
    done = outcome(world, runner, request)
    digest = hub(world).tag("hello", "main")
    assert done == Outcome("published", "", f"hub.example.org/team/hello:main@{digest}", str(digest))
    runner.report()
    assert world.state(build) is BuildState.PUBLISHING
    world.finish()
    assert world.state(build) is BuildState.SUCCEEDED


def test_asked_twice_it_is_one_image_and_one_push(world: World) -> None:
    build, runner = script(world)
    first = ask(world, runner)
    assert ask(world, runner) == first
    make(world)
    world.publish()
    assert ask(world, runner) == first
    assert not make(world)
    assert len(world.publications(build)) == 1


def test_one_image_under_two_tags_is_pushed_under_both(world: World) -> None:
    _, runner = script(world)
    requests = [ask(world, runner, tag=tag) for tag in ("main", "nightly")]
    while make(world):
        pass
    world.publish()
    assert {outcome(world, runner, request).state for request in requests} == {"published"}
    assert hub(world).tag("hello", "main") == hub(world).tag("hello", "nightly")


def test_what_a_later_try_makes_under_the_same_name_takes_its_place(world: World) -> None:
    build, runner = script(world)
    old = ask(world, runner, image("first"))
    make(world)
    new = ask(world, runner, image("second"))
    claim = world.publisher.claim()
    assert claim is not None
    make(world)
    assert outcome(world, runner, new).message == "an earlier image of this name is being pushed"
    world.publisher.push(claim, ignore)
    world.lapse()
    make(world)
    world.publish()
    assert outcome(world, runner, new).state == "published"
    assert outcome(world, runner, old).state == "failed"
    with world.database.read() as session:
        (kept,) = session.scalars(select(Image.digest).where(Image.build_id == build))
    assert hub(world).tag("hello", "main") == kept


def test_a_killed_server_goes_on(world: World) -> None:
    _, runner = script(world)
    request = ask(world, runner)
    assert world.script_images.claim() is not None
    world.start_again("server-b")
    assert not make(world), "the other may still be at it"
    world.lapse()
    assert make(world)
    world.publish()
    assert outcome(world, runner, request).state == "published"


def test_who_lost_the_request_writes_nothing(world: World) -> None:
    _, runner = script(world)
    ask(world, runner)
    stale = world.script_images.claim()
    assert stale is not None
    world.lapse()
    fresh = world.script_images.claim()
    assert fresh is not None
    world.script_images.make(stale)
    with world.database.read() as session:
        assert session.scalars(select(Image)).all() == []
    world.script_images.make(fresh)
    with world.database.read() as session:
        assert len(session.scalars(select(Image)).all()) == 1


@pytest.mark.parametrize(
    ("name", "published"),
    [("hello", "hello"), ("hello/tools", "hello/tools"), ("tools", "hello/tools"), ("other/x", "hello/other/x")],
)
def test_a_name_is_the_repos_own_or_below_it(world: World, name: str, published: str) -> None:
    _, runner = script(world)
    ask(world, runner, name=name)
    with world.database.read() as session:
        assert session.scalars(select(ImageRequest.name)).all() == [published]


@pytest.mark.parametrize(
    ("ref", "tag", "refused"),
    [
        (MAIN, "latest", ""),
        (MAIN, "main", ""),
        (MAIN, "2026-11-24", ""),
        (MAIN, "1.2.3", "kept for releases"),
        (MAIN, "v2.0.0-rc1", "kept for releases"),
        (MAIN, "a" * 40, "kept for releases"),
        (MAIN, "topic", "belongs to refs/heads/topic"),
        ("refs/heads/topic", "latest", "kept for releases"),
        ("refs/heads/topic", "topic", ""),
        (RELEASE, "1.2.3", ""),
        (RELEASE, "v1.2.3", ""),
        (RELEASE, "1.2.3-alpine", ""),
        (RELEASE, "1.2.4", "kept for releases"),
        (RELEASE, "latest", "kept for releases"),
    ],
)
def test_a_tag_is_no_other_refs(world: World, ref: str, tag: str, refused: str) -> None:
    repo = world.repo()
    with world.database.write() as session:
        head = {"commit": "c" * 40, "sequence": 1, "updated_at": now()}
        session.add(RefHead(repo_id=repo, ref="refs/heads/topic", flavor="", **head))
    _, runner = script(world, ref=ref)
    if refused:
        with pytest.raises(ForbiddenError, match=refused):
            ask(world, runner, tag=tag)
    else:
        ask(world, runner, tag=tag)


def test_a_tag_that_another_ref_published_stays_its_own(world: World) -> None:
    _, first = script(world)
    ask(world, first, tag="stable")
    make(world)
    world.publish()
    first.report()
    world.finish()
    _, other = script(world, ref="refs/heads/topic")
    with pytest.raises(ForbiddenError, match="the tag stable of hello belongs to refs/heads/main"):
        ask(world, other, tag="stable")


@pytest.mark.parametrize(
    ("registry", "private", "says"),
    [
        ({"repos": ["other/*"]}, False, "an operator sets its `repos`"),
        ({"refs": ["refs/tags/*"]}, False, "an operator sets its `repos`"),
        ({"public": True}, True, "anybody could pull"),
    ],
)
def test_the_registrys_settings_hold(
    database: Database, tmp_path: Path, registry: Mapping[str, object], private: bool, says: str
) -> None:
    world = world_of(database, tmp_path, **registry)
    world.repo(private=private)
    _, runner = script(world)
    with pytest.raises(ForbiddenError, match=says):
        ask(world, runner)


def test_a_registry_that_is_not_configured_is_told_of_those_that_are(world: World) -> None:
    _, runner = script(world)
    with pytest.raises(NotFoundError, match="there are: hub"):
        ask(world, runner, where="s3://elsewhere")
    ask(world, runner, where="docker://hub.example.org/team")


def test_only_a_script_asks_and_only_for_what_its_repo_uploaded(world: World) -> None:
    foreign = digest_of(image("another repo's"))
    world.store.put([image("another repo's")])
    world.build()
    evaluation = world.dispatch_one()
    evaluation.claim()
    with pytest.raises(ForbiddenError, match="only a script"):
        ask(world, evaluation)
    evaluation.failed("evaluation_failed")
    _, runner = script(world)
    asked = Asked("hub", "hello", "main", (("linux.amd64.tar.gz", Blob(Digest(foreign), 1)),))
    with pytest.raises(BadInputError, match="was not uploaded"):
        script_images.ask(world.database, world.settings, world.signals, runner.token, runner.nonce, asked)


def test_what_is_no_image_fails_the_request_and_says_so(world: World) -> None:
    _, runner = script(world)
    request = ask(world, runner, b"no archive at all")
    make(world)
    failed = outcome(world, runner, request)
    assert failed.state == "failed"
    assert "linux.amd64.tar.gz: it is not a tar archive" in failed.message


def test_a_registry_that_refuses_fails_the_request(world: World) -> None:

    _, runner = script(world)
    hub(world).before = failing(RegistryError("it may not be pushed there"))
    request = ask(world, runner)
    make(world)
    world.publish()
    assert outcome(world, runner, request) == Outcome("failed", "it may not be pushed there")


def test_a_request_of_a_job_that_ended_is_left(world: World) -> None:
    build, runner = script(world)
    request = ask(world, runner)
    runner.failed("build_failed")
    assert not make(world)
    assert world.publications(build) == []
    with pytest.raises(GoneError):
        outcome(world, runner, request)


def test_requests_are_bounded_and_another_scripts_are_not_shown(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script_images, "MAX_REQUESTS", 2)
    _, runner = script(world)
    first = ask(world, runner, tag="one")
    ask(world, runner, tag="two")
    assert ask(world, runner, tag="one") == first
    with pytest.raises(ConflictError, match="at most 2"):
        ask(world, runner, tag="three")
    _, other = script(world)
    with pytest.raises(NotFoundError):
        outcome(world, other, first)


def test_the_newest_build_of_a_ref_keeps_the_tag(world: World) -> None:
    _, old = script(world)
    _, new = script(world)
    newest = ask(world, new, image("new"))
    make(world)
    world.publish()
    late = ask(world, old, image("old"))
    make(world)
    world.publish()
    done = outcome(world, old, late)
    assert done.state == PublicationState.SUPERSEDED
    assert done.reference == f"hub.example.org/team/hello@{done.digest}"
    assert hub(world).tag("hello", "main") == outcome(world, new, newest).digest
