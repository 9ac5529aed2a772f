"""A Build from its row to its tags, step by step, on both databases."""

from pathlib import Path

import pytest

from albatros.db.session import Database
from albatros.domain.states import BuildState, JobState, PublicationState
from tests.support.archives import Archive, elf, gzipped, layer
from tests.support.flows import World, package, settings_of
from tests.support.memory_registry import MemoryRegistry

ARCHIVE = gzipped(Archive([layer(hello=b"hello" * 1000)]).tar())


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, settings_of(tmp_path))


def test_a_build_without_images_succeeds_when_its_jobs_did(world: World) -> None:
    build = world.build()
    world.built([package("hello")], {"hello": b"just a file"})
    assert world.state(build) is BuildState.PUBLISHING, "only its bytes say that it is no image"
    world.finish()
    assert world.state(build) is BuildState.SUCCEEDED
    assert world.publications(build) == []
    assert [artifact.size for artifact in world.artifacts(build)] == [11]


def test_an_archive_becomes_an_image_at_every_registry(world: World) -> None:
    build = world.build()
    world.built([package("docker")], {"docker": ARCHIVE})
    assert world.state(build) is BuildState.PUBLISHING
    world.finish()
    assert world.state(build) is BuildState.SUCCEEDED
    rows = world.publications(build)
    commit = world.of(build).commit
    assert {(row.registry_name, row.name, row.tag) for row in rows} == {
        (registry, "hello", tag) for registry in ("hub", "static") for tag in (commit, "main", "latest")
    }
    assert {row.state for row in rows} == {PublicationState.PUBLISHED}
    for name in ("hub", "static"):
        registry = world.registries[name]
        assert isinstance(registry, MemoryRegistry)
        assert {registry.tag("hello", tag) for tag in (commit, "main", "latest")} == {rows[0].image.digest}


def test_binaries_become_an_image_of_their_platforms(world: World) -> None:
    config = '[images.hello]\nbinary = "bin/hello"\nplatforms = ["amd64", "arm/v6"]\n'
    files = {"hello-amd64": elf("amd64"), "hello-arm": elf("arm")}
    attributes = [
        package("hello-amd64", attribute="hello"),
        package("hello-arm", attribute="hello", system="armv6l-linux"),
    ]
    build = world.build()
    world.built(attributes, files, config)
    world.finish()
    assert world.of(build).message == ""
    assert world.state(build) is BuildState.SUCCEEDED
    assert world.publications(build)[0].image.platforms == ["linux/amd64", "linux/arm/v6"]


def test_every_move_is_an_event(world: World) -> None:
    build = world.build()
    world.built([package("hello", "lib"), package("lib")], {"hello": ARCHIVE, "lib": b""})
    world.finish()
    assert world.job_states(build) == dict.fromkeys(("evaluation", "hello", "lib"), JobState.SUCCEEDED)
    kinds = world.events(build)
    states = ["build.queued", "build.evaluating", "build.running", "build.publishing", "build.succeeded"]
    assert [kind for kind in kinds if kind.startswith("build.")] == states
    assert kinds.count("job.running") == kinds.count("job.succeeded") == 3
    assert kinds.count("job.queued") == 1, "what waited was released"
    assert kinds.count("publication.pushing") == kinds.count("publication.published") == 6
