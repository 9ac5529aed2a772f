"""Manifests and indexes: canonical bytes, read back only when they are whole."""

import pytest

from albatros.domain import media
from albatros.domain.platforms import Platform
from albatros.domain.references import Blob, Digest, digest_of
from albatros.errors import ImageError, NotFoundError
from albatros.images.model import (
    Descriptor,
    Image,
    PlatformManifest,
    canonical_json,
    parse_index,
    parse_json_object,
)
from tests.support.stores import MemoryStore

AMD64, ARM = Platform("linux", "amd64"), Platform("linux", "arm", "v6")
LAYER = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", digest_of(b"layer"), 5)
CONFIG = Descriptor(media.CONFIG, digest_of(b"config"), 6)


def image() -> Image:
    one = PlatformManifest.build(AMD64, CONFIG, (LAYER,), {})
    two = PlatformManifest.build(ARM, CONFIG, (LAYER, LAYER), {"a": "b"})
    return Image.build((two, one), {"a": "b"})


def keep(made: Image) -> MemoryStore:
    store = MemoryStore()
    for data in (made.index_bytes, *(manifest.manifest_bytes for manifest in made.manifests)):
        store.put((data,))
    return store


def test_the_bytes_are_canonical() -> None:
    index = image().index_bytes
    assert index.startswith(b'{"annotations":{"a":"b"},"manifests":[{"digest":"sha256:')
    assert b'"platform":{"architecture":"arm","os":"linux","variant":"v6"}' in index
    assert canonical_json(parse_json_object(index, "index"), "index") == index
    assert canonical_json({"b": "ü", "a": 1}, "it") == '{"a":1,"b":"ü"}'.encode()


def test_an_image_comes_back_from_its_digest() -> None:
    made = image()
    assert Image.load(keep(made), made.digest) == made
    assert made.platforms == (AMD64, ARM)


def test_each_blob_is_named_once() -> None:
    made = image()
    assert made.content_blobs() == (Blob(LAYER.digest, 5), Blob(CONFIG.digest, 6))
    assert [blob.digest for blob in made.all_blobs()] == [
        LAYER.digest,
        CONFIG.digest,
        *(manifest.descriptor.digest for manifest in made.manifests),
        made.digest,
    ]


def test_a_blob_that_is_gone_or_damaged_is_told() -> None:
    made = image()
    with pytest.raises(NotFoundError):
        Image.load(MemoryStore(), made.digest)
    store = keep(made)
    child = made.manifests[1].descriptor.digest
    store.blobs[child] = (store.blobs[child][0] + b" ", store.blobs[child][1])
    with pytest.raises(ImageError, match=r"manifest of linux/arm/v6 does not match its digest"):
        Image.load(store, made.digest)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"manifests":{}}',
        b'{"manifests":[1]}',
        b'{"manifests":[{"platform":{"os":"linux","architecture":"amd64"}}]}',
        b'{"manifests":[{"platform":{"os":1,"architecture":"amd64"}}]}',
        b'{"manifests":[{"mediaType":"x","digest":"md5:1","size":1,"platform":{"os":"linux","architecture":"amd64"}}]}',
        b'{"manifests":[{"mediaType":"x","digest":"sha256:' + b"0" * 64 + b'","size":true}]}',
        b"[" * 100_000,
        b'{"a":' + b"9" * 10_000 + b"}",
        b'{"manifests":[],"x":"' + b"y" * media.MAX_MANIFEST + b'"}',
    ],
)
def test_an_index_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        parse_index(data)


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"layers":[]}',
        b'{"layers":[],"mediaType":1}',
        b'{"layers":[{}],"config":{}}',
    ],
)
def test_a_manifest_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        PlatformManifest.parse(AMD64, data)


@pytest.mark.parametrize("size", [-1, 1.5, True, "5", None])
def test_a_descriptor_without_a_size_is_refused(size: object) -> None:
    with pytest.raises(ImageError, match="it lacks a usable"):
        Descriptor.from_json({"mediaType": "x", "digest": Digest("sha256:" + "0" * 64), "size": size}, "it")


def test_an_index_over_4_mib_is_refused() -> None:
    with pytest.raises(ImageError, match="registries take at most"):
        Image.build((), {"a": "x" * media.MAX_MANIFEST})


@pytest.mark.parametrize("value", [{"a": float("inf")}, {"a": "\ud800"}])
def test_what_json_cannot_carry_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(ImageError, match="cannot carry"):
        canonical_json(value, "it")
