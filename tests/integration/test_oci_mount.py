"""Blobs that a real registry has under another name, and what a Repo's images share."""

import io
from pathlib import Path

import pytest

from albatros.db.session import Database
from albatros.domain.references import Blob, RegistryUrl, digest_of
from albatros.images.assemble import AssembleOptions, assemble
from albatros.images.base import NullLayerCache
from albatros.images.publish import BlobMounted, PublishEvent, publish
from albatros.images.verify import read_published, verify_platform
from albatros.registries.opening import open_registry
from tests.services.registry import RegistryServer
from tests.support.archives import elf, source
from tests.support.flows import World, package, settings_of
from tests.support.memory_registry import MemoryRegistry
from tests.support.pushing import image
from tests.support.stores import MemoryStore
from tests.tools import needs

DATA = b"bytes of a layer" * 4096
BLOB = Blob(digest_of(DATA), len(DATA))


@needs("docker-registry")
def test_a_blob_of_another_name_is_taken_from_there(registry_server: RegistryServer) -> None:
    registry = open_registry(RegistryUrl.parse(f"{registry_server.url}/mounts"))
    assert registry.put_blob("base", BLOB, lambda: io.BytesIO(DATA)) is True

    def closed() -> io.BytesIO:
        pytest.fail("its bytes were read")

    assert registry.put_blob("other", BLOB, closed, ["base"]) is False
    assert registry.blob_size("other", BLOB.digest) == BLOB.size
    unknown = Blob(digest_of(b"x"), 1)
    assert registry.put_blob("other", unknown, lambda: io.BytesIO(b"x"), ["base", "nowhere"]) is True
    registry.close()


@needs("docker-registry")
def test_an_image_under_a_second_name_sends_nothing(registry_server: RegistryServer) -> None:
    registry = open_registry(RegistryUrl.parse(f"{registry_server.url}/twice"))
    store = MemoryStore()
    made = assemble([source(elf())], store, NullLayerCache(), AssembleOptions())
    publish(made, store, registry, "one", ["v1"])
    events: list[PublishEvent] = []
    report = publish(made, store, registry, "two", ["v1"], mount_from=["one", "two"], observe=events.append)
    assert (report.bytes_sent, report.bytes_skipped) == (0, sum(blob.size for blob in made.content_blobs()))
    assert {event.blob for event in events if isinstance(event, BlobMounted)} == set(made.content_blobs())
    assert read_published(registry, "two", "v1") == made
    verify_platform(registry, "two", made.manifests[0])
    registry.close()


def test_the_server_mounts_between_the_names_of_one_repo(database: Database, tmp_path: Path) -> None:
    world = World(database, settings_of(tmp_path))
    registry = world.registries["hub"]
    assert isinstance(registry, MemoryRegistry)
    first = world.build()
    world.built([package("docker"), package("tools")], {"docker": image("same"), "tools": image("same", author="x")})
    assert world.assemble()
    world.publish()
    firsts = [row for row in world.publications(first) if row.registry_name == "hub" and row.bytes_sent > 0]
    assert len({row.name for row in firsts}) == len(firsts) == 2
    assert sorted(row.bytes_skipped > 0 for row in firsts) == [False, True]
