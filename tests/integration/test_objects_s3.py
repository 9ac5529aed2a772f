"""Objects on a real Garage: headers, large bodies in parts, what breaks off, and errors that say what to do."""

import io
import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from albatros.domain.s3 import S3Location
from albatros.errors import NotFoundError, RegistryError, RegistryUnavailableError
from albatros.registries.aws import S3Keys
from albatros.registries.layout import BLOB_HEADERS, INDEX_HEADERS
from albatros.registries.objects import ObjectStore
from albatros.registries.objects_s3 import S3Objects
from tests.services.garage import BUCKET, GarageServer
from tests.services.process import free_port

MIB = 1 << 20


@pytest.fixture
def prefix() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def objects(garage: GarageServer, prefix: str) -> ObjectStore:
    return S3Objects(S3Location.parse(garage.url_of(f"{BUCKET}/{prefix}")), S3Keys.of(garage.credentials))


def ask(garage: GarageServer, path: str, method: str = "GET") -> urllib.request.Request:
    return urllib.request.Request(f"{garage.web}/{path}", method=method, headers={"Host": garage.web_host})


class Patchy(io.RawIOBase):
    """A stream that gives fewer bytes than it was asked for, as sockets do, and never ends with a whole part."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = memoryview(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override] # narrower than any buffer
        count = min(len(buffer), len(self._data), 100_001)
        buffer[:count], self._data = self._data[:count], self._data[count:]
        return count


@pytest.mark.parametrize("size", [0, 1, 5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 23 * MIB])
def test_bytes_and_headers_of_every_size(garage: GarageServer, objects: ObjectStore, prefix: str, size: int) -> None:
    data = os.urandom(size)
    objects.put("v2/a/blobs/sha256:x", lambda: io.BufferedReader(Patchy(data)), BLOB_HEADERS)
    found = objects.find("v2/a/blobs/sha256:x")
    assert found is not None
    assert found.size == size
    with objects.open("v2/a/blobs/sha256:x") as stream:
        assert stream.read() == data
    for method in ("GET", "HEAD"):
        with urllib.request.urlopen(ask(garage, f"{prefix}/v2/a/blobs/sha256:x", method), timeout=60) as answer:
            assert answer.headers["Content-Type"] == BLOB_HEADERS.content_type
            assert answer.headers["Cache-Control"] == BLOB_HEADERS.cache_control
            assert answer.headers["Content-Length"] == str(size)
            assert answer.headers["Content-Encoding"] is None


def test_one_object_replaces_another_with_its_headers(garage: GarageServer, objects: ObjectStore, prefix: str) -> None:
    objects.put("v2/a/manifests/v1", lambda: io.BytesIO(b"old"), BLOB_HEADERS)
    objects.put("v2/a/manifests/v1", lambda: io.BytesIO(b"new"), INDEX_HEADERS)
    with urllib.request.urlopen(ask(garage, f"{prefix}/v2/a/manifests/v1"), timeout=60) as answer:
        assert (answer.read(), answer.headers["Content-Type"]) == (b"new", INDEX_HEADERS.content_type)


@pytest.mark.parametrize("before", [0, 1, 12])
def test_a_source_that_breaks_off_writes_nothing(objects: ObjectStore, before: int) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(size) or self._broken()

        def _broken(self) -> bytes:
            raise RegistryError("other bytes than were announced")

    with pytest.raises(RegistryError, match="other bytes than were announced"):
        objects.put("v2/a/blobs/sha256:x", lambda: Broken(bytes(before * MIB)), BLOB_HEADERS)
    assert objects.find("v2/a/blobs/sha256:x") is None


def test_names_and_walks_stay_below_the_prefix(garage: GarageServer, objects: ObjectStore, prefix: str) -> None:
    for key in ("v2/a/manifests/v1", "v2/a/manifests/sha256:x", "v2/a/b/manifests/v2", "v2/ab/manifests/v3"):
        objects.put(key, lambda: io.BytesIO(b"{}"), INDEX_HEADERS)
    assert objects.names("v2/a/manifests/") == ["sha256:x", "v1"]
    assert objects.names("v2/none/") == []
    walked = sorted(item.key for item in objects.walk("v2/a/"))
    assert walked == ["v2/a/b/manifests/v2", "v2/a/manifests/sha256:x", "v2/a/manifests/v1"]
    assert {item.size for item in objects.walk("v2/")} == {2}
    objects.delete("v2/a/manifests/v1")
    objects.delete("v2/a/manifests/v1")
    assert objects.names("v2/a/manifests/") == ["sha256:x"]


def test_more_names_than_a_page_of_a_listing_has(objects: ObjectStore) -> None:
    for number in range(1003):
        objects.put(f"v2/many/manifests/{number:04}", io.BytesIO, INDEX_HEADERS)
    names = [f"{number:04}" for number in range(1003)]
    assert objects.names("v2/many/manifests/") == names
    assert sorted(item.key.rpartition("/")[2] for item in objects.walk("v2/many/")) == names


def test_a_touched_object_is_young_again_and_keeps_its_headers(
    garage: GarageServer, objects: ObjectStore, prefix: str
) -> None:
    objects.put("v2/a/manifests/v1", lambda: io.BytesIO(b"{}"), INDEX_HEADERS)
    first = objects.find("v2/a/manifests/v1")
    assert first is not None
    assert abs(first.modified - datetime.now(UTC)) < timedelta(minutes=5)
    aged = next(objects.walk("v2/")).modified
    while next(objects.walk("v2/")).modified == aged:
        assert objects.touch("v2/a/manifests/v1")
    with urllib.request.urlopen(ask(garage, f"{prefix}/v2/a/manifests/v1"), timeout=60) as answer:
        assert (answer.read(), answer.headers["Content-Type"]) == (b"{}", INDEX_HEADERS.content_type)
    assert not objects.touch("v2/a/manifests/gone")


def test_what_is_missing(garage: GarageServer, objects: ObjectStore, prefix: str) -> None:
    assert objects.find("v2/a/manifests/v1") is None
    with pytest.raises(NotFoundError, match=f"s3://{BUCKET}/{prefix} has no v2/a/manifests/v1"):
        objects.open("v2/a/manifests/v1")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(ask(garage, f"{prefix}/v2/a/manifests/v1"), timeout=60)
    with caught.value as answer:
        assert answer.code == 404


def calls(objects: ObjectStore) -> Iterator[Callable[[], object]]:
    yield lambda: objects.find("key")
    yield lambda: objects.open("key")
    yield lambda: objects.put("key", io.BytesIO, INDEX_HEADERS)
    yield lambda: objects.put("key", lambda: io.BytesIO(bytes(6 * MIB)), INDEX_HEADERS)
    yield lambda: objects.names("v2/")
    yield lambda: list(objects.walk("v2/"))


def test_a_missing_bucket_is_named(garage: GarageServer) -> None:
    missing = S3Objects(S3Location.parse(garage.url_of("no-such-bucket")), S3Keys.of(garage.credentials))
    for call in calls(missing):
        with pytest.raises(RegistryError, match=r"127\.0\.0\.1:\d+ has no bucket 'no-such-bucket'.*make it"):
            call()


@pytest.mark.parametrize("wrong", ["key", "secret", "region"])
def test_wrong_keys_are_told_with_where_they_came_from(garage: GarageServer, wrong: str) -> None:
    secret = "0" * 64 if wrong == "secret" else garage.secret_key
    key = "GK000000000000000000000000" if wrong == "key" else garage.access_key
    url = garage.url_of(BUCKET).replace("region=garage", "region=mars" if wrong == "region" else "region=garage")
    refused = S3Objects(S3Location.parse(url), S3Keys(key, secret, "profile 'x' in /etc/keys"))
    for call in calls(refused):
        with pytest.raises(RegistryError, match=f"refuses .* {key} from profile 'x' in /etc/keys, region .*check") as e:
            call()
        assert secret not in str(e.value)


def test_nobody_who_listens_may_be_tried_again_later(garage: GarageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("albatros.registries.objects_s3._TRIES", 1)
    location = S3Location.parse(f"s3://{BUCKET}?endpoint=http://127.0.0.1:{free_port()}&region=garage")
    with pytest.raises(RegistryUnavailableError, match="it does not answer; check that it runs"):
        S3Objects(location, S3Keys.of(garage.credentials)).find("key")
