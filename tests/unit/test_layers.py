"""Layers: the same bytes become the same blob, and the cache saves work without being believed."""

import gzip
import hashlib

import pytest
import zstandard

from albatros.domain.references import Blob, Digest, digest_of
from albatros.errors import ImageError
from albatros.images.base import NullLayerCache
from albatros.images.layers import Compression, LayerWriter
from tests.support.stores import MemoryStore

TEXT = b"".join(hashlib.sha256(b"%d" % n).hexdigest().encode() for n in range(20_000))
PINNED = {
    Compression.GZIP: "sha256:9afdaa7fbae9b523c2f185ebe68c72c34e02484160466d616262935eb8d8632c",
    Compression.FAST: "sha256:1402b1b79d6622987bd71ffcab761aa65f0a1264347e8e5e3df99c3973b782be",
    Compression.ZSTD: "sha256:9024cb21b3117094b6b68d64f2805b94ee56c7ebbed6714f740270f81c9b00cf",
}
"""Change these only together with a codec's version or level: published digests change with them."""


class Cache:
    def __init__(self) -> None:
        self.known: dict[tuple[Digest, str], Blob] = {}

    def lookup(self, diff_id: Digest, codec: str, /) -> Blob | None:
        return self.known.get((diff_id, codec))

    def store(self, diff_id: Digest, codec: str, blob: Blob, /) -> None:
        self.known[diff_id, codec] = blob


def unpack(compression: Compression, data: bytes) -> bytes:
    if compression is Compression.ZSTD:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return gzip.decompress(data)


def content(store: MemoryStore, digest: Digest) -> bytes:
    with store.open(digest) as stream:
        return stream.read()


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("data", [b"", b"x", TEXT], ids=["empty", "short", "long"])
def test_a_layer_unpacks_to_what_it_was(compression: Compression, data: bytes) -> None:
    store = MemoryStore()
    layer = LayerWriter(store, NullLayerCache(), compression).write([data])
    assert layer.diff_id == digest_of(data)
    assert layer.descriptor.media_type == compression.media_type
    packed = content(store, layer.descriptor.digest)
    assert len(packed) == layer.descriptor.size
    assert unpack(compression, packed) == data


@pytest.mark.parametrize("compression", Compression)
def test_the_bytes_are_pinned(compression: Compression) -> None:
    layer = LayerWriter(MemoryStore(), NullLayerCache(), compression).write([TEXT])
    assert layer.descriptor.digest == PINNED[compression]


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("step", [1009, 65_536, 300_000, 10_000_000])
def test_the_rhythm_of_the_source_does_not_show(compression: Compression, step: int) -> None:
    writer = LayerWriter(MemoryStore(), NullLayerCache(), compression)
    chunked = writer.write(TEXT[at : at + step] for at in range(0, len(TEXT), step))
    assert chunked == writer.write([TEXT])


def test_the_gzip_header_tells_nothing() -> None:
    store = MemoryStore()
    layer = LayerWriter(store, NullLayerCache(), Compression.GZIP).write([TEXT])
    assert content(store, layer.descriptor.digest)[:10] == bytes.fromhex("1f8b08000000000000ff")


def test_a_known_layer_is_hashed_but_not_compressed() -> None:
    store, cache = MemoryStore(), Cache()
    writer = LayerWriter(store, cache, Compression.GZIP)
    first = writer.write([TEXT], digest_of(TEXT))
    writes = dict(store.blobs)
    read = 0

    def chunks() -> "list[bytes]":
        nonlocal read
        read += len(TEXT)
        return [TEXT]

    assert writer.write(chunks(), digest_of(TEXT)) == first
    assert (store.blobs, read) == (writes, len(TEXT))


def test_another_codec_is_another_entry() -> None:
    store, cache = MemoryStore(), Cache()
    LayerWriter(store, cache, Compression.GZIP).write([TEXT], digest_of(TEXT))
    fast = LayerWriter(store, cache, Compression.FAST).write([TEXT], digest_of(TEXT))
    assert {codec for _, codec in cache.known} == {Compression.GZIP.codec, Compression.FAST.codec}
    assert unpack(Compression.FAST, content(store, fast.descriptor.digest)) == TEXT


def test_a_layer_under_a_known_layers_name_is_refused() -> None:
    writer = LayerWriter(MemoryStore(), Cache(), Compression.GZIP)
    writer.write([TEXT], digest_of(TEXT))
    with pytest.raises(ImageError, match="its bytes have another digest"):
        writer.write([b"not " + TEXT], digest_of(TEXT))


def test_a_cached_blob_that_the_sink_lost_is_made_again() -> None:
    store, cache = MemoryStore(), Cache()
    writer = LayerWriter(store, cache, Compression.GZIP)
    first = writer.write([TEXT], digest_of(TEXT))
    store.blobs.clear()
    assert writer.write([TEXT], digest_of(TEXT)) == first
    assert store.size(first.descriptor.digest) == first.descriptor.size


def test_a_name_that_is_no_diff_id_is_only_a_hint() -> None:
    layer = LayerWriter(MemoryStore(), Cache(), Compression.GZIP).write([TEXT], digest_of(b"some image id"))
    assert layer.diff_id == digest_of(TEXT)
