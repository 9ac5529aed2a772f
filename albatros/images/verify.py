"""Looking at a published image from outside, and checking every byte of it: digests, sizes, platforms and diff_ids.

Works on any Registry; nothing is kept, and nothing that the registry says is believed before it was computed here.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, replace
from typing import BinaryIO

from albatros.domain import media
from albatros.domain.platforms import Platform, published_form
from albatros.domain.references import Blob, Digest, digest_of
from albatros.errors import ImageError, NotFoundError
from albatros.images.assemble import DEFAULT_MAX_SIZE
from albatros.images.model import Descriptor, Image, JsonObject, PlatformManifest, parse_index, parse_json_object
from albatros.images.streams import BoundedReader, blocks, unpacked
from albatros.registries.base import Registry

_NOT_SAID = Platform("", "one platform")


@dataclass(frozen=True, slots=True)
class VerifiedPlatform:
    """One platform whose every byte was read and is right; `bytes_read` as they are stored."""

    platform: Platform
    digest: Digest
    bytes_read: int


def read_published(registry: Registry, name: str, reference: str) -> Image:
    """The Image under a tag or digest, its manifests checked. Raises NotFoundError, ImageError and RegistryError."""
    found = registry.get_manifest(name, reference)
    if found is None:
        raise NotFoundError(f"{registry.address} has no {name} under {reference}; check the name and the tag")
    if found.media_type in (media.MANIFEST, media.DOCKER_MANIFEST):
        return _read_single(registry, name, found.data)
    if found.media_type not in (media.INDEX, media.DOCKER_LIST):
        raise ImageError(f"{reference} of {name} is {found.media_type}, and no image")
    manifests = tuple(_read_manifest(registry, name, platform, entry) for platform, entry in parse_index(found.data))
    return Image(found.data, Descriptor(found.media_type, digest_of(found.data), len(found.data)), manifests)


def read_config(registry: Registry, name: str, manifest: PlatformManifest) -> JsonObject:
    """The config of one platform, its digest checked. Raises ImageError."""
    what = f"config of {manifest.platform}"
    if manifest.config.size > media.MAX_MANIFEST:
        raise ImageError(f"the {what} has {manifest.config.size} bytes; at most {media.MAX_MANIFEST} are read")
    with registry.open_blob(name, manifest.config.blob) as stream:
        data = stream.read(media.MAX_MANIFEST + 1)
    if digest_of(data) != manifest.config.digest:
        raise ImageError(f"the {what} has the bytes of {digest_of(data)}, not of {manifest.config.digest}")
    return parse_json_object(data, what)


def verify_platform(
    registry: Registry, name: str, manifest: PlatformManifest, max_size: int = DEFAULT_MAX_SIZE
) -> VerifiedPlatform:
    """Read one platform whole. Raises ImageError that names what does not fit; `max_size` bounds a layer unpacked."""
    config = read_config(registry, name, manifest)
    own = _own_platform(config, f"the config of {manifest.platform}")
    if own != manifest.platform:
        raise ImageError(f"the index says {manifest.platform}, the config in it says {own}")
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) != len(manifest.layers):
        raise ImageError(f"the config of {manifest.platform} does not name its {len(manifest.layers)} layers")
    for layer, diff_id in zip(manifest.layers, diff_ids, strict=True):
        _verify_layer(registry, name, layer.blob, diff_id, max_size)
    read = sum(layer.size for layer in manifest.layers) + manifest.config.size + manifest.descriptor.size
    return VerifiedPlatform(manifest.platform, manifest.descriptor.digest, read)


def _read_single(registry: Registry, name: str, data: bytes) -> Image:
    """An image of one platform without an index, as many tools publish it: its config says the platform."""
    manifest = PlatformManifest.parse(_NOT_SAID, data)
    platform = _own_platform(read_config(registry, name, manifest), "its config")
    return Image(data, manifest.descriptor, (replace(manifest, platform=platform),))


def _own_platform(config: JsonObject, what: str) -> Platform:
    said = [config.get(key, "") for key in ("os", "architecture", "variant")]
    if not all(isinstance(part, str) for part in said):
        raise ImageError(f"{what} names a platform that is not text")
    return published_form(*(str(part) for part in said))


def _read_manifest(registry: Registry, name: str, platform: Platform, entry: Descriptor) -> PlatformManifest:
    found = registry.get_manifest(name, entry.digest)
    if found is None:
        raise NotFoundError(f"{registry.address}/{name} is incomplete: it lacks {entry.digest}, for {platform}")
    if digest_of(found.data) != entry.digest or len(found.data) != entry.size:
        seen = f"{digest_of(found.data)} with {len(found.data)} bytes"
        raise ImageError(f"the manifest of {platform} is {seen}, not {entry.digest} with {entry.size}")
    return PlatformManifest.parse(platform, found.data)


def _verify_layer(registry: Registry, name: str, blob: Blob, diff_id: object, max_size: int) -> None:
    with registry.open_blob(name, blob) as stream:
        passed = _HashingReader(stream)
        content = hashlib.sha256()
        for block in blocks(BoundedReader(unpacked(passed), max_size, threading.Event())):
            content.update(block)
        for _ in blocks(passed):
            pass
    if passed.blob() != blob:
        raise ImageError(f"layer {blob.digest} has the bytes of {passed.blob().digest} ({passed.blob().size} bytes)")
    if diff_id != f"sha256:{content.hexdigest()}":
        raise ImageError(f"layer {blob.digest} unpacks to sha256:{content.hexdigest()}, not to {str(diff_id)[:80]}")


class _HashingReader:
    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._hasher = hashlib.sha256()
        self._size = 0

    def read(self, size: int, /) -> bytes:
        data = self._raw.read(size)
        self._hasher.update(data)
        self._size += len(data)
        return data

    def blob(self) -> Blob:
        return Blob(Digest(f"sha256:{self._hasher.hexdigest()}"), self._size)
