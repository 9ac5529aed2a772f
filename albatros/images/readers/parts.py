"""What a reader gives: the platform, the config as it will be published, and the kept layers."""

from __future__ import annotations

from dataclasses import dataclass

from albatros.domain.platforms import Platform
from albatros.images.layers import Layer
from albatros.images.model import JsonObject


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
