"""The static layout: exact keys and headers, the order of writes, and nothing half-written under any circumstance."""

import errno
import http.client
import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from albatros.domain import media
from albatros.domain.references import Blob, RegistryUrl, digest_of
from albatros.errors import RegistryError, RegistryUnavailableError, UsageError
from albatros.images.assemble import AssembleOptions, assemble
from albatros.images.base import NullLayerCache
from albatros.images.model import Image
from albatros.images.publish import publish
from albatros.images.verify import read_published, verify_platform
from albatros.registries import layout
from albatros.registries.base import BlobOpener, Manifest
from albatros.registries.layout import Headers
from albatros.registries.objects import DirectoryObjects
from albatros.registries.opening import open_registry
from albatros.registries.serve import serve_directory
from albatros.registries.static import StaticRegistry
from tests.support.archives import elf, source
from tests.support.stores import MemoryStore

NAME = "alba/hello"
IMMUTABLE = "public, max-age=31536000, immutable"


class Recorder(DirectoryObjects):
    """A directory that remembers the order of its writes, and lets another pusher in before any of them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.written: list[str] = []
        self.between: dict[int, StaticRegistry] = {}

    def put(self, key: str, body: BlobOpener, headers: Headers) -> None:
        other = self.between.pop(len(self.written), None)
        if other is not None:
            other.put_manifest(NAME, "other", Manifest(media.INDEX, b'{"mediaType":"%s"}' % media.INDEX.encode()))
        self.written.append(key)
        super().put(key, body, headers)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def image(store: MemoryStore) -> Image:
    return assemble([source(elf("amd64")), source(elf("arm"))], store, NullLayerCache(), AssembleOptions())


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_exactly_these_keys_are_there(root: Path, image: Image, store: MemoryStore) -> None:
    publish(image, store, StaticRegistry(DirectoryObjects(root), "dir:x"), NAME, ["v1"])
    manifests = [*(manifest.descriptor.digest for manifest in image.manifests), image.digest]
    base = f"v2/{NAME}"
    assert files(root) == {
        "v2/index.html",
        f"{base}/tags/list",
        f"{base}/manifests/v1",
        *(f"{base}/manifests/{digest}" for digest in manifests),
        *(f"{base}/referrers/{digest}" for digest in manifests),
        *(f"{base}/blobs/{blob.digest}" for blob in image.all_blobs()),
        *(f".albatros/shadows/{base}/manifests/{digest}" for digest in manifests[:-1]),
        "index.html",
        f"images/{NAME}/index.html",
        f".albatros/pages/{NAME}/_summary",
        ".albatros/headers.json",
        ".albatros/nginx.conf",
        ".albatros/Caddyfile",
    }
    assert json.loads((root / base / "tags" / "list").read_text()) == {"name": NAME, "tags": ["v1"]}
    assert (root / "v2/index.html").read_text() == "{}"
    referrers = json.loads((root / base / "referrers" / image.digest).read_text())
    assert referrers == {"schemaVersion": 2, "mediaType": media.INDEX, "manifests": []}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in root.rglob("*"))


def test_the_order_of_writes(root: Path, image: Image, store: MemoryStore) -> None:
    objects = Recorder(root)
    publish(image, store, StaticRegistry(objects, "dir:x"), NAME, ["v1"])
    kinds = [re.sub(r"sha256:\w+|[0-9a-f-]{36}", "D", key.removeprefix(f"v2/{NAME}/")) for key in objects.written]
    assert kinds[0] == ".albatros/leases/D.json"
    assert kinds[1:5] == ["blobs/D"] * 4
    assert kinds[-5:-3] == ["tags/list", "manifests/v1"]
    assert kinds[-3:] == [f"images/{NAME}/index.html", f".albatros/pages/{NAME}/_summary", "index.html"]
    assert objects.written[-6] == f"v2/{NAME}/manifests/{image.digest}"
    children = [objects.written.index(f"v2/{NAME}/manifests/{m.descriptor.digest}") for m in image.manifests]
    assert max(children) < len(kinds) - 6


def test_a_lease_names_the_digests_while_the_push_runs(root: Path, image: Image, store: MemoryStore) -> None:
    registry = StaticRegistry(DirectoryObjects(root), "dir:x")
    leases = root / ".albatros" / "leases"

    def gate(_tag: str) -> bool:
        (lease,) = leases.iterdir()
        held = json.loads(lease.read_text())
        assert held["digests"] == {NAME: sorted({blob.digest for blob in image.all_blobs()})}
        assert datetime.fromisoformat(held["expires"]) > datetime.now(UTC) + timedelta(hours=23)
        return True

    publish(image, store, registry, NAME, ["v1"], gate=gate)
    assert list(leases.iterdir()) == []


@pytest.mark.parametrize("moment", range(20))
def test_a_pusher_that_comes_in_between_loses_no_tag(root: Path, image: Image, store: MemoryStore, moment: int) -> None:
    objects = Recorder(root)
    objects.between = {moment: StaticRegistry(DirectoryObjects(root), "dir:other")}
    registry = StaticRegistry(objects, "dir:x")
    publish(image, store, registry, NAME, ["v1", "v2"])
    expected = ["other", "v1", "v2"] if moment < len(objects.written) else ["v1", "v2"]
    assert registry.list_tags(NAME) == expected
    assert json.loads((root / f"v2/{NAME}/tags/list").read_text())["tags"] == expected


def test_damaged_lists_of_tags_are_written_anew(root: Path, image: Image, store: MemoryStore) -> None:
    registry = StaticRegistry(DirectoryObjects(root), "dir:x")
    publish(image, store, registry, NAME, ["v1"])
    (root / f"v2/{NAME}/tags/list").write_text("garbage")
    publish(image, store, registry, NAME, ["v1"])
    assert json.loads((root / f"v2/{NAME}/tags/list").read_text())["tags"] == ["v1"]


def test_a_blob_that_breaks_off_leaves_nothing(root: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionResetError(errno.ECONNRESET, "reset")

    registry = StaticRegistry(DirectoryObjects(root), "dir:x")
    with suppress(RegistryError):
        registry.put_blob(NAME, Blob(digest_of(b"x"), 1), Broken)
    assert not [name for name in files(root) if "blobs" in name or "unfinished" in name]


def test_a_full_disk_may_be_tried_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = StaticRegistry(DirectoryObjects(root), "dir:x")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RegistryUnavailableError, match="No space left on device; make room"):
        registry.put_blob(NAME, Blob(digest_of(b""), 0), io.BytesIO)
    assert files(root) == set()


def test_a_path_that_is_a_file_is_told(tmp_path: Path, image: Image, store: MemoryStore) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(RegistryError, match="cannot be used: Not a directory"):
        publish(image, store, open_registry(RegistryUrl.parse(f"dir:{path}")), NAME, ["v1"])


@pytest.mark.parametrize("name", ["a/tags", "manifests/a", "blobs", "a/referrers/b", "a/index.html"])
def test_names_that_would_be_taken_for_keys_are_refused(
    root: Path, image: Image, store: MemoryStore, name: str
) -> None:
    with pytest.raises(UsageError, match="cannot be in a static registry"):
        publish(image, store, StaticRegistry(DirectoryObjects(root), "dir:x"), name, ["v1"])
    assert not root.exists()


def test_a_manifest_of_another_kind_or_digest_is_refused(root: Path) -> None:
    registry = StaticRegistry(DirectoryObjects(root), "dir:x")
    with pytest.raises(RegistryError, match="holds OCI manifests"):
        registry.put_manifest(NAME, "v1", Manifest(media.DOCKER_LIST, b"{}"))
    with pytest.raises(RegistryError, match="cannot be put as"):
        registry.put_manifest(NAME, digest_of(b"x"), Manifest(media.INDEX, b"{}"))


def test_a_tag_may_change_from_an_index_to_a_manifest_and_back(root: Path, image: Image, store: MemoryStore) -> None:
    registry = StaticRegistry(DirectoryObjects(root), "dir:x")
    publish(image, store, registry, NAME, ["v1"])
    single = image.manifests[0].manifest_bytes
    with serve_directory(root) as host:
        for manifest in (Manifest(media.MANIFEST, single), Manifest(media.INDEX, image.index_bytes)):
            registry.put_manifest(NAME, "v1", manifest)
            assert registry.get_manifest(NAME, "v1") == manifest
            status, headers, body = get(host, f"/v2/{NAME}/manifests/v1")
            assert (status, headers["Content-Type"], body) == (200, manifest.media_type, manifest.data)


def get(host: str, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host)
    connection.endheaders()
    response = connection.getresponse()
    found = response.status, dict(response.getheaders()), response.read()
    connection.close()
    return found


@pytest.fixture
def served(root: Path, image: Image, store: MemoryStore) -> Iterator[str]:
    publish(image, store, StaticRegistry(DirectoryObjects(root), "dir:x"), NAME, ["v1"])
    with serve_directory(root) as host:
        yield host


def test_the_headers_that_clients_need(served: str, image: Image) -> None:
    base, child = f"/v2/{NAME}", image.manifests[0]
    for path, content_type, cache in (
        ("/v2/", "application/json", "no-cache"),
        (f"{base}/manifests/v1", media.INDEX, "no-cache"),
        (f"{base}/manifests/{image.digest}", media.INDEX, IMMUTABLE),
        (f"{base}/manifests/{child.descriptor.digest}", media.MANIFEST, IMMUTABLE),
        (f"{base}/blobs/{child.descriptor.digest}", media.BYTES, IMMUTABLE),
        (f"{base}/blobs/{child.layers[0].digest}", media.BYTES, IMMUTABLE),
        (f"{base}/tags/list", "application/json", "no-cache"),
        (f"{base}/referrers/{image.digest}", media.INDEX, "no-cache"),
        ("/", "text/html; charset=utf-8", "no-cache"),
        ("/index.html", "text/html; charset=utf-8", "no-cache"),
        (f"/images/{NAME}/index.html", "text/html; charset=utf-8", "no-cache"),
    ):
        status, headers, body = get(served, path)
        assert (status, headers["Content-Type"], headers["Cache-Control"]) == (200, content_type, cache), path
        assert "Content-Encoding" not in headers
        head_status, head, nothing = get(served, path, "HEAD")
        assert (head_status, head["Content-Length"], nothing) == (200, str(len(body)), b"")


@pytest.mark.parametrize(
    "path",
    [
        "/images/alba/hello/",
        "/index.htmlx",
        "/v2/alba/hello/manifests/gone",
        "/v2/alba/hello/manifests/",
        "/v2/../../../../etc/passwd",
        "/v2/%2e%2e/%2e%2e/%2e%2e/etc/manifests/passwd",
        "/v2/a/manifests/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/.albatros/headers.json",
        "/v2/alba/hello/manifests/v1%00",
        "/v2/alba",
    ],
)
def test_anything_else_is_not_found(served: str, path: str) -> None:
    assert get(served, path)[0] == 404


def test_an_image_is_pulled_through_the_file_server(served: str, image: Image) -> None:
    registry = open_registry(RegistryUrl.parse(f"docker://{served}"))
    assert registry.list_tags(NAME) == ["v1"]
    found = read_published(registry, NAME, "v1")
    assert found == image
    for manifest in found.manifests:
        verify_platform(registry, NAME, manifest)
    registry.close()


def test_the_table_of_headers_is_for_programs(root: Path, image: Image, store: MemoryStore) -> None:
    publish(image, store, StaticRegistry(DirectoryObjects(root), "dir:x"), NAME, ["v1"])
    table = json.loads((root / ".albatros/headers.json").read_text())
    assert [rule["path"] for rule in table["rules"]] == [rule.path for rule in layout.RULES]
    assert {rule["headers"]["Content-Type"] for rule in table["rules"]} == {
        media.INDEX,
        media.MANIFEST,
        media.BYTES,
        "application/json",
        "text/html; charset=utf-8",
    }
