"""docker-archive, as `docker save` and nixpkgs' dockerTools write it (moby image spec v1.2, "Combined Image JSON").

`manifest.json` may come last. A layer under two names is a link or the same bytes again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from albatros.domain import platforms
from albatros.domain.references import Digest, parse_digest
from albatros.errors import BadInputError, ImageError
from albatros.images.base import Source
from albatros.images.layers import Layer
from albatros.images.model import JsonObject, parse_json_object
from albatros.images.readers.contents import Contents
from albatros.images.readers.parts import ImageParts, check_diff_ids, claimed_diff_ids, text

MANIFEST = "manifest.json"


def docker_parts(contents: Contents, source: Source) -> ImageParts:
    """The one image of a docker-archive. Raises ImageError."""
    config, names = _image(contents)
    layers = tuple(_layer(contents, name) for name in names)
    check_diff_ids(config, layers, MANIFEST)
    platform = platforms.resolve(
        text(config, "os"), text(config, "architecture"), text(config, "variant"), source.hints
    )
    return ImageParts(platform, config, layers)


def promised_layers(contents: Contents) -> dict[str, Digest]:
    """The diff_id that the config promises of each layer, by the file's name; nothing where it cannot be read."""
    try:
        config, names = _image(contents)
        diff_ids = [parse_digest(str(diff_id)) for diff_id in claimed_diff_ids(config)]
        return {contents.resolved(name): diff_id for name, diff_id in zip(names, diff_ids, strict=False)}
    except (ImageError, BadInputError):
        return {}


def _image(contents: Contents) -> tuple[JsonObject, list[str]]:
    config_name, layer_names = _entry_fields(_manifest_entry(contents))
    data = contents.document(config_name)
    if data is None:
        raise ImageError(f"{MANIFEST} names the config {config_name!r}, which is not a JSON file of the archive")
    return parse_json_object(data, f"config {config_name}"), layer_names


def _manifest_entry(contents: Contents) -> JsonObject:
    """The one image that `manifest.json` describes, under as many tags as it likes."""
    try:
        entries = json.loads(contents.document(MANIFEST) or b"")
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{MANIFEST} is not JSON: {str(error)[:200]}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ImageError(f"{MANIFEST} is not a list of images")
    if len(entries) != 1:
        raise ImageError(f"the archive holds {len(entries)} images; write one archive for each")
    return dict(entries[0])


def _layer(contents: Contents, name: str) -> Layer:
    found = contents.layer(name)
    if found is None:
        raise ImageError(f"{MANIFEST} names the layer {name!r}, which is not a tar of the archive")
    return found


def _entry_fields(entry: Mapping[str, object]) -> tuple[str, list[str]]:
    config, layers = entry.get("Config"), entry.get("Layers")
    if not isinstance(config, str) or not isinstance(layers, list) or not all(isinstance(name, str) for name in layers):
        raise ImageError(f"{MANIFEST} lacks a usable Config or Layers")
    return config, [str(name) for name in layers]
