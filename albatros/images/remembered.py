"""Sources whose bytes are known without reading them, and that were read before: what they became is known.

Nothing is believed but what this program wrote down itself, of the same bytes, read by the same readers likewise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from albatros.domain.platforms import normal_form
from albatros.domain.references import Digest, digest_of
from albatros.images.base import BlobSource, Source, SourceMemory
from albatros.images.layers import Layer
from albatros.images.model import Descriptor, JsonObject, canonical_json, parse_json_object
from albatros.images.readers.parts import READERS, ImageParts

_WHAT = "a remembered source"
_MOST = 256 << 10
"""Bytes that are remembered of one source; a config that needs more is read again."""


def read_remembered(
    source: Source,
    codec: str,
    blobs: BlobSource,
    memory: SourceMemory,
    read: Callable[[Source], list[ImageParts]],
) -> list[ImageParts]:
    """What `read` gives, without calling it where that is remembered and its layers are still among `blobs`."""
    if source.digest is None:
        return read(source)
    how = _how(source, codec)
    known = memory.recall(source.digest, how)
    if known is not None:
        parts = _loaded(known)
        if all(blobs.size(layer.digest) == layer.size for layer in _layers(parts)):
            return parts
    parts = read(source)
    written = canonical_json({"parts": [_dumped(part) for part in parts]}, _WHAT).decode()
    if len(written) <= _MOST:
        memory.remember(source.digest, how, written, {layer.blob for layer in _layers(parts)})
    return parts


def _layers(parts: list[ImageParts]) -> list[Descriptor]:
    return [layer.descriptor for part in parts for layer in part.layers]


def _how(source: Source, codec: str) -> str:
    """Everything but the bytes that decides what a source becomes."""
    value = {
        "readers": READERS,
        "codec": codec,
        "hints": [str(platform) for platform in source.hints.candidates()],
        "asked": str(source.hints.explicit or ""),
        "entrypoint": source.entrypoint,
    }
    return digest_of(canonical_json(value, _WHAT))


def _dumped(part: ImageParts) -> JsonObject:
    layers = [{"diff_id": layer.diff_id, "blob": layer.descriptor.as_json()} for layer in part.layers]
    return {"platform": part.platform.as_json(), "config": part.config, "layers": layers}


def _loaded(text: str) -> list[ImageParts]:
    parts = parse_json_object(text.encode(), _WHAT)["parts"]
    return [_part(part) for part in cast("list[JsonObject]", parts)]


def _part(value: JsonObject) -> ImageParts:
    platform = cast("dict[str, str]", value["platform"])
    layers = cast("list[JsonObject]", value["layers"])
    return ImageParts(
        normal_form(platform["os"], platform["architecture"], platform.get("variant")),
        cast("JsonObject", value["config"]),
        tuple(
            Layer(Digest(str(layer["diff_id"])), Descriptor.from_json(layer["blob"], f"a layer of {_WHAT}"))
            for layer in layers
        ),
    )
