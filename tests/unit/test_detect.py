"""Image archives are known by their bytes."""

import gzip
import io
import tarfile

import pytest
import zstandard

from albatros.errors import NotFoundError
from albatros.images.readers import script
from albatros.images.readers.detect import is_image_archive
from tests.support.archives import Archive, elf, gzipped, layer, member, write_tar
from tests.support.stores import MemoryStore

LIMIT = 1 << 20
ARCHIVE = Archive([layer(hello=b"hello" * 100)]).tar()
SOURCES = write_tar([(member("hello-1.0/README"), b"read me"), (member("hello-1.0/manifest.json"), b"{}")])


def check(data: bytes, limit: int = LIMIT, *, was_read: bool = False) -> bool:
    store = MemoryStore()
    return is_image_archive(store, store.put([data]).digest, limit, was_read=was_read)


@pytest.mark.parametrize(
    "data",
    [ARCHIVE, gzipped(ARCHIVE), zstandard.compress(ARCHIVE), Archive([layer(a=b"a")], manifest_first=True).tar()],
    ids=["plain", "gzip", "zstd", "manifest first"],
)
def test_archives(data: bytes) -> None:
    assert check(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"{}",
        elf(),
        SOURCES,
        gzipped(SOURCES),
        gzip.compress(b"text"),
        gzipped(SOURCES)[:-20],
        bytes(1024),
    ],
    ids=["nothing", "text", "json", "elf", "sources", "packed sources", "packed text", "cut sources", "empty tar"],
)
def test_everything_else(data: bytes) -> None:
    assert not check(data)


def test_of_what_was_read_as_a_source_the_beginning_is_enough() -> None:
    for data in (gzipped(ARCHIVE), gzipped(ARCHIVE)[:-20], ARCHIVE[:1024]):
        assert check(data, script.HEAD, was_read=True)
    for data in (elf(), b"hello", b"#!/bin/sh\n"):
        assert not check(data, was_read=True)


def test_a_damaged_archive_is_one_so_that_somebody_is_told() -> None:
    assert check(ARCHIVE[: len(ARCHIVE) // 2])


def test_no_more_than_the_limit_is_looked_through() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        big = tarfile.TarInfo("zeros")
        big.size = 4 * LIMIT
        archive.addfile(big, io.BytesIO(bytes(big.size)))
    tail = write_tar([(member("manifest.json"), b"[]")])
    assert check(buffer.getvalue()[: 512 + 4 * LIMIT] + tail, 8 * LIMIT)
    assert not check(gzipped(buffer.getvalue()[: 512 + 4 * LIMIT] + tail), LIMIT)


def test_a_blob_that_is_gone() -> None:
    store = MemoryStore()
    digest = store.put([ARCHIVE]).digest
    store.blobs.clear()
    with pytest.raises(NotFoundError):
        is_image_archive(store, digest, LIMIT)


STREAM = b'#! /nix/store/%s-bash-5.2/bin/bash -e\nexec "/nix/store/%s-stream"  /nix/store/x-hello-conf.json "$@"\n'


def test_the_script_of_a_layered_image_counts_and_no_other() -> None:
    name = b"a" * 32
    assert check(STREAM % (name, name))
    assert not check(b"#!/bin/sh\necho hello\n")


def test_an_oci_layout() -> None:
    assert check(write_tar([(member("oci-layout"), b"{}"), (member("index.json"), b"{}")]))
    assert not check(write_tar([(member("x/oci-layout"), b"{}")]))
