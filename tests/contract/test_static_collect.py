"""Taking away from a static registry, in a directory and on Garage: beside pushes, beside others, killed anywhere."""

import io
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest

from albatros.domain import media
from albatros.domain.references import Blob, digest_of
from albatros.domain.s3 import S3Location
from albatros.errors import RegistryError, RegistryUnavailableError
from albatros.images.model import Image
from albatros.images.publish import publish
from albatros.images.verify import read_published, verify_platform
from albatros.registries import collect as collecting
from albatros.registries import layout, leases, static
from albatros.registries.aws import S3Keys
from albatros.registries.base import BlobOpener, Manifest
from albatros.registries.collect import collect
from albatros.registries.layout import Headers
from albatros.registries.objects import DirectoryObjects, ObjectStore, StoredObject
from albatros.registries.objects_s3 import S3Objects
from albatros.registries.static import StaticRegistry
from tests.services.garage import BUCKET, GarageServer
from tests.support.images import make_image
from tests.support.stores import MemoryStore

NAME, OTHER = "alba/hello", "alba/hello/other"
NOTHING = timedelta()
JOIN_SECONDS = 60


class KilledError(Exception):
    """Stands for the end of the process."""


class Watched:
    """A store that calls `before(operation, key)` first."""

    def __init__(self, objects: ObjectStore, before: Callable[[str, str], None]) -> None:
        self._objects = objects
        self._before = before

    def find(self, key: str) -> StoredObject | None:
        self._before("find", key)
        return self._objects.find(key)

    def put(self, key: str, body: BlobOpener, headers: Headers) -> None:
        self._before("put", key)
        self._objects.put(key, body, headers)

    def open(self, key: str) -> BinaryIO:
        self._before("open", key)
        return self._objects.open(key)

    def names(self, prefix: str) -> list[str]:
        self._before("names", prefix)
        return self._objects.names(prefix)

    def walk(self, prefix: str) -> Iterator[StoredObject]:
        self._before("walk", prefix)
        return self._objects.walk(prefix)

    def touch(self, key: str) -> bool:
        self._before("touch", key)
        return self._objects.touch(key)

    def delete(self, key: str) -> None:
        self._before("delete", key)
        self._objects.delete(key)


@pytest.fixture(params=["dir", "garage"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "dir":
        return DirectoryObjects(tmp_path / "registry")
    garage: GarageServer = request.getfixturevalue("garage")
    place = garage.url_of(f"{BUCKET}/{uuid.uuid4()}")
    return S3Objects(S3Location.parse(place), S3Keys.of(garage.credentials))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def old(store: MemoryStore) -> Image:
    return make_image(store, b"old")


@pytest.fixture
def new(store: MemoryStore) -> Image:
    return make_image(store, b"new")


@pytest.fixture
def replaced(objects: ObjectStore, store: MemoryStore, old: Image, new: Image) -> ObjectStore:
    """A registry whose `latest` was moved from one image to another, and that has the first under another name too."""
    push(objects, store, old, "latest")
    push(objects, store, old, "latest", OTHER)
    push(objects, store, new, "latest")
    return objects


def push(objects: ObjectStore, store: MemoryStore, image: Image, tag: str, name: str = NAME) -> None:
    publish(image, store, StaticRegistry(objects, "static"), name, [tag])


def whole(objects: ObjectStore, image: Image, tag: str = "latest", name: str = NAME) -> None:
    registry = StaticRegistry(objects, "static")
    assert read_published(registry, name, tag) == image
    for manifest in image.manifests:
        verify_platform(registry, name, manifest)


def keys(objects: ObjectStore) -> set[str]:
    return {item.key for item in objects.walk("v2/")}


def no_pause(_seconds: float) -> None:
    """Does not wait."""


def old_keys(old: Image, new: Image) -> set[str]:
    kept = {blob.digest for blob in new.all_blobs()}
    gone = [blob.digest for blob in old.all_blobs() if blob.digest not in kept]
    manifests = [manifest.descriptor.digest for manifest in old.manifests] + [old.digest]
    found = {layout.blob_key(NAME, digest) for digest in gone}
    for digest in manifests:
        found |= {layout.manifest_key(NAME, digest), layout.referrers_key(NAME, digest)}
    return found


def test_what_no_tag_needs_goes_and_nothing_else(replaced: ObjectStore, old: Image, new: Image) -> None:
    before = keys(replaced)
    report = collect(replaced, grace=NOTHING, sleep=no_pause)
    assert {item.key for item in report.deleted} == before - keys(replaced) == old_keys(old, new)
    assert report.size > sum(blob.size for blob in old.content_blobs()) - sum(b.size for b in new.content_blobs())
    assert report.left == 0
    whole(replaced, new)
    whole(replaced, old, name=OTHER)
    assert collect(replaced, grace=NOTHING, sleep=no_pause).deleted == ()
    assert replaced.names(layout.TOMBSTONES) == replaced.names(layout.LEASES) == []


def test_manifests_go_before_blobs(replaced: ObjectStore) -> None:
    kinds = [item.key.split("/")[-2] for item in collect(replaced, grace=NOTHING, sleep=no_pause).deleted]
    assert kinds == sorted(kinds, key=["manifests", "referrers", "blobs"].index)
    assert set(kinds) == {"manifests", "referrers", "blobs"}


def test_a_dry_run_writes_nothing(replaced: ObjectStore, old: Image, new: Image) -> None:
    def refuse(operation: str, key: str) -> None:
        assert operation not in ("put", "delete", "touch"), key

    report = collect(Watched(replaced, refuse), grace=NOTHING, dry_run=True)
    assert {item.key for item in report.deleted} == old_keys(old, new)


def test_what_is_younger_than_the_grace_stays(replaced: ObjectStore) -> None:
    before = keys(replaced)
    assert collect(replaced, grace=timedelta(hours=1), sleep=no_pause).deleted == ()
    assert keys(replaced) == before


def test_age_counts_from_the_last_use(tmp_path: Path, old: Image, new: Image, store: MemoryStore) -> None:
    objects = DirectoryObjects(tmp_path)
    push(objects, store, old, "latest")
    push(objects, store, new, "latest")
    long_ago = (datetime.now(UTC) - timedelta(hours=30)).timestamp()
    for path in tmp_path.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    assert {item.key for item in collect(objects, dry_run=True).deleted} == old_keys(old, new)
    publish(old, store, StaticRegistry(objects, "static"), NAME, [])
    assert collect(objects, dry_run=True).deleted == ()


def test_a_push_makes_young_what_it_uses_again(
    replaced: ObjectStore, old: Image, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: set[str] = set()

    def note(operation: str, key: str) -> None:
        if operation == "touch":
            touched.add(key)

    watched = Watched(replaced, note)
    publish(old, store, StaticRegistry(watched, "static"), NAME, [])
    assert touched == set()
    monkeypatch.setattr(static, "_YOUNG", NOTHING)
    publish(old, store, StaticRegistry(watched, "static"), NAME, [])
    assert touched >= {layout.blob_key(NAME, blob.digest) for blob in old.all_blobs()}
    StaticRegistry(Watched(replaced, no_touch), "static").blob_size(NAME, old.digest)


def no_touch(operation: str, key: str) -> None:
    assert operation != "touch", "a look without a lease changes nothing"


def test_a_lease_keeps_what_it_names(replaced: ObjectStore, old: Image) -> None:
    before = keys(replaced)
    with leases.hold(replaced, NAME, [blob.digest for blob in old.all_blobs()]):
        assert collect(replaced, grace=NOTHING, sleep=no_pause).deleted == ()
    assert keys(replaced) == before


def test_a_lease_that_ran_out_keeps_nothing_and_goes(replaced: ObjectStore, old: Image, new: Image) -> None:
    key = f"{layout.LEASES}dead.json"
    leases.write(replaced, key, {NAME: [old.digest]}, timedelta(hours=-1))
    report = collect(replaced, grace=NOTHING, sleep=no_pause)
    assert {item.key for item in report.deleted} == old_keys(old, new)
    assert replaced.find(key) is None


def test_referrers_live_and_go_with_their_subject(
    replaced: ObjectStore, old: Image, new: Image, store: MemoryStore
) -> None:
    registry = StaticRegistry(replaced, "static")
    attached: dict[str, str] = {}
    for image in (old, new):
        config = store.put((b'{"of":"%b"}' % image.digest.encode(),))
        registry.put_blob(NAME, config, partial(store.open, config.digest))
        value = {
            "schemaVersion": 2,
            "mediaType": media.MANIFEST,
            "config": {"mediaType": "application/x", "digest": config.digest, "size": config.size},
            "layers": [],
        }
        signature = json.dumps(value).encode()
        subject = {"mediaType": media.INDEX, "digest": image.digest, "size": len(image.index_bytes)}
        referrer = json.dumps(value | {"subject": subject}).encode()
        registry.put_manifest(NAME, digest_of(referrer), Manifest(media.MANIFEST, referrer))
        registry.put_manifest(NAME, image.digest.replace(":", "-") + ".sig", Manifest(media.MANIFEST, signature))
        attached[image.digest] = digest_of(referrer)
    collect(replaced, grace=NOTHING, sleep=no_pause)
    assert registry.list_tags(NAME) == ["latest", new.digest.replace(":", "-") + ".sig"]
    with replaced.open(layout.tags_key(NAME)) as stream:
        assert json.load(stream)["tags"] == registry.list_tags(NAME)
    assert replaced.find(layout.manifest_key(NAME, attached[new.digest])) is not None
    assert replaced.find(layout.manifest_key(NAME, attached[old.digest])) is None
    assert {item.key.split("/")[-2] for item in replaced.walk(layout.REFERRERS)} == {new.digest}
    configs = [b'{"of":"%b"}' % image.digest.encode() for image in (new, old)]
    assert [replaced.find(layout.blob_key(NAME, digest_of(data))) is None for data in configs] == [False, True]


@pytest.mark.parametrize("where", ["manifest", "lease"])
def test_what_cannot_be_read_ends_it_before_anything_goes(replaced: ObjectStore, where: str) -> None:
    key = layout.manifest_key(NAME, "broken") if where == "manifest" else f"{layout.LEASES}broken.json"
    replaced.put(key, lambda: io.BytesIO(b"{"), layout.INDEX_HEADERS)
    before = keys(replaced)
    with pytest.raises(RegistryError, match="cannot be read"):
        collect(replaced, grace=NOTHING, sleep=no_pause)
    assert keys(replaced) == before


def test_a_push_between_the_marks_keeps_what_it_uses(
    replaced: ObjectStore, old: Image, new: Image, store: MemoryStore
) -> None:
    pusher = threading.Thread(target=push, args=(replaced, store, old, "again"))

    def meanwhile(_seconds: float) -> None:
        pusher.start()
        while not replaced.names(layout.LEASES):
            assert pusher.is_alive()

    assert collect(replaced, grace=NOTHING, sleep=meanwhile).deleted == ()
    pusher.join(JOIN_SECONDS)
    whole(replaced, old, "again")
    whole(replaced, new)


@pytest.mark.parametrize("moment", [0, 1, 4, 9])
def test_a_push_while_things_go_waits_and_is_whole(
    replaced: ObjectStore, old: Image, new: Image, store: MemoryStore, moment: int
) -> None:
    """Its lease comes too late for the second mark, so it must see the tombstone."""
    pusher = threading.Thread(target=push, args=(replaced, store, old, "again"))
    deletions = 0

    def start_push(operation: str, key: str) -> None:
        nonlocal deletions
        if operation == "delete" and key.startswith("v2/"):
            if deletions == moment:
                pusher.start()
                while not replaced.names(layout.LEASES):
                    assert pusher.is_alive()
            deletions += 1

    report = collect(Watched(replaced, start_push), grace=NOTHING, sleep=no_pause)
    assert {item.key for item in report.deleted} == old_keys(old, new)
    pusher.join(JOIN_SECONDS)
    whole(replaced, old, "again")
    whole(replaced, new)


def test_a_push_gives_up_on_a_tombstone_that_stays(
    replaced: ObjectStore, old: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases.write(replaced, leases.new_tombstone(), {NAME: [old.digest]}, timedelta(hours=1))
    monkeypatch.setattr(leases, "_LONGEST_WAIT", timedelta(hours=-1))
    with pytest.raises(RegistryUnavailableError, match="try again later"), leases.hold(replaced, NAME, [old.digest]):
        pytest.fail("the context was entered")
    assert replaced.names(layout.LEASES) == []
    with leases.hold(replaced, OTHER, [old.digest]):
        pass


def test_two_collectors_at_once(replaced: ObjectStore, old: Image, new: Image) -> None:
    both = threading.Barrier(2, timeout=JOIN_SECONDS)
    before = keys(replaced)

    def meet(_seconds: float) -> None:
        both.wait()

    other = threading.Thread(target=collect, args=(replaced,), kwargs={"grace": NOTHING, "sleep": meet})
    other.start()
    collect(replaced, grace=NOTHING, sleep=meet)
    other.join(JOIN_SECONDS)
    assert before - keys(replaced) == old_keys(old, new)
    whole(replaced, new)
    whole(replaced, old, name=OTHER)
    assert replaced.names(layout.TOMBSTONES) == []


def test_killed_anywhere_every_tag_is_whole_and_the_next_run_finishes(
    replaced: ObjectStore, old: Image, new: Image, store: MemoryStore
) -> None:
    moment = 0
    finished = False
    while not finished:
        push(replaced, store, old, "latest")
        push(replaced, store, new, "latest")
        left = moment

        def kill(operation: str, _key: str) -> None:
            nonlocal left
            left -= operation in ("put", "delete")
            if left < 0:
                raise KilledError

        with suppress(KilledError):
            collect(Watched(replaced, kill), grace=NOTHING, sleep=no_pause)
            finished = True
        whole(replaced, new)
        whole(replaced, old, name=OTHER)
        for left_over in replaced.names(layout.TOMBSTONES):
            # What running out does, for a test that does not wait for it.
            replaced.delete(layout.TOMBSTONES + left_over)
        moment += 3
    assert moment > 12
    assert not old_keys(old, new) & keys(replaced)


def test_a_collector_that_was_held_up_deletes_nothing(replaced: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "TOMBSTONE_LIFE", timedelta(minutes=1))
    before = keys(replaced)
    with pytest.raises(RegistryUnavailableError, match="held up for too long"):
        collect(replaced, grace=NOTHING, sleep=no_pause)
    assert keys(replaced) == before


def test_a_long_run_renews_its_tombstone(replaced: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "_RENEW_BEFORE", timedelta(hours=1))
    written: list[str] = []

    def note(operation: str, key: str) -> None:
        if operation == "put":
            written.append(key)

    gone = collect(Watched(replaced, note), grace=NOTHING, sleep=no_pause).deleted
    assert len(written) == len(gone) + 1
    assert len(set(written)) == 1


def test_a_run_is_bounded_and_the_next_goes_on(
    replaced: ObjectStore, old: Image, new: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "MAX_DOOMED", 3)
    wanted = len(old_keys(old, new))
    first = collect(replaced, grace=NOTHING, sleep=no_pause)
    assert (len(first.deleted), first.left) == (3, wanted - 3)
    whole(replaced, new)
    monkeypatch.undo()
    assert len(collect(replaced, grace=NOTHING, sleep=no_pause).deleted) == wanted - 3


def test_files_that_never_got_their_name_go(tmp_path: Path) -> None:
    objects = DirectoryObjects(tmp_path)
    StaticRegistry(objects, "static").put_blob(NAME, Blob(digest_of(b"x"), 1), lambda: io.BytesIO(b"x"))
    unfinished = tmp_path / layout.TEMPORARY / "abc"
    unfinished.touch()
    collect(objects, sleep=no_pause)
    assert unfinished.exists()
    collect(objects, grace=NOTHING, sleep=no_pause)
    assert not unfinished.exists()
