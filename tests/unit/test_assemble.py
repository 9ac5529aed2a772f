"""From sources to one image: equal inputs give an equal index, and a bad source is named."""

import io
import random
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import BinaryIO

import pytest

from albatros.domain.platforms import Platform, PlatformHints
from albatros.domain.references import Blob, Digest, digest_of
from albatros.errors import ImageError, StoreFullError, TooLargeError, UsageError
from albatros.images import remembered
from albatros.images.assemble import AssembleOptions, assemble
from albatros.images.base import NullLayerCache, Source
from albatros.images.layers import Compression, LayerWriter
from albatros.images.model import Image, parse_json_object
from tests.support.archives import Archive, elf, gzipped, layer, source
from tests.support.stores import MemoryStore

OPTIONS = AssembleOptions(
    annotations={"source": "https://git.example.org/alba/hello", "revision": "0" * 40},
    created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)
FOUR = [
    source(Archive([layer(hello=b"x" * 9000)]).tar(), "amd64 archive"),
    source(gzipped(Archive([layer(hello=b"y")], {"architecture": "arm", "os": "linux"}).tar()), "arm archive"),
    source(elf("arm64", payload=b"z" * 9000), "arm64 binary"),
    source(elf("386"), "386 binary"),
]
PINNED = "sha256:9feb2e960c7cd2ac5ed669ca4e99fdd7d66540363dc6c06782f42f8d80bdfffe"


def run(sources: list[Source], options: AssembleOptions = OPTIONS, store: MemoryStore | None = None) -> Image:
    return assemble(sources, store if store is not None else MemoryStore(), NullLayerCache(), options)


def test_archives_and_binaries_become_one_index() -> None:
    store = MemoryStore()
    image = run(FOUR, store=store)
    assert [str(platform) for platform in image.platforms] == [
        "linux/386",
        "linux/amd64",
        "linux/arm/v6",
        "linux/arm64/v8",
    ]
    assert {blob.digest for blob in image.all_blobs()} == set(store.blobs)
    assert all(store.size(blob.digest) == blob.size for blob in image.all_blobs())
    assert Image.load(store, image.digest) == image


def test_the_index_is_pinned() -> None:
    assert run(FOUR).digest == PINNED


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_neither_order_nor_threads_enter_the_digest(threads: int) -> None:
    assert run(FOUR[::-1], replace(OPTIONS, threads=threads)).digest == PINNED


def test_annotations_stand_on_the_index_and_on_every_manifest() -> None:
    image = run(FOUR)
    expected = {
        "org.opencontainers.image.source": "https://git.example.org/alba/hello",
        "org.opencontainers.image.revision": "0" * 40,
        "org.opencontainers.image.created": "2026-01-02T03:04:05Z",
    }
    for data in (image.index_bytes, *(manifest.manifest_bytes for manifest in image.manifests)):
        assert parse_json_object(data, "it")["annotations"] == expected


def test_created_is_utc_whatever_the_commits_zone() -> None:
    zone = timezone(timedelta(hours=5))
    assert run(FOUR, replace(OPTIONS, created=datetime(2026, 1, 2, 8, 4, 5, tzinfo=zone))).digest == PINNED


def created_of(*moments: str | None) -> object:
    architectures = ("amd64", "386", "arm64")
    configs = [
        {"architecture": a, "os": "linux"} | ({"created": m} if m else {})
        for a, m in zip(architectures, moments, strict=True)
    ]
    image = run([source(Archive([], config).tar(), str(n)) for n, config in enumerate(configs)], AssembleOptions())
    annotations = parse_json_object(image.index_bytes, "index").get("annotations", {})
    assert isinstance(annotations, dict)
    return annotations.get("org.opencontainers.image.created")


def test_without_a_commit_the_newest_source_dates_the_image() -> None:
    assert created_of("1970-01-01T00:00:01Z", "2020-05-05T05:05:05.123456789Z", "2019-01-01T00:00:00+09:00") == (
        "2020-05-05T05:05:05Z"
    )
    assert created_of("yesterday", "1970-01-01T00:00:01Z", None) == "1970-01-01T00:00:01Z"
    assert created_of(None, "soon", None) is None


def test_two_sources_for_one_platform_are_both_named() -> None:
    again = source(elf("amd64"), "amd64 binary")
    with pytest.raises(ImageError, match=r"amd64 archive and amd64 binary are both for linux/amd64"):
        run([FOUR[0], again])


def test_an_unqualified_arm_and_a_v6_are_the_same_platform() -> None:
    other = source(elf("arm"), "v6", PlatformHints(explicit=Platform.parse("arm/v6")))
    with pytest.raises(ImageError, match=r"linux/arm/v6"):
        run([FOUR[1], other])


def test_a_bad_source_is_named_and_the_good_ones_stop() -> None:
    with pytest.raises(ImageError, match=r"^bad one: it is not a tar archive"):
        run([FOUR[0], source(b"rubbish" * 1000, "bad one"), FOUR[2]])


def test_a_bomb_is_refused_by_its_unpacked_size() -> None:
    bomb = source(gzipped(Archive([bytes(8 << 20)]).tar()), "bomb")
    with pytest.raises(TooLargeError, match=r"^bomb: it unpacks to more than 1048576 bytes"):
        run([bomb], replace(OPTIONS, max_size=1 << 20))


def test_a_full_store_is_told_as_that() -> None:
    with pytest.raises(StoreFullError, match=r"^amd64 archive: "):
        run([FOUR[0]], store=MemoryStore(capacity=10))


def test_no_sources_make_no_image() -> None:
    with pytest.raises(ImageError, match="no source"):
        run([])


def test_an_unknown_annotation_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="'colour' is not an annotation"):
        run(FOUR, AssembleOptions(annotations={"colour": "red"}))


def test_text_that_utf8_cannot_carry_is_refused() -> None:
    archive = Archive([], {"architecture": "amd64", "os": "linux", "author": "\ud800"})
    with pytest.raises(ImageError, match="cannot carry"):
        run([source(archive.tar())])


@pytest.mark.parametrize("compression", Compression)
def test_a_scratch_image_costs_at_most_3_kib_of_json(compression: Compression) -> None:
    image = run([source(elf("amd64"))], replace(OPTIONS, compression=compression))
    layers = sum(found.size for manifest in image.manifests for found in manifest.layers)
    assert sum(blob.size for blob in image.all_blobs()) - layers <= 3 << 10
    assert image.manifests[0].layers[0].media_type == compression.media_type


def test_sources_are_read_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=60)

    def meeting(inner: Source) -> Source:
        @contextmanager
        def opened() -> Iterator[BinaryIO]:
            together.wait()
            with inner.open() as stream:
                yield stream

        return replace(inner, open=opened)

    assert len(run([meeting(FOUR[0]), meeting(FOUR[2])], replace(OPTIONS, threads=2)).manifests) == 2


class Cache:
    """Remembers layers as the server does."""

    def __init__(self) -> None:
        self.known: dict[tuple[Digest, str], Blob] = {}
        self.stored = 0

    def lookup(self, diff_id: Digest, codec: str, /) -> Blob | None:
        return self.known.get((diff_id, codec))

    def store(self, diff_id: Digest, codec: str, blob: Blob, /) -> None:
        self.known[diff_id, codec] = blob
        self.stored += 1


@pytest.mark.parametrize("names", [None, ["abc/layer.tar", "def/layer.tar"]], ids=["layered", "buildImage"])
def test_a_layer_that_did_not_change_is_not_compressed_again(names: list[str] | None) -> None:
    store, cache = MemoryStore(), Cache()
    archive = Archive([layer(hello=b"x" * 9000), layer(world=b"y" * 9000)], layer_names=names)
    first = assemble([source(gzipped(archive.tar()))], store, cache, OPTIONS)
    assert cache.stored == 2
    assert assemble([source(gzipped(archive.tar()))], store, cache, OPTIONS) == first
    changed = replace(archive, layers=[archive.layers[0], layer(world=b"z" * 9000)])
    assemble([source(gzipped(changed.tar()))], store, cache, OPTIONS)
    assert cache.stored == 3


def test_a_promise_is_not_believed() -> None:
    store, cache = MemoryStore(), Cache()
    good = Archive([layer(hello=b"x" * 9000)], layer_names=["abc/layer.tar"])
    assemble([source(good.tar())], store, cache, OPTIONS)
    lying = replace(good, layers=[layer(hello=b"z" * 9000)], diff_ids=[digest_of(good.layers[0])])
    with pytest.raises(ImageError, match="its bytes have another digest"):
        assemble([source(lying.tar())], store, cache, OPTIONS)


@pytest.mark.parametrize("compression", list(Compression))
def test_an_image_of_one_static_binary_costs_at_most_3_kib_more_than_the_binary(compression: Compression) -> None:
    binary = elf(payload=random.Random(1).randbytes(1 << 20) + b"text " * 50_000)
    packed = LayerWriter(MemoryStore(), NullLayerCache(), compression).write([binary]).descriptor.size
    store = MemoryStore()
    image = run([source(binary)], replace(OPTIONS, compression=compression), store)
    assert sum(blob.size for blob in image.all_blobs()) <= packed + 3072
    assert store.used() == sum(blob.size for blob in image.all_blobs()), "nothing else is stored"


class Memory:
    """Remembers sources as the server does."""

    def __init__(self) -> None:
        self.known: dict[tuple[Digest, str], str] = {}

    def recall(self, digest: Digest, how: str, /) -> str | None:
        return self.known.get((digest, how))

    def remember(self, digest: Digest, how: str, parts: str, layers: Collection[Blob], /) -> None:
        self.known[digest, how] = parts
        self.layers = set(layers)


def checked(data: bytes, system: str = "") -> Source:
    return replace(source(data), digest=digest_of(data), hints=PlatformHints(system=system))


@pytest.mark.parametrize("number", range(4))
def test_a_source_whose_bytes_are_known_is_not_read_again(number: int) -> None:
    with FOUR[number].open() as stream:
        data = stream.read()
    store, memory = MemoryStore(), Memory()
    once = checked(data)
    first = assemble([once], store, NullLayerCache(), OPTIONS, memory)
    assert memory.layers == {layer.blob for layer in first.manifests[0].layers}
    never = replace(once, open=lambda: pytest.fail("it was read again"))
    assert assemble([never], store, NullLayerCache(), OPTIONS, memory) == first


def test_a_known_source_is_read_again_for_whatever_may_change_it() -> None:
    data = Archive([layer(hello=b"x" * 9000)], {"architecture": "arm", "os": "linux"}).tar()
    store, memory = MemoryStore(), Memory()

    def platform(one: Source, options: AssembleOptions = OPTIONS) -> str:
        return str(assemble([one], store, NullLayerCache(), options, memory).platforms[0])

    assert platform(checked(data)) == "linux/arm/v6"
    assert platform(checked(data, system="armv7l-linux")) == "linux/arm/v7"
    assert platform(replace(checked(data), entrypoint="/bin/other")) == "linux/arm/v6"
    assert platform(checked(data), replace(OPTIONS, compression=Compression.ZSTD)) == "linux/arm/v6"
    assert len(memory.known) == 4
    assert platform(source(data)) == "linux/arm/v6"
    assert len(memory.known) == 4, "nothing is known of bytes that nobody checked"


def test_what_other_readers_made_of_a_source_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Archive([layer(hello=b"x" * 9000)]).tar()
    store, memory = MemoryStore(), Memory()
    first = assemble([checked(data)], store, NullLayerCache(), OPTIONS, memory)
    monkeypatch.setattr(remembered, "READERS", 0)
    assert assemble([checked(data)], store, NullLayerCache(), OPTIONS, memory) == first
    assert len(memory.known) == 2


@pytest.mark.parametrize("compression", Compression)
def test_no_thread_is_left(compression: Compression) -> None:
    before = threading.active_count()
    assemble(FOUR, MemoryStore(), NullLayerCache(), replace(OPTIONS, compression=compression))
    assert threading.active_count() == before


def test_a_known_source_whose_layers_are_gone_is_read_again() -> None:
    store, memory = MemoryStore(), Memory()
    data = Archive([layer(hello=b"x" * 9000)]).tar()
    first = assemble([checked(data)], store, NullLayerCache(), OPTIONS, memory)
    store.blobs.clear()
    assert assemble([checked(data)], store, NullLayerCache(), OPTIONS, memory) == first
    assert all(store.size(blob.digest) == blob.size for blob in first.all_blobs())


def test_a_source_with_a_config_too_large_to_remember_is_read() -> None:
    store, memory = MemoryStore(), Memory()
    data = Archive([layer(a=b"x")], {"architecture": "amd64", "os": "linux", "x": "y" * (300 << 10)}).tar()
    assemble([checked(data)], store, NullLayerCache(), OPTIONS, memory)
    assert memory.known == {}


def test_a_source_that_cannot_be_read_twice_is_read_once() -> None:
    streams = [io.BytesIO(Archive([layer(hello=b"x")]).tar())]
    once = replace(source(b""), open=streams.pop, reopens=False)
    assert assemble([once], MemoryStore(), Cache(), OPTIONS).platforms


@pytest.mark.parametrize("text", [b"#!/bin/sh\nexec x\n", b"#! /nix/store/x/bin/bash -e\n" + b"#" * 9000])
def test_a_script_is_told_how_to_become_an_archive(text: bytes) -> None:
    with pytest.raises(ImageError, match=r"result/stream: it is a script .*\| albatros image push.*runCommand"):
        run([source(text, "result/stream")])
