"""Static binaries as images: the layer is exact, and what could not run is refused."""

import io
import tarfile
from dataclasses import replace

import pytest

from albatros.domain.platforms import Platform, PlatformHints
from albatros.domain.references import digest_of
from albatros.errors import ImageError
from albatros.images.base import NullLayerCache
from albatros.images.layers import Compression, LayerWriter
from albatros.images.readers.binary import check_static_elf, read_binary
from albatros.images.readers.parts import ImageParts
from albatros.images.streams import PeekReader, blocks, unpacked
from tests.support.archives import elf, source
from tests.support.stores import MemoryStore

PAYLOAD = bytes(range(256)) * 3000


def read(data: bytes, store: MemoryStore, entrypoint: str = "/bin/hello", **hints: object) -> ImageParts:
    explicit = hints.get("explicit")
    assert explicit is None or isinstance(explicit, Platform)
    given = source(data, hints=PlatformHints(explicit, str(hints.get("system", ""))), entrypoint=entrypoint)
    return read_binary(PeekReader(io.BytesIO(data)), given, LayerWriter(store, NullLayerCache(), Compression.GZIP))


def test_the_layer_holds_the_binary_and_nothing_of_this_machine() -> None:
    store, data = MemoryStore(), elf(payload=PAYLOAD)
    parts = read(data, store, "/usr/bin/hello")
    with store.open(parts.layers[0].descriptor.digest) as packed:
        tar = b"".join(blocks(unpacked(packed)))
    assert digest_of(tar) == parts.layers[0].diff_id
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        seen = [(m.name, m.type, m.mode, m.uid, m.gid, m.uname, m.mtime, m.size) for m in archive]
        inside = archive.extractfile("usr/bin/hello")
        assert inside is not None
        assert inside.read() == data
    assert seen == [
        ("usr", tarfile.DIRTYPE, 0o755, 0, 0, "", 1, 0),
        ("usr/bin", tarfile.DIRTYPE, 0o755, 0, 0, "", 1, 0),
        ("usr/bin/hello", tarfile.REGTYPE, 0o755, 0, 0, "", 1, len(data)),
    ]
    assert parts.finished_config("2026-01-01T00:00:00Z") == {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Entrypoint": ["/usr/bin/hello"]},
        "rootfs": {"type": "layers", "diff_ids": [parts.layers[0].diff_id]},
    }


@pytest.mark.parametrize(
    ("architecture", "platform"),
    [("amd64", "linux/amd64"), ("386", "linux/386"), ("arm64", "linux/arm64/v8"), ("arm", "linux/arm/v6")],
)
def test_the_machine_is_read_from_the_elf_header(architecture: str, platform: str) -> None:
    assert str(read(elf(architecture), MemoryStore()).platform) == platform
    assert check_static_elf(elf(architecture)) == architecture


def test_a_hint_adds_the_variant() -> None:
    assert str(read(elf("arm"), MemoryStore(), system="armv7l-linux").platform) == "linux/arm/v7"


def test_a_binary_for_another_machine_is_refused() -> None:
    with pytest.raises(ImageError, match="for arm64, not for linux/amd64"):
        read(elf("arm64"), MemoryStore(), explicit=Platform("linux", "amd64"))
    with pytest.raises(ImageError, match="for amd64, not for linux/arm/v6"):
        read(elf("amd64"), MemoryStore(), system="armv6l-linux")


@pytest.mark.parametrize("architecture", ["amd64", "386", "arm64", "arm"])
def test_a_binary_that_asks_for_an_interpreter_is_refused(architecture: str) -> None:
    with pytest.raises(ImageError, match="interpreter"):
        read(elf(architecture, interpreter=True), MemoryStore())


def test_a_static_position_independent_binary_is_taken() -> None:
    assert check_static_elf(elf(kind=3)) == "amd64"


GOOD = elf()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\x7fELF", "not an ELF file"),
        (b"#!/bin/sh\n" * 10, "not an ELF file"),
        (GOOD[:4] + b"\x09" + GOOD[5:], "not an ELF file"),
        (GOOD[:18] + b"\xff\x7f" + GOOD[20:], "ELF machine 32767"),
        (GOOD[:5] + b"\x02" + GOOD[6:], "ELF machine"),
        (elf(kind=1), "not an executable"),
        (GOOD[:32] + b"\xff" * 8 + GOOD[40:], "program headers"),
        (GOOD[:54] + b"\0\0" + GOOD[56:], "program headers"),
        (GOOD[:56] + b"\0\0" + GOOD[58:], "program headers"),
        (GOOD[:56] + b"\xff\xff" + GOOD[58:], "program headers"),
    ],
)
def test_damaged_headers_are_refused(data: bytes, error: str) -> None:
    with pytest.raises(ImageError, match=error):
        check_static_elf(data)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/../x",
        "/bin/../../x",
        "//x",
        "/bin/",
        "/a\nb",
        "/" + "x" * 200,
        "/\ud800",
    ],
)
def test_a_path_that_cannot_be_in_an_image_is_refused(path: str) -> None:
    with pytest.raises(ImageError, match="no usable path"):
        read(elf(), MemoryStore(), path)


def test_a_binary_whose_size_changes_while_it_is_read_is_refused() -> None:
    data = elf(payload=PAYLOAD)
    shrunk = replace(source(data), size=len(data) - 1)
    writer = LayerWriter(MemoryStore(), NullLayerCache(), Compression.GZIP)
    with pytest.raises(ImageError, match="when it was read"):
        read_binary(PeekReader(io.BytesIO(data)), shrunk, writer)
