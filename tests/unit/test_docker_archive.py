"""docker-archives: every layout that tools write, and every way in which one can lie or be broken."""

import io
import json
import tarfile
from dataclasses import replace

import pytest
import zstandard

from albatros.domain.platforms import Platform, PlatformHints
from albatros.domain.references import digest_of
from albatros.errors import ImageError, TooLargeError
from albatros.images.base import NullLayerCache
from albatros.images.layers import Compression, LayerWriter
from albatros.images.readers.archive import look_ahead, read_archive
from albatros.images.readers.parts import ImageParts
from albatros.images.streams import unpacked
from tests.support.archives import Archive, gzipped, layer, member, sha256_hex, source
from tests.support.stores import MemoryStore

FIRST, SECOND = layer(hello=b"1" * 5000), layer(world=b"2" * 5000)
GOOD = Archive([FIRST, SECOND])


def read(data: bytes, hints: PlatformHints | None = None) -> ImageParts:
    writer = LayerWriter(MemoryStore(), NullLayerCache(), Compression.GZIP)
    (parts,) = read_archive(unpacked(io.BytesIO(data)), source(data, hints=hints), writer, 1 << 30, {})
    return parts


@pytest.mark.parametrize("first", [True, False], ids=["manifest first", "manifest last"])
@pytest.mark.parametrize("pack", [bytes, gzipped, zstandard.compress], ids=["plain", "gzip", "zstd"])
def test_an_archive_is_read_in_any_order_and_packing(first: bool, pack: type[bytes]) -> None:
    parts = read(pack(replace(GOOD, manifest_first=first).tar()))
    assert parts.platform == Platform("linux", "amd64")
    assert [found.diff_id for found in parts.layers] == [digest_of(FIRST), digest_of(SECOND)]


def test_the_layout_of_dockertools_with_its_legacy_files() -> None:
    legacy = [
        (member("abc/", tarfile.DIRTYPE), b""),
        (member("abc/VERSION"), b"1.0"),
        (member("abc/json"), b'{"id":1}'),
    ]
    archive = Archive([FIRST], layer_names=["abc/layer.tar"], extra=[*legacy, (member("repositories"), b"{}")])
    assert [found.diff_id for found in read(archive.tar()).layers] == [digest_of(FIRST)]


def test_layers_may_be_compressed_in_the_archive() -> None:
    archive = Archive([gzipped(FIRST)], layer_names=["l.tar"], diff_ids=[digest_of(FIRST)])
    assert [found.diff_id for found in read(archive.tar()).layers] == [digest_of(FIRST)]


def test_a_layer_used_twice_is_kept_once() -> None:
    name = f"{sha256_hex(FIRST)}/layer.tar"
    parts = read(Archive([FIRST, FIRST], layer_names=[name, name]).tar())
    assert parts.layers[0] == parts.layers[1]


@pytest.mark.parametrize(
    "link",
    [member("b/layer.tar", tarfile.SYMTYPE, "../a/layer.tar"), member("b/layer.tar", tarfile.LNKTYPE, "a/layer.tar")],
    ids=["symbolic", "hard"],
)
def test_a_layer_shared_by_a_link(link: tarfile.TarInfo) -> None:
    entry = {"Config": "c.json", "Layers": ["a/layer.tar", "b/layer.tar"]}
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [digest_of(FIRST)] * 2}}
    extra = [(link, b""), (member("c.json"), json.dumps(config).encode())]
    archive = Archive([FIRST], layer_names=["a/layer.tar"], extra=extra, manifest_bytes=json.dumps([entry]).encode())
    parts = read(archive.tar())
    assert [found.diff_id for found in parts.layers] == [digest_of(FIRST)] * 2


def test_an_image_without_layers() -> None:
    assert read(Archive([]).tar()).layers == ()


def test_an_empty_layer() -> None:
    assert [found.diff_id for found in read(Archive([bytes(1024)]).tar()).layers] == [digest_of(bytes(1024))]


@pytest.mark.parametrize(
    ("config", "hints", "platform"),
    [
        ({"architecture": "arm", "os": "linux"}, PlatformHints(), "linux/arm/v6"),
        ({"architecture": "arm", "os": "linux", "variant": "v7"}, PlatformHints(), "linux/arm/v7"),
        ({"architecture": "arm", "os": "linux"}, PlatformHints(system="armv7l-linux"), "linux/arm/v7"),
        ({"architecture": "arm64", "os": "linux"}, PlatformHints(), "linux/arm64/v8"),
        ({"architecture": "386", "os": "linux"}, PlatformHints(system="i686-linux"), "linux/386"),
        ({}, PlatformHints(file_name="linux.arm64.tar.gz"), "linux/arm64/v8"),
    ],
)
def test_the_platform_is_corrected(config: dict[str, object], hints: PlatformHints, platform: str) -> None:
    parts = read(Archive([FIRST], config=config).tar(), hints)
    assert str(parts.platform) == platform
    written = parts.finished_config("")
    assert {key: written.get(key) for key in ("os", "architecture", "variant")} == {
        **dict.fromkeys(("os", "architecture", "variant")),
        **parts.platform.as_json(),
    }


def test_a_config_keeps_what_it_says_and_gets_what_was_computed() -> None:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "variant": "",
        "created": "1970-01-01T00:00:01Z",
        "config": {"Cmd": ["x"]},
    }
    written = read(Archive([FIRST], config=config).tar()).finished_config("2026-01-01T00:00:00Z")
    assert written == {
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:01Z",
        "config": {"Cmd": ["x"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(FIRST)]},
    }
    assert read(GOOD.tar()).finished_config("2026-01-01T00:00:00Z")["created"] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("archive", "error"),
    [
        (replace(GOOD, diff_ids=[digest_of(FIRST), digest_of(b"")]), "layer 2 has the bytes of"),
        (replace(GOOD, diff_ids=[digest_of(FIRST)]), "the config names 1 layers, manifest.json 2"),
        (replace(GOOD, config_bytes=b"not json"), "is not JSON"),
        (replace(GOOD, config_bytes=b"[" * 100_000), "is not JSON"),
        (replace(GOOD, config_bytes=b"[]"), "not an object"),
        (replace(GOOD, config_bytes=b'{"os": 1}'), "no rootfs.diff_ids"),
        (replace(GOOD, config_bytes=b'{"rootfs": {"diff_ids": "x"}}'), "no rootfs.diff_ids"),
        (replace(GOOD, config={"os": "linux", "architecture": ["amd64"]}), "'architecture' in the config is not text"),
        (replace(GOOD, config={"os": "linux", "architecture": "vax"}), "'vax' is not known"),
        (replace(GOOD, config={"os": "windows", "architecture": "amd64"}), "'windows' is not supported"),
        (replace(GOOD, config={}), "nothing says its platform"),
        (replace(GOOD, manifest_bytes=b"{"), "manifest.json is not JSON"),
        (replace(GOOD, manifest_bytes=b"{}"), "not a list of images"),
        (replace(GOOD, manifest_bytes=b"[1]"), "not a list of images"),
        (replace(GOOD, manifest_bytes=b"[]"), "holds 0 images"),
        (replace(GOOD, manifest_bytes=b"[{},{}]"), "holds 2 images"),
        (replace(GOOD, manifest_bytes=b"[{}]"), "lacks a usable Config or Layers"),
        (replace(GOOD, manifest_bytes=b'[{"Config":"x.json","Layers":[]}]'), "names the config 'x.json'"),
        (replace(GOOD, manifest_bytes=b'[{"Config":"../x","Layers":[]}]'), "outside itself"),
        (replace(GOOD, extra=[(member("../../etc/passwd"), b"x")]), "outside itself"),
        (replace(GOOD, extra=[(member("/etc/passwd"), b"x")]), "outside itself"),
        (replace(GOOD, extra=[(member("manifest.json"), b"[]")]), "holds 'manifest.json' twice"),
        (replace(GOOD, extra=[(member("l.tar"), gzipped(FIRST)[:-20])]), "truncated"),
    ],
)
def test_what_lies_or_is_broken_is_refused(archive: Archive, error: str) -> None:
    with pytest.raises(ImageError, match=error):
        read(archive.tar())


def test_a_layer_that_is_not_there() -> None:
    entry = [{"Config": f"{sha256_hex(b'{}')}.json", "Layers": ["gone/layer.tar"]}]
    with pytest.raises(ImageError, match=r"names the layer 'gone/layer\.tar'"):
        read(Archive([], config_bytes=b"{}", manifest_bytes=json.dumps(entry).encode()).tar())


def test_links_in_circles_are_refused() -> None:
    links = [(member("a", tarfile.SYMTYPE, "b"), b""), (member("b", tarfile.SYMTYPE, "a"), b"")]
    entry = [{"Config": "a", "Layers": []}]
    with pytest.raises(ImageError, match="circles"):
        read(Archive([], manifest_bytes=json.dumps(entry).encode(), extra=links).tar())


@pytest.mark.parametrize("name", ["manifest.json", "other.json"])
def test_a_manifest_over_4_mib_is_refused_before_it_is_read(name: str) -> None:
    big = [(member(name), b"[" + b" " * (4 << 20) + b"]")]
    with pytest.raises(TooLargeError, match="4194304"):
        read(Archive([FIRST], extra=big, manifest_bytes=b"[]" if name != "manifest.json" else None).tar())


def test_many_json_files_are_refused() -> None:
    documents = [(member(f"{n}.json"), b" " * (4 << 20)) for n in range(9)]
    with pytest.raises(TooLargeError, match="together"):
        read(replace(GOOD, extra=documents).tar())


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "truncated"),
        (b"hello" * 300, "not a tar"),
        (layer(a=b"x"), "neither manifest.json nor index.json"),
    ],
)
def test_what_is_no_archive_is_said_to_be_none(data: bytes, error: str) -> None:
    with pytest.raises(ImageError, match=error):
        read(data)


@pytest.mark.parametrize("cut", [100, 1000, 3000, 9000])
def test_a_truncated_archive_is_refused(cut: int) -> None:
    with pytest.raises(ImageError, match=r"truncated|no manifest.json"):
        read(gzipped(GOOD.tar())[:-9] if cut == 3000 else GOOD.tar()[:cut])


def test_the_promises_of_an_archive_are_known_beforehand() -> None:
    archive = Archive([FIRST, SECOND], layer_names=["abc/layer.tar", "def/layer.tar"])
    promised = {"abc/layer.tar": digest_of(FIRST), "def/layer.tar": digest_of(SECOND)}
    assert look_ahead(unpacked(io.BytesIO(gzipped(archive.tar())))) == promised


@pytest.mark.parametrize("data", [b"", b"x" * 600, GOOD.tar()[:3000], replace(GOOD, config_bytes=b"[").tar()])
def test_an_archive_that_cannot_be_read_promises_nothing(data: bytes) -> None:
    assert look_ahead(io.BytesIO(data)) == {}
