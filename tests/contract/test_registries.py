"""What every registry promises: a directory, Garage, docker-registry, Gitea, and the two fakes of other tests."""

import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from albatros.domain import media
from albatros.domain.references import Blob, RegistryUrl, digest_of
from albatros.domain.referrers import describe, read_index
from albatros.errors import NotFoundError, RegistryError
from albatros.images.assemble import AssembleOptions, assemble
from albatros.images.base import NullLayerCache
from albatros.images.model import Image
from albatros.images.publish import IndexPut, PublishEvent, TagMoved, dry_run, publish
from albatros.images.verify import read_published, verify_platform
from albatros.registries.base import Credentials, Manifest, Registry
from albatros.registries.opening import open_registry
from tests.services.garage import BUCKET, GarageServer
from tests.services.gitea_server import ADMIN, GiteaServer
from tests.services.registry import RegistryServer
from tests.support.archives import Archive, elf, layer, source
from tests.support.faulty_registry import faulty_registry
from tests.support.memory_registry import MemoryRegistry
from tests.support.stores import MemoryStore

NAME = "alba/hello"
DATA = b"some bytes of a layer" * 5000
BLOB = Blob(digest_of(DATA), len(DATA))


@pytest.fixture(params=["dir", "garage", "docker-registry", "gitea", "http-fake", "fake"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    if request.param == "docker-registry":
        server: RegistryServer = request.getfixturevalue("registry_server")
        yield from opened(f"{server.url}/prefix")
    elif request.param == "dir":
        yield from opened(f"dir:{tmp_path / 'registry'}")
    elif request.param == "garage":
        garage: GarageServer = request.getfixturevalue("garage")
        yield from opened(garage.url_of(f"{BUCKET}/{uuid.uuid4()}"), garage.credentials)
    elif request.param == "gitea":
        gitea: GiteaServer = request.getfixturevalue("gitea")
        login = Credentials(ADMIN, gitea.token, "the fixture")
        yield from opened(f"docker://{gitea.host}/{ADMIN}/{uuid.uuid4()}", login)
    elif request.param == "http-fake":
        with faulty_registry() as memory:
            yield from opened(memory.url)
    else:
        yield MemoryRegistry()


def opened(url: str, credentials: Credentials | None = None) -> Iterator[Registry]:
    found = open_registry(RegistryUrl.parse(url), credentials)
    yield found
    found.close()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def make(store: MemoryStore, text: bytes = b"hello") -> Image:
    archive = Archive([layer(hello=text * 3000)], {"architecture": "arm", "os": "linux"})
    sources = [source(elf("amd64", payload=text)), source(archive.tar()), source(elf("arm64", payload=text))]
    return assemble(sources, store, NullLayerCache(), AssembleOptions())


def put(registry: Registry, data: bytes, blob: Blob, store: MemoryStore) -> None:
    kept = store.put((data,))
    registry.put_blob(NAME, blob, lambda: store.open(kept.digest))


def test_a_blob_is_there_once_it_was_put(registry: Registry, store: MemoryStore) -> None:
    assert registry.blob_size(NAME, BLOB.digest) is None
    with pytest.raises(NotFoundError), registry.open_blob(NAME, BLOB):
        pass
    for _ in range(2):
        put(registry, DATA, BLOB, store)
    assert registry.blob_size(NAME, BLOB.digest) == len(DATA)
    with registry.open_blob(NAME, BLOB) as stream:
        assert stream.read() == DATA


def test_an_empty_blob(registry: Registry, store: MemoryStore) -> None:
    empty = Blob(digest_of(b""), 0)
    put(registry, b"", empty, store)
    with registry.open_blob(NAME, empty) as stream:
        assert stream.read() == b""


def test_other_bytes_than_the_digests_are_refused(registry: Registry, store: MemoryStore) -> None:
    with pytest.raises(RegistryError):
        put(registry, b"x" + DATA[1:], BLOB, store)
    assert registry.blob_size(NAME, BLOB.digest) is None


def test_a_manifest_keeps_its_bytes_and_type(registry: Registry, store: MemoryStore) -> None:
    image = make(store)
    assert registry.get_manifest(NAME, image.digest) is None
    assert registry.get_manifest(NAME, "latest") is None
    publish(image, store, registry, NAME, ["latest"])
    index = Manifest(media.INDEX, image.index_bytes)
    assert registry.get_manifest(NAME, "latest") == registry.get_manifest(NAME, image.digest) == index
    for manifest in image.manifests:
        found = registry.get_manifest(NAME, manifest.descriptor.digest)
        assert found == Manifest(media.MANIFEST, manifest.manifest_bytes)


def test_tags_are_listed(registry: Registry, store: MemoryStore) -> None:
    assert registry.list_tags(NAME) == []
    publish(make(store), store, registry, NAME, ["v2", "latest", "v1", "v1"])
    assert registry.list_tags(NAME) == ["latest", "v1", "v2"]
    assert registry.list_tags("alba/other") == []


def test_what_was_published_is_whole_when_it_is_read_back(registry: Registry, store: MemoryStore) -> None:
    image = make(store)
    report = publish(image, store, registry, NAME, ["v1"])
    assert (report.digest, report.tags_moved) == (image.digest, ("v1",))
    assert (report.bytes_sent, report.bytes_skipped) == (sum(blob.size for blob in image.content_blobs()), 0)
    found = read_published(registry, NAME, "v1")
    assert found == image
    for manifest in found.manifests:
        assert verify_platform(registry, NAME, manifest).platform == manifest.platform


def test_a_second_push_sends_no_blob(registry: Registry, store: MemoryStore) -> None:
    image = make(store)
    first = publish(image, store, registry, NAME, ["v1"])
    assert dry_run(image, registry, NAME).bytes_to_send == 0
    again = publish(image, store, registry, NAME, ["v1", "v2"])
    assert (again.bytes_sent, again.bytes_skipped) == (0, first.bytes_sent)
    assert registry.list_tags(NAME) == ["v1", "v2"]


def test_a_dry_run_changes_nothing(registry: Registry, store: MemoryStore) -> None:
    image = make(store)
    assert dry_run(image, registry, NAME).bytes_to_send == sum(blob.size for blob in image.content_blobs())
    assert registry.list_tags(NAME) == []
    assert all(registry.blob_size(NAME, blob.digest) is None for blob in image.content_blobs())


def test_a_gate_keeps_a_tag_where_it_is(registry: Registry, store: MemoryStore) -> None:
    old, new = make(store), make(store, b"newer")
    publish(old, store, registry, NAME, ["latest"])
    report = publish(new, store, registry, NAME, ["latest", "v2"], gate=lambda tag: tag != "latest")
    assert (report.tags_moved, report.tags_superseded) == (("v2",), ("latest",))
    assert read_published(registry, NAME, "latest") == old
    assert read_published(registry, NAME, new.digest) == new


def test_without_tags_an_image_is_there_by_digest(registry: Registry, store: MemoryStore) -> None:
    image = make(store)
    publish(image, store, registry, NAME, [])
    assert read_published(registry, NAME, image.digest) == image
    assert registry.list_tags(NAME) == []


class KilledError(Exception):
    """Stands for the end of the process."""


def test_killed_after_any_event_the_old_tag_is_whole_and_the_next_run_finishes(
    registry: Registry, store: MemoryStore
) -> None:
    old, new = make(store), make(store, b"newer")
    publish(old, store, registry, NAME, ["latest"])
    events: list[PublishEvent] = []
    publish(new, store, registry, "alba/elsewhere", ["latest"], observe=events.append)
    assert isinstance(events[-1], TagMoved)
    assert isinstance(events[-2], IndexPut)
    for survived in range(len(events) - 1):
        left = survived

        def kill(_event: PublishEvent) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KilledError

        with pytest.raises(KilledError):
            publish(new, store, registry, NAME, ["latest"], observe=kill)
        found = read_published(registry, NAME, "latest")
        assert found == old
        for manifest in found.manifests:
            verify_platform(registry, NAME, manifest)
    publish(new, store, registry, NAME, ["latest"])
    assert read_published(registry, NAME, "latest") == new


def test_two_pushers_lose_no_tag(registry: Registry, store: MemoryStore) -> None:
    images = [make(store, b"%d" % n) for n in range(4)]
    start = threading.Barrier(4, timeout=60)

    def push(number: int) -> None:
        start.wait()
        for round_ in range(3):
            publish(images[number], store, registry, NAME, [f"tag-{number}-{round_}"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(push, range(4)))
    assert registry.list_tags(NAME) == [f"tag-{n}-{r}" for n in range(4) for r in range(3)]
    for number, image in enumerate(images):
        assert read_published(registry, NAME, f"tag-{number}-2") == image


def test_the_address_is_what_people_paste(registry: Registry) -> None:
    assert "@" not in registry.address
    assert not registry.address.endswith("/")


def test_a_referrer_is_listed_unless_the_registry_says_that_it_does_not(registry: Registry, store: MemoryStore) -> None:
    image = make(store)
    publish(image, store, registry, NAME, ["v1"])
    put(registry, b"{}", Blob(digest_of(b"{}"), 2), store)
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2}
    for number in "12":
        value = {
            "schemaVersion": 2,
            "mediaType": media.MANIFEST,
            "artifactType": "application/vnd.example.proof",
            "config": empty,
            "layers": [empty],
            "subject": image.descriptor.as_json(),
            "annotations": {"number": number},
        }
        manifest = Manifest(media.MANIFEST, json.dumps(value).encode())
        listed = registry.put_manifest(NAME, digest_of(manifest.data), manifest)
        found = registry.get_referrers(NAME, image.digest)
        assert (found is not None) == listed
        if found is not None:
            assert describe(manifest.media_type, manifest.data) in read_index(found.data)
            assert len(read_index(found.data)) == int(number)
