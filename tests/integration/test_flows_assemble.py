"""Images from what Jobs built, on both databases."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from sqlalchemy import select, update

from albatros.db.models import Build, CachedLayer, ImageBlob, ReadSource, RepoBlob
from albatros.db.session import Database
from albatros.domain.references import Digest, RegistryUrl, digest_of
from albatros.domain.states import BuildState, Reason
from albatros.flows.cancel import cancel
from albatros.images.model import parse_json_object
from albatros.images.verify import read_published, verify_platform
from albatros.registries.opening import open_registry
from albatros.store.files import FileStore
from tests.support.archives import Archive, elf, gzipped, layer
from tests.support.clock import stopped_clock
from tests.support.flows import MAIN, World, broken, package, settings_of
from tests.support.pushing import (
    assembled,
    built,
    digest_of_build,
    hub,
    image,
)
from tests.support.stores import MemoryStore


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands still, so that nothing is due before a test says so."""
    stopped_clock(monkeypatch)


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, settings_of(tmp_path))


def test_an_image_on_files_is_whole_at_a_static_registry(database: Database, tmp_path: Path) -> None:
    url = f"dir:{tmp_path / 'registry'}"
    settings = settings_of(tmp_path, registries=[{"name": "static", "url": url}])
    registry = open_registry(RegistryUrl.parse(url))
    world = World(database, settings, store=FileStore(tmp_path / "blobs"), registries={"static": registry})
    build = world.build()
    attributes = [
        package("amd64", attribute="docker"),
        package("arm64", attribute="docker", system="aarch64-linux"),
        package("arm", attribute="docker", system="armv6l-linux"),
    ]
    files = {
        "amd64": image("amd64"),
        "arm64": Archive([layer(a=b"arm64")], {"architecture": "arm64", "os": "linux"}).tar(),
        "arm": image("arm", architecture="arm"),
    }
    world.built(attributes, files)
    world.finish()
    assert world.state(build) is BuildState.SUCCEEDED
    found = read_published(registry, "alba/hello", "latest")
    assert [str(platform) for platform in found.platforms] == ["linux/amd64", "linux/arm/v6", "linux/arm64/v8"]
    assert found.digest == digest_of_build(world, build)
    for manifest in found.manifests:
        verify_platform(registry, "alba/hello", manifest)
    assert registry.list_tags("alba/hello") == sorted(["latest", "main", world.of(build).commit])


def test_blobs_of_an_image_are_rows_that_keep_them(world: World) -> None:
    build = assembled(world)
    with world.database.read() as session:
        kept = set(session.scalars(select(ImageBlob.digest)))
        assert kept <= set(session.scalars(select(RepoBlob.digest)))
    assert digest_of_build(world, build) in kept
    assert len(kept) == 4, "a layer, a config, a manifest, an index"


def test_the_same_outputs_give_the_same_image_and_are_sent_once(world: World) -> None:
    first = built(world)
    world.finish()
    again = world.build()
    with world.database.write() as session:
        session.execute(update(Build).where(Build.id == again).values(commit=world.of(first).commit))
    world.built([package("docker")], {"docker": image()})
    world.finish()
    assert digest_of_build(world, first) == digest_of_build(world, again)
    rows = world.publications(again)
    assert {row.bytes_sent for row in rows} == {0}
    assert rows[0].bytes_skipped > 0


@pytest.mark.parametrize(("ref", "version"), [(MAIN, None), ("refs/tags/v1.2.3", "v1.2.3")])
def test_index_and_manifests_say_what_they_were_built_from(
    database: Database, tmp_path: Path, ref: str, version: str | None
) -> None:
    forge = {
        "name": "home",
        "kind": "gitea",
        "url": "https://git.example.org",
        "token": "t",
        "webhook_secret": "not-a-secret",
    }
    world = World(database, settings_of(tmp_path, forges=[forge]))
    build = world.build(ref=ref)
    world.built([package("docker")], {"docker": image()})
    assert world.assemble()
    world.publish()
    found = read_published(hub(world), "hello", world.of(build).commit)
    expected = {
        "source": f"https://git.example.org/{world.of(build).repo.full_name}",
        "revision": world.of(build).commit,
        "created": datetime.fromtimestamp(world.of(build).commit_time or 0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    } | ({"version": version} if version else {})
    for data in (found.index_bytes, *(manifest.manifest_bytes for manifest in found.manifests)):
        said = {f"org.opencontainers.image.{key}": value for key, value in expected.items()}
        assert parse_json_object(data, "it")["annotations"] == said


@dataclass
class ReadingStore(MemoryStore):
    """Knows which blobs were read."""

    read: set[Digest] = field(default_factory=set)

    def open(self, digest: Digest) -> BinaryIO:
        self.read.add(digest)
        return super().open(digest)


def test_an_output_that_did_not_change_is_not_read_again(database: Database, tmp_path: Path) -> None:
    world = World(database, settings_of(tmp_path), store=(store := ReadingStore()))
    config = '[images.hello]\noutput = "docker"'
    attributes = [package("docker"), package("arm", attribute="docker", system="aarch64-linux")]
    same, arm = image(), Archive([layer(a=b"arm64")], {"architecture": "arm64", "os": "linux"}).tar()
    first = world.build()
    world.built(attributes, {"docker": same, "arm": arm}, config=config)
    world.finish()
    assert {digest_of(same), digest_of(arm)} <= store.read
    store.read.clear()
    again = world.build()
    changed = Archive([layer(a=b"changed")], {"architecture": "arm64", "os": "linux"}).tar()
    world.built(attributes, {"docker": same, "arm": changed}, config=config)
    world.finish()
    assert digest_of(changed) in store.read
    assert digest_of(same) not in store.read
    for build in (first, again):
        assert world.state(build) is BuildState.SUCCEEDED
    published = read_published(hub(world), "hello", "latest")
    for manifest in published.manifests:
        verify_platform(hub(world), "hello", manifest)


@pytest.mark.parametrize("trusted", [True, False])
def test_a_strangers_build_adds_nothing_to_what_the_repo_remembers(world: World, trusted: bool) -> None:
    assembled(world, trusted=trusted)
    with world.database.read() as session:
        rows = [*session.scalars(select(CachedLayer)), *session.scalars(select(ReadSource))]
    assert bool(rows) == trusted


@pytest.mark.parametrize(
    ("attributes", "files", "config", "says"),
    [
        (
            [package("one", attribute="docker"), package("two", attribute="docker", system="aarch64-linux")],
            {"one": image("a"), "two": image("b")},
            None,
            "packages.aarch64-linux.docker and packages.x86_64-linux.docker are both for linux/amd64",
        ),
        (
            [package("hello")],
            {"hello": elf("arm64")},
            '[images.hello]\nbinary = "bin/hello"',
            "packages.x86_64-linux.hello: it is a binary for arm64, not for linux/amd64",
        ),
        (
            [package("hello")],
            {"hello": elf("amd64", interpreter=True)},
            '[images.hello]\nbinary = "bin/hello"',
            "packages.x86_64-linux.hello: it asks for an interpreter",
        ),
        (
            [package("hello")],
            {"hello": b"#!/bin/sh\n"},
            "[images.hello]",
            "packages.x86_64-linux.hello: ",
        ),
        (
            [package("hello")],
            {"hello": image()},
            '[images.hello]\nplatforms = ["amd64", "arm64"]',
            "image hello has no linux/arm64/v8, which .albatros.toml asks for",
        ),
        (
            [package("hello")],
            {"hello": image()},
            '[images.web]\noutput = "server"',
            "image web: the flake has no packages.<system>.server; check [images.web] output",
        ),
        (
            [package("hello")],
            {"hello": image()},
            '[images.a]\noutput = "hello"\n[images.b]\noutput = "hello"',
            "images a and b would both be hello on hub",
        ),
        (
            [package("a_b"), package("a-b")],
            {"a_b": image("1"), "a-b": image("2")},
            None,
            "would both be the image a-b",
        ),
        (
            [package("docker")],
            {"docker": gzipped(Archive([layer(hello=random.Random(1).randbytes(50_000))]).tar())[:40_000]},
            None,
            "packages.x86_64-linux.docker: ",
        ),
    ],
    ids=[
        "two of a platform",
        "wrong machine",
        "dynamic",
        "script",
        "missing platform",
        "no output",
        "one name",
        "one image",
        "cut",
    ],
)
def test_outputs_that_are_no_image_fail_with_a_sentence(
    world: World, attributes: list[dict[str, object]], files: dict[str, bytes], config: str | None, says: str
) -> None:
    build = world.build()
    world.built(attributes, files, config)
    world.finish()
    ended = world.of(build)
    assert (ended.state, ended.reason) == (BuildState.FAILED, Reason.BUILD_FAILED)
    assert says in ended.message
    assert world.publications(build) == []


def test_a_directory_is_no_image(world: World) -> None:
    build = world.build()
    world.evaluate([package("hello")], "[images.hello]")
    runner = world.dispatch_one()
    runner.claim()
    runner.built(Archive([]).tar(), kind="directory-tar")
    world.finish()
    assert "packages.x86_64-linux.hello is a directory, not an image archive" in world.of(build).message


def test_nothing_is_published_unless_every_job_succeeded(world: World) -> None:
    build = world.build()
    world.built([package("docker"), broken("other", "no")], {"docker": image()})
    world.finish()
    assert world.state(build) is BuildState.FAILED
    assert hub(world).manifests == {}


def test_a_full_store_postpones_and_says_so(world: World) -> None:
    store = cast("MemoryStore", world.store)
    build = built(world)
    store.capacity = store.used()
    assert world.assemble()
    waiting = world.of(build)
    assert (waiting.state, waiting.holder) == (BuildState.PUBLISHING, None)
    assert (
        waiting.message == "waiting to assemble its images: packages.x86_64-linux.docker: the store in memory is full"
    )
    assert not world.assemble(), "not before its time"
    store.capacity = 1 << 30
    world.make_due()
    assert world.assemble()
    assert world.of(build).message == ""
    world.finish()
    assert world.state(build) is BuildState.SUCCEEDED


def test_bytes_that_are_gone_end_the_build(world: World) -> None:
    build = built(world)
    cast("MemoryStore", world.store).blobs.clear()
    assert world.assemble()
    ended = world.of(build)
    assert (ended.state, ended.reason) == (BuildState.FAILED, Reason.PUBLICATION_FAILED)
    assert "its images cannot be assembled: " in ended.message


def test_a_build_cancelled_while_it_is_assembled_publishes_nothing(world: World) -> None:
    build = built(world)
    claimed = world.assembler.claim()
    assert claimed is not None
    cancel(world.database, world.signals, build, by="me")
    world.assembler.assemble(claimed)
    assert world.publications(build) == []
    assert world.state(build) is BuildState.CANCELLED


def test_who_lost_the_lease_of_a_build_writes_nothing(world: World) -> None:
    build = built(world)
    slow = world.assembler.claim()
    assert slow is not None
    assert world.assembler.renew(slow)
    world.lapse()
    world.start_again()
    quick = world.assembler.claim()
    assert quick is not None
    assert not world.assembler.renew(slow)
    world.assembler.assemble(slow)
    assert world.publications(build) == []
    world.assembler.assemble(quick)
    assert len(world.publications(build)) == 6
    world.assembler.assemble(slow)
    assert len(world.publications(build)) == 6
