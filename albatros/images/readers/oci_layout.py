"""OCI image layout, as a tar (OCI image spec, image-layout.md): `index.json`, and `blobs/sha256/` by digest.

Every document is checked against its digest, and the layers against the diff_ids of the config.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from albatros.domain import media, platforms
from albatros.domain.platforms import PlatformHints
from albatros.domain.references import digest_of
from albatros.errors import ImageError
from albatros.images.base import Source
from albatros.images.layers import Layer
from albatros.images.model import Descriptor, JsonObject, parse_json_object
from albatros.images.readers.contents import Contents
from albatros.images.readers.parts import ImageParts, check_diff_ids, text

INDEX = "index.json"
MARKER = "oci-layout"
_MAX_DEPTH = 4
_MAX_MANIFESTS = 100
_UNKNOWN = "unknown"
"""The platform of what is no image, such as buildkit's attestations."""


def layout_parts(contents: Contents, source: Source) -> list[ImageParts]:
    """The images of a layout, one for each platform. Raises ImageError."""
    data = contents.document(INDEX)
    if data is None:
        raise ImageError(f"it has neither manifest.json nor {INDEX}: it is no image archive")
    manifests = list(dict.fromkeys(_manifests(contents, parse_json_object(data, INDEX), _MAX_DEPTH)))
    if not 0 < len(manifests) <= _MAX_MANIFESTS:
        raise ImageError(f"its {INDEX} names {len(manifests)} images; it has to be one for each platform")
    if len(manifests) > 1:
        # A hint is for the one platform of a source.
        source = replace(source, hints=PlatformHints())
    return [_parts(contents, manifest, source) for manifest in manifests]


def _manifests(contents: Contents, index: JsonObject, depth: int) -> Iterator[Descriptor]:
    entries = index.get("manifests")
    if not isinstance(entries, list) or not depth:
        raise ImageError(f"its {INDEX} has no usable list of manifests")
    for number, entry in enumerate(entries):
        descriptor = Descriptor.from_json(entry, f"entry {number} of {INDEX}")
        if descriptor.media_type in (media.INDEX, media.DOCKER_LIST):
            yield from _manifests(contents, _document(contents, descriptor, "index"), depth - 1)
        elif descriptor.media_type in (media.MANIFEST, media.DOCKER_MANIFEST) and not _is_attestation(entry):
            yield descriptor


def _is_attestation(entry: object) -> bool:
    platform = entry.get("platform") if isinstance(entry, dict) else None
    return isinstance(platform, dict) and platform.get("architecture") == _UNKNOWN


def _parts(contents: Contents, descriptor: Descriptor, source: Source) -> ImageParts:
    manifest = _document(contents, descriptor, "manifest")
    listed = manifest.get("layers")
    if not isinstance(listed, list):
        raise ImageError(f"manifest {descriptor.digest} has no list of layers")
    config = _document(contents, Descriptor.from_json(manifest.get("config"), "the config's descriptor"), "config")
    layers = tuple(_layer(contents, Descriptor.from_json(entry, "a layer's descriptor")) for entry in listed)
    check_diff_ids(config, layers, "the manifest")
    platform = platforms.resolve(
        text(config, "os"), text(config, "architecture"), text(config, "variant"), source.hints
    )
    return ImageParts(platform, config, layers)


def _document(contents: Contents, descriptor: Descriptor, what: str) -> JsonObject:
    data = contents.document(_path(descriptor))
    if data is None:
        raise ImageError(f"the layout has no JSON file for its {what} {descriptor.digest}")
    if digest_of(data) != descriptor.digest:
        raise ImageError(f"the {what} {descriptor.digest} has the bytes of {digest_of(data)}: the layout is damaged")
    return parse_json_object(data, f"{what} {descriptor.digest}")


def _layer(contents: Contents, descriptor: Descriptor) -> Layer:
    found = contents.layer(_path(descriptor))
    if found is None:
        raise ImageError(f"the layout has no tar for its layer {descriptor.digest}")
    return found


def _path(descriptor: Descriptor) -> str:
    return f"blobs/sha256/{descriptor.digest.removeprefix('sha256:')}"
