"""An Image: one OCI index over a manifest per platform, with the exact bytes of both.

Bytes are canonical JSON (sorted keys, no spaces, UTF-8), so equal contents have equal digests. An Image is reloaded
from its index digest alone, because index, manifests and configs are blobs too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from albatros.domain import media
from albatros.domain.platforms import Platform, published_form
from albatros.domain.references import Blob, Digest, digest_of, parse_digest
from albatros.errors import AlbatrosError, ImageError
from albatros.images.base import BlobSource

JsonObject = dict[str, object]


def parse_json_object(data: bytes, what: str) -> JsonObject:
    """Read a JSON object from hostile bytes. Raises ImageError that names `what`."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what} is not JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise ImageError(f"{what} is JSON, but not an object")
    return value


def canonical_json(value: Mapping[str, object], what: str) -> bytes:
    """The one byte form of a JSON object. Raises ImageError for what UTF-8 or JSON cannot carry."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what} holds text or numbers that JSON cannot carry: {error}") from error


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob with its media type (OCI image spec, descriptor.md); `size` in bytes."""

    media_type: str
    digest: Digest
    size: int

    @property
    def blob(self) -> Blob:
        """The bytes it describes."""
        return Blob(self.digest, self.size)

    def as_json(self) -> JsonObject:
        """Its JSON form."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}

    @classmethod
    def from_json(cls, value: object, what: str) -> Descriptor:
        """Read its JSON form. Raises ImageError that names `what`."""
        if isinstance(value, dict):
            media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
            if isinstance(media_type, str) and isinstance(digest, str) and type(size) is int and size >= 0:
                return cls(media_type, _digest(digest, what), size)
        raise ImageError(f"{what} lacks a usable mediaType, digest or size")


def _digest(text: str, what: str) -> Digest:
    try:
        return parse_digest(text)
    except AlbatrosError as error:
        raise ImageError(f"{what}: {error.detail}") from error


@dataclass(frozen=True, slots=True)
class PlatformManifest:
    """The image of one platform: its manifest's exact bytes and what they name."""

    platform: Platform
    manifest_bytes: bytes = field(repr=False)
    descriptor: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @classmethod
    def build(
        cls, platform: Platform, config: Descriptor, layers: tuple[Descriptor, ...], annotations: Mapping[str, str]
    ) -> PlatformManifest:
        """Write the manifest (OCI image spec, manifest.md). Raises ImageError when it is over 4 MiB."""
        value: JsonObject = {
            "schemaVersion": 2,
            "mediaType": media.MANIFEST,
            "config": config.as_json(),
            "layers": [layer.as_json() for layer in layers],
        }
        data = _bounded(
            canonical_json(_with_annotations(value, annotations), "the manifest"), f"manifest of {platform}"
        )
        return cls(platform, data, Descriptor(media.MANIFEST, digest_of(data), len(data)), config, layers)

    @classmethod
    def parse(cls, platform: Platform, data: bytes) -> PlatformManifest:
        """Read a manifest's bytes. Raises ImageError."""
        what = f"manifest of {platform}"
        value = parse_json_object(_bounded(data, what), what)
        layers = value.get("layers")
        if not isinstance(layers, list):
            raise ImageError(f"{what} has no list of layers")
        media_type = value.get("mediaType", media.MANIFEST)
        if not isinstance(media_type, str):
            raise ImageError(f"{what} has a mediaType that is not text")
        return cls(
            platform,
            data,
            Descriptor(media_type, digest_of(data), len(data)),
            Descriptor.from_json(value.get("config"), f"config in the {what}"),
            tuple(Descriptor.from_json(layer, f"layer {n} in the {what}") for n, layer in enumerate(layers)),
        )


@dataclass(frozen=True, slots=True)
class Image:
    """One image for all its platforms, sorted by platform; one that others published without an index is its own."""

    index_bytes: bytes = field(repr=False)
    descriptor: Descriptor
    manifests: tuple[PlatformManifest, ...]

    @property
    def digest(self) -> Digest:
        """The index's digest: what a tag points to on every registry."""
        return self.descriptor.digest

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """What it runs on."""
        return tuple(manifest.platform for manifest in self.manifests)

    def content_blobs(self) -> tuple[Blob, ...]:
        """Configs and layers, each once, in a fixed order."""
        every = (d.blob for m in self.manifests for d in (*m.layers, m.config))
        return tuple(dict.fromkeys(every))

    def all_blobs(self) -> Iterator[Blob]:
        """Everything it needs to stay whole: configs, layers, manifests, index."""
        yield from self.content_blobs()
        yield from dict.fromkeys((*(manifest.descriptor.blob for manifest in self.manifests), self.descriptor.blob))

    @classmethod
    def build(cls, manifests: tuple[PlatformManifest, ...], annotations: Mapping[str, str]) -> Image:
        """Write the index (OCI image spec, image-index.md). Raises ImageError when it is over 4 MiB."""
        ordered = tuple(sorted(manifests, key=lambda manifest: manifest.platform))
        value: JsonObject = {
            "schemaVersion": 2,
            "mediaType": media.INDEX,
            "manifests": [m.descriptor.as_json() | {"platform": m.platform.as_json()} for m in ordered],
        }
        data = _bounded(canonical_json(_with_annotations(value, annotations), "the index"), "index")
        return cls(data, Descriptor(media.INDEX, digest_of(data), len(data)), ordered)

    @classmethod
    def load(cls, blobs: BlobSource, digest: Digest) -> Image:
        """Read an Image back. Raises NotFoundError for a blob that is gone, ImageError for one that is damaged."""
        index = _read_checked(blobs, digest, "index")
        entries = parse_index(index)
        manifests = tuple(
            PlatformManifest.parse(platform, _read_checked(blobs, entry.digest, f"manifest of {platform}"))
            for platform, entry in entries
        )
        return cls(index, Descriptor(media.INDEX, digest, len(index)), manifests)


def parse_index(data: bytes) -> tuple[tuple[Platform, Descriptor], ...]:
    """The platform manifests that an index names. Raises ImageError."""
    entries = parse_json_object(_bounded(data, "index"), "index").get("manifests")
    if not isinstance(entries, list):
        raise ImageError("the index has no list of manifests")
    return tuple(
        (_platform(entry, f"entry {n} of the index"), Descriptor.from_json(entry, f"entry {n} of the index"))
        for n, entry in enumerate(entries)
    )


def annotations_of(image: Image) -> dict[str, str]:
    """The annotations of an Image's index. Raises ImageError."""
    found = parse_json_object(image.index_bytes, "index").get("annotations")
    texts = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in texts if isinstance(value, str)}


def created_of(image: Image) -> datetime | None:
    """When an Image says that it was made (`org.opencontainers.image.created`); None when it does not."""
    try:
        return datetime.fromisoformat(annotations_of(image).get("org.opencontainers.image.created", ""))
    except ValueError:
        return None


def _platform(entry: object, what: str) -> Platform:
    platform = entry.get("platform") if isinstance(entry, dict) else None
    if not isinstance(platform, dict):
        raise ImageError(f"{what} names no platform")
    parts = [platform.get(key, "") for key in ("os", "architecture", "variant")]
    if not all(isinstance(part, str) for part in parts):
        raise ImageError(f"{what} names a platform that is not text")
    return published_form(*(str(part) for part in parts))


def _with_annotations(value: JsonObject, annotations: Mapping[str, str]) -> JsonObject:
    return value | {"annotations": dict(annotations)} if annotations else value


def _bounded(data: bytes, what: str) -> bytes:
    if len(data) > media.MAX_MANIFEST:
        raise ImageError(f"{what} has {len(data)} bytes; registries take at most {media.MAX_MANIFEST}")
    return data


def _read_checked(blobs: BlobSource, digest: Digest, what: str) -> bytes:
    with blobs.open(digest) as stream:
        data = stream.read(media.MAX_MANIFEST + 1)
    if digest_of(_bounded(data, what)) != digest:
        raise ImageError(f"the stored {what} does not match its digest {digest}: the store is damaged")
    return data
