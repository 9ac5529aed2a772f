"""Builds whose image is to be assembled or pushed, and registries that misbehave."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

from sqlalchemy import select

from albatros.db.models import Image
from albatros.db.session import Database
from albatros.domain.states import PublicationState
from albatros.flows.publish import Push
from tests.support.archives import Archive, gzipped, layer
from tests.support.flows import MAIN, World, package, settings_of
from tests.support.memory_registry import MemoryRegistry


def one_registry(database: Database, data: Path, registry: dict[str, object] | None = None, **limits: int) -> World:
    changes = {"name": "hub", "url": "docker://hub.example.org", "names": ["{repo}"]} | (registry or {})
    return World(database, settings_of(data, registries=[changes], limits=limits))


def image(text: str = "hello", **config: object) -> bytes:
    return gzipped(
        Archive([layer(hello=text.encode() * 1000)], {"architecture": "amd64", "os": "linux", **config}).tar()
    )


def built(
    world: World, text: str = "hello", *, ref: str = MAIN, sequence: int = 0, trusted: bool = True, flavor: str = ""
) -> int:
    """A Build whose one image is to be assembled."""
    build_id = world.build(ref=ref, sequence=sequence, trusted=trusted, flavor=flavor)
    world.built([package("docker")], {"docker": image(text)})
    return build_id


def assembled(world: World, text: str = "hello", *, ref: str = MAIN, trusted: bool = True, flavor: str = "") -> int:
    """A Build whose image is to be pushed."""
    build_id = built(world, text, ref=ref, trusted=trusted, flavor=flavor)
    assert world.assemble()
    return build_id


def hub(world: World) -> MemoryRegistry:
    return cast("MemoryRegistry", world.registries["hub"])


def digest_of_build(world: World, build: int) -> str:
    with world.database.read() as session:
        return session.scalars(select(Image.digest).where(Image.build_id == build)).one()


def tag_states(world: World, build: int, registry: str = "hub") -> dict[str, PublicationState]:
    """States by tag, the commit's under `commit`."""
    commit = world.of(build).commit
    rows = [row for row in world.publications(build) if row.registry_name == registry]
    return {"commit" if row.tag == commit else row.tag: row.state for row in rows}


def claim(world: World) -> Push:
    push = world.publisher.claim()
    assert push is not None
    return push


def failing(error: Exception, call: str = "put_manifest", what: str = "") -> Callable[[str, str, str], None]:
    def before(name: str, _image: str, reference: str) -> None:
        if name == call and what in reference:
            raise error

    return before
