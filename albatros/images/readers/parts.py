"""What a reader gives: the platform, the config as it will be published, and the kept layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from albatros.domain.platforms import Platform
from albatros.errors import ImageError
from albatros.images.layers import Layer
from albatros.images.model import JsonObject

READERS = 1
"""Raised when a reader makes something else of the same bytes, so that what was remembered of them is not used."""


@dataclass(frozen=True, slots=True)
class ImageParts:
    """One platform's image before its manifest is written; `created` is the config's own time, or empty."""

    platform: Platform
    config: JsonObject
    layers: tuple[Layer, ...]

    @property
    def created(self) -> str:
        """When the source says that it was made, as it says so."""
        value = self.config.get("created")
        return value if isinstance(value, str) else ""

    def finished_config(self, created: str) -> JsonObject:
        """The config with what was computed here: platform, diff_ids, and `created` where the source says nothing."""
        finished = {key: value for key, value in self.config.items() if key != "variant"} | self.platform.as_json()
        finished["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id for layer in self.layers]}
        if created and not self.created:
            finished["created"] = created
        return finished


def text(config: Mapping[str, object], key: str) -> str:
    """A text of a config, empty when it is missing. Raises ImageError for anything else."""
    value = config.get(key) or ""
    if not isinstance(value, str):
        raise ImageError(f"{key!r} in the config is not text")
    return value


def claimed_diff_ids(config: Mapping[str, object]) -> list[object]:
    """What a config says of its layers. Raises ImageError when it says nothing."""
    rootfs = config.get("rootfs")
    claimed = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(claimed, list):
        raise ImageError("the config has no rootfs.diff_ids")
    return claimed


def check_diff_ids(config: Mapping[str, object], layers: tuple[Layer, ...], listed_in: str) -> None:
    """Compare what a config says with the layers that came. Raises ImageError."""
    claimed = claimed_diff_ids(config)
    if len(claimed) != len(layers):
        raise ImageError(f"the config names {len(claimed)} layers, {listed_in} {len(layers)}")
    for number, (diff_id, layer) in enumerate(zip(claimed, layers, strict=True), start=1):
        if diff_id != layer.diff_id:
            raise ImageError(
                f"layer {number} has the bytes of {layer.diff_id}, but the config says {str(diff_id)[:80]}: "
                "the archive is damaged or was changed"
            )
