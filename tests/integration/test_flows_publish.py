"""Images to registries, and tags that never go back, on both databases."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import select, text, update

from albatros.db.models import Base, Build, Image, ImageProof, Publication, TagHead
from albatros.db.queue import claim_publications
from albatros.db.session import Database, connect, now
from albatros.domain.references import digest_of
from albatros.domain.states import BuildState, PublicationState, Reason
from albatros.errors import (
    DatabaseUnavailableError,
    ForbiddenError,
    RegistryError,
    RegistryUnavailableError,
    StoreError,
)
from albatros.flows.cancel import cancel
from albatros.flows.publish import LEASE
from albatros.images.publish import ignore
from tests.support.clock import stopped_clock
from tests.support.flows import World, package, settings_of
from tests.support.memory_registry import MemoryRegistry
from tests.support.pushing import (
    assembled,
    built,
    claim,
    digest_of_build,
    failing,
    hub,
    image,
    one_registry,
    tag_states,
)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands still, so that nothing is due before a test says so."""
    stopped_clock(monkeypatch)


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, settings_of(tmp_path))


def test_the_slower_first_push_never_takes_the_tag_back(world: World) -> None:
    first, second = built(world, "old"), built(world, "new")
    claimed = world.assembler.claim()
    assert claimed is not None
    assert claimed.id == first
    assert world.assemble()
    world.publish()
    world.assembler.assemble(claimed)
    world.publish()
    for tag in ("main", "latest"):
        assert hub(world).tag("hello", tag) == digest_of_build(world, second)
    published, superseded = PublicationState.PUBLISHED, PublicationState.SUPERSEDED
    assert tag_states(world, first) == {"commit": published, "main": superseded, "latest": superseded}
    assert tag_states(world, second) == dict.fromkeys(("commit", "main", "latest"), published)
    assert (world.state(first), world.state(second)) == (BuildState.SUCCEEDED, BuildState.SUCCEEDED)
    assert hub(world).get_manifest("hello", digest_of_build(world, first)) is not None, "it is there by digest"
    (row, *_) = [row for row in world.publications(first) if row.state is superseded]
    assert (row.reason, row.message) == (Reason.SUPERSEDED, "pushed by digest only: a newer build holds the tag")


def test_a_rerun_of_an_old_commit_does_not_take_the_tag_back(world: World) -> None:
    old = built(world, "old")
    world.finish()
    new = built(world, "new")
    world.finish()
    built(world, "old", sequence=world.of(old).sequence)
    world.finish()
    assert hub(world).tag("hello", "main") == digest_of_build(world, new)


def test_refs_that_share_a_tag_leave_it_to_the_newest_build(world: World) -> None:
    """`feature/a` and `feature-a` have one slug."""
    older = assembled(world, "older", ref="refs/heads/feature/a")
    between = assembled(world, "between", ref="refs/heads/feature-a")
    newest = assembled(world, "newest", ref="refs/heads/feature/a")
    with world.database.write() as session:
        for build, wait in ((older, 2), (newest, 0), (between, 1)):
            ids = select(Image.id).where(Image.build_id == build)
            due = now() - timedelta(minutes=10 - wait)
            session.execute(update(Publication).where(Publication.image_id.in_(ids)).values(next_try_at=due))
    world.publish()
    assert hub(world).tag("hello", "feature-a") == digest_of_build(world, newest)
    superseded = [
        build for build in (older, between, newest) if PublicationState.SUPERSEDED in tag_states(world, build).values()
    ]
    assert superseded == [older, between]


def test_a_registry_that_is_away_is_tried_again_later(database: Database, tmp_path: Path) -> None:
    world = one_registry(database, tmp_path)
    build = assembled(world)
    hub(world).before = failing(RegistryUnavailableError("connection refused"), "blob_size")
    pauses = []
    for tries in (1, 2, 3):
        assert world.publish() == 1
        rows = world.publications(build)
        assert {(row.state, row.tries, row.message) for row in rows} == {
            (PublicationState.PENDING, tries, "connection refused")
        }
        pauses.append(min((row.next_try_at - now()).total_seconds() for row in rows))
        assert world.publish() == 0, "not before its time"
        world.make_due()
    assert 0 < pauses[0] <= 5 <= pauses[1] <= 10 <= pauses[2] <= 20
    assert world.state(build) is BuildState.PUBLISHING
    hub(world).before = lambda *_: None
    world.publish()
    assert world.state(build) is BuildState.SUCCEEDED
    assert {row.message for row in world.publications(build)} == {""}


@pytest.mark.parametrize(
    "error",
    [
        StoreError("the disk is away"),
        DatabaseUnavailableError("locked"),
        OSError(28, "No space left"),
        RuntimeError("a bug"),
    ],
)
def test_what_may_pass_is_tried_again(database: Database, tmp_path: Path, error: Exception) -> None:
    world = one_registry(database, tmp_path)
    build = assembled(world)
    hub(world).before = failing(error)
    world.publish()
    assert set(tag_states(world, build).values()) == {PublicationState.PENDING}
    hub(world).before = lambda *_: None
    world.make_due()
    world.publish()
    assert world.state(build) is BuildState.SUCCEEDED


def test_a_refusal_is_for_good(database: Database, tmp_path: Path) -> None:
    world = one_registry(database, tmp_path)
    build = assembled(world)
    hub(world).before = failing(RegistryError("denied: no such project"))
    world.publish()
    assert set(tag_states(world, build).values()) == {PublicationState.FAILED}
    ended = world.of(build)
    assert (ended.state, ended.reason) == (BuildState.FAILED, Reason.PUBLICATION_FAILED)
    assert ended.message.endswith("could not be published to hub: denied: no such project")


def test_tries_are_used_up(database: Database, tmp_path: Path) -> None:
    world = one_registry(database, tmp_path, publication_attempts=2)
    build = assembled(world)
    hub(world).before = failing(RegistryUnavailableError("away"))
    for _ in range(2):
        world.make_due()
        assert world.publish() == 1
    assert "given up after 2 tries: away" in world.of(build).message
    assert world.state(build) is BuildState.FAILED


def test_success_waits_for_every_required_registry_and_no_other(database: Database, tmp_path: Path) -> None:
    registries = [
        {"name": "hub", "url": "docker://hub.example.org", "required": False},
        {"name": "static", "url": f"dir:{tmp_path / 'r'}"},
    ]
    world = World(database, settings_of(tmp_path, registries=registries))
    build = assembled(world)
    static = cast("MemoryRegistry", world.registries["static"])
    static.before = failing(RegistryUnavailableError("away"))
    hub(world).before = failing(RegistryError("denied"))
    world.publish()
    assert world.state(build) is BuildState.PUBLISHING
    assert set(tag_states(world, build).values()) == {PublicationState.FAILED}
    static.before = lambda *_: None
    world.make_due()
    world.publish()
    assert world.state(build) is BuildState.SUCCEEDED


def test_one_required_registry_that_refuses_fails_the_build_at_the_end(world: World) -> None:
    build = assembled(world)
    hub(world).before = failing(RegistryError("denied"))
    push = claim(world)
    assert push.first.registry_name == "hub"
    world.publisher.push(push, ignore)
    assert world.state(build) is BuildState.PUBLISHING, "the other one is still due"
    world.publish()
    assert world.state(build) is BuildState.FAILED
    assert set(tag_states(world, build, "static").values()) == {PublicationState.PUBLISHED}


def test_a_registry_that_left_the_settings_is_said(world: World) -> None:
    build = assembled(world)
    del world.registries["static"]
    world.publisher = world.publisher_of("server-a")
    world.publish()
    assert "registry 'static' is no longer configured" in world.of(build).message


def test_who_lost_the_lease_moves_no_tag_and_writes_nothing(database: Database, tmp_path: Path) -> None:
    world = one_registry(database, tmp_path)
    build = assembled(world)
    slow = claim(world)
    other = world.publisher_of("server-b")

    def take_over(name: str, _image: str, reference: str) -> None:
        if name == "put_manifest" and reference.startswith("sha256:") and hub(world).before is not nothing:
            hub(world).before = nothing
            world.lapse()
            push = other.claim()
            assert push is not None
            other.push(push, ignore)

    def nothing(*_: str) -> None:
        return

    hub(world).before = take_over
    world.publisher.push(slow, ignore)
    assert len(hub(world).moves) == 3, "the one that took over moved each tag once"
    rows = world.publications(build)
    assert {(row.state, row.tries) for row in rows} == {(PublicationState.PUBLISHED, 2)}
    assert not world.publisher.renew(slow)


def test_a_lost_lease_in_the_same_process_is_noticed_too(database: Database, tmp_path: Path) -> None:
    world = one_registry(database, tmp_path)
    assembled(world)
    slow = claim(world)
    world.lapse()
    quick = claim(world)
    assert not world.publisher.renew(slow)
    assert world.publisher.renew(quick)
    world.publisher.push(slow, ignore)
    assert hub(world).moves == []
    world.publisher.push(quick, ignore)
    assert len(hub(world).moves) == 3


def test_a_killed_push_cannot_let_an_older_build_have_the_tag(world: World) -> None:
    """Killed after the tag moved and before the row said so; the older Build then finds the newer one in the way."""
    older, newer = assembled(world, "older"), assembled(world, "newer")
    with world.database.write() as session:
        ids = select(Image.id).where(Image.build_id == older)
        later = update(Publication).where(Publication.image_id.in_(ids))
        session.execute(later.values(next_try_at=now() + timedelta(minutes=5)))

    class KilledError(BaseException):
        """Nothing of ours catches the end of the process."""

    push = claim(world)
    commit = world.of(newer).commit

    def kill(name: str, _image: str, what: str) -> None:
        if name == "put_manifest" and what == "latest":
            raise KilledError

    hub(world).before = kill
    with pytest.raises(KilledError):
        world.publisher.push(push, ignore)
    assert {tag for _, tag, _ in hub(world).moves} == {commit, "main"}
    hub(world).before = lambda *_: None
    world.lapse()
    with world.database.write() as session:
        session.execute(
            update(Publication).where(Publication.state == PublicationState.PUSHING).values(next_try_at=now())
        )
        due = now() - timedelta(hours=1)
        session.execute(later.values(next_try_at=due))
    world.publish()
    assert [digest for _, tag, digest in hub(world).moves if tag == "main"] == [digest_of_build(world, newer)] * 2
    assert hub(world).tag("hello", "latest") == digest_of_build(world, newer)
    assert tag_states(world, older)["main"] is PublicationState.SUPERSEDED
    assert world.state(newer) is BuildState.SUCCEEDED


def test_a_build_cancelled_while_it_is_pushed_moves_no_tag(world: World) -> None:
    build = assembled(world)
    push = claim(world)
    cancel(world.database, world.signals, build, by="me")
    world.publisher.push(push, ignore)
    assert hub(world).moves == []
    assert set(tag_states(world, build).values()) == {PublicationState.FAILED}
    assert {row.reason for row in world.publications(build) if row.registry_name == "static"} == {Reason.CANCELLED}
    assert world.publish() == 0


def test_a_name_belongs_to_the_repo_that_published_it_first(database: Database, tmp_path: Path) -> None:
    world = one_registry(database, tmp_path, {"names": ["shared"]})
    assembled(world, "first")
    world.publish()
    blobs = len(hub(world).blobs)
    world.repo("thief")
    build = world.build("thief", ref="refs/heads/another")
    world.built([package("docker")], {"docker": image("second")})
    world.finish()
    assert world.state(build) is BuildState.FAILED
    assert "shared on hub belongs to another repo" in world.of(build).message
    assert len(hub(world).blobs) == blobs, "nothing was written under a name of somebody else"


def test_a_foreign_name_is_seen_at_the_last_moment_too(database: Database, tmp_path: Path) -> None:
    world = one_registry(database, tmp_path, {"names": ["shared"]})
    build = assembled(world)
    stranger = world.repo("stranger")

    def meanwhile(name: str, _image: str, what: str) -> None:
        if name == "hold":
            with database.write() as session:
                key = {"registry_name": "hub", "name": "shared", "tag": "other", "repo_id": stranger}
                session.add(TagHead(**key, ref="r", sequence=1, digest=digest_of(b""), updated_at=now()))

    hub(world).before = meanwhile
    world.publish()
    assert hub(world).moves == []
    assert "belongs to another repo" in world.of(build).message


def test_private_repos_stay_away_from_public_registries(database: Database, tmp_path: Path) -> None:
    world = one_registry(database, tmp_path)
    world.repo("hello", private=True)
    build = assembled(world)
    assert world.publications(build) == []
    assert world.state(build) is BuildState.SUCCEEDED, "there is nothing to wait for"


def test_strangers_publish_nothing(world: World) -> None:
    build = assembled(world, trusted=False)
    assert world.publications(build) == []
    assert world.state(build) is BuildState.SUCCEEDED


def test_a_merge_result_publishes_nothing_even_where_every_ref_may(database: Database, tmp_path: Path) -> None:
    world = one_registry(database, tmp_path)
    build = built(world)
    with database.write() as session:
        merged = {"merge_into": "refs/heads/main", "base_commit": "b" * 40}
        session.execute(update(Build).where(Build.id == build).values(merged))
    world.finish()
    assert world.publications(build) == []
    with database.read() as session:
        assert session.scalars(select(Image.build_id)).all() == [build]
        assert session.scalars(select(ImageProof)).all() == []
    assert world.state(build) is BuildState.SUCCEEDED


def test_a_tag_that_is_being_pushed_is_waited_for(world: World) -> None:
    first, second = assembled(world, "first"), assembled(world, "second")
    pushes = [claim(world) for _ in range(4)]
    tags = {(push.first.image.build_id, push.first.registry_name): len(push.publications) for push in pushes}
    assert tags == {(first, "hub"): 3, (first, "static"): 3, (second, "hub"): 1, (second, "static"): 1}
    assert world.publisher.claim() is None
    for push in pushes:
        world.publisher.push(push, ignore)
    world.publish()
    assert hub(world).tag("hello", "main") == digest_of_build(world, second)


def test_two_servers_that_choose_one_tag_at_once_are_told_apart_by_the_index(postgres_url: str, tmp_path: Path) -> None:
    """Neither sees the other's claim before it commits; SQLite, with one writer at a time, cannot come to this."""
    database = connect(postgres_url)
    Base.metadata.create_all(database.engine)
    world = one_registry(database, tmp_path)
    assembled(world, "first")
    assembled(world, "second")
    with ThreadPoolExecutor(1) as pool:
        with database.write() as session:
            assert len(claim_publications(session, "server-a", LEASE)) == 3
            session.flush()
            late = pool.submit(world.publisher_of("server-b").claim)
            while not late.done() and not _somebody_waits(database):
                time.sleep(0.01)
        assert late.result(60) is None
    push = world.publisher.claim()
    assert push is not None
    assert [row.tag for row in push.publications] == [world.of(push.first.image.build_id).commit]
    database.dispose()


def _somebody_waits(database: Database) -> bool:
    with database.read() as session:
        return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))


def test_the_gate_never_asks_while_the_registry_is_called(world: World) -> None:
    """A transaction held over a call to a registry would hold up every writer of SQLite."""
    assembled(world)

    def write(*_: str) -> None:
        with world.database.write() as session:
            session.execute(update(Build).values(author="somebody"))

    hub(world).before = write
    world.publish()
    assert len(hub(world).moves) == 3


def test_forbidden_is_no_passing_fault() -> None:
    assert not issubclass(ForbiddenError, RegistryUnavailableError | StoreError | DatabaseUnavailableError)
