"""What a tag shows to people: digest, date, platforms and sizes, out of the manifests of any registry.

It describes and does not judge: what cannot be read of a manifest is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from albatros.domain.references import Digest, digest_of, is_digest

ReadManifest = Callable[[str], "bytes | None"]
"""The bytes of a manifest by tag or digest; None when it is not there."""
_CREATED = "org.opencontainers.image.created"
_SHORT = 100


@dataclass(frozen=True, slots=True)
class PlatformSize:
    """One platform, such as `linux/arm/v6`; `size` in bytes of its config and layers as they are stored."""

    platform: str
    size: int


@dataclass(frozen=True, slots=True)
class TagSummary:
    """One tag; `created` is RFC 3339 or empty."""

    tag: str
    digest: Digest
    created: str
    platforms: tuple[PlatformSize, ...]

    @property
    def size(self) -> int:
        """Bytes of all platforms; what two of them share counts twice."""
        return sum(platform.size for platform in self.platforms)

    def as_json(self) -> dict[str, object]:
        """Its JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> TagSummary | None:
        """Read what `as_json` gave; None for anything else."""
        try:
            read = _object(value)
            platforms = tuple(PlatformSize(_text(p["platform"]), _size(p["size"])) for p in _objects(read["platforms"]))
            return cls(_text(read["tag"]), Digest(_text(read["digest"])), _text(read["created"]), platforms)
        except LookupError:
            return None


def summarize(read: ReadManifest, tag: str) -> TagSummary | None:
    """Look at a tag and at each manifest below it; None for a tag that is gone."""
    data = read(tag)
    if data is None:
        return None
    value = _parse(data)
    entries = _objects(value.get("manifests"))
    if entries:
        platforms = tuple(sorted(_platforms(read, entries), key=lambda platform: platform.platform))
    else:
        platforms = (PlatformSize("", _content_size(value)),)
    return TagSummary(tag, digest_of(data), _text(_object(value.get("annotations")).get(_CREATED)), platforms)


def _platforms(read: ReadManifest, entries: list[dict[str, object]]) -> list[PlatformSize]:
    found = []
    for entry in entries:
        platform = _object(entry.get("platform"))
        parts = [_text(platform.get(key)) for key in ("os", "architecture", "variant")]
        digest = _text(entry.get("digest"))
        if parts[0] not in ("", "unknown") and is_digest(digest):
            child = read(digest)
            found.append(PlatformSize("/".join(filter(None, parts)), _content_size(_parse(child or b""))))
    return found


def _content_size(manifest: dict[str, object]) -> int:
    return sum(_size(item.get("size")) for item in [*_objects(manifest.get("layers")), _object(manifest.get("config"))])


def _parse(data: bytes) -> dict[str, object]:
    try:
        return _object(json.loads(data))
    except (ValueError, RecursionError):
        return {}


def _object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list | tuple) else []


def _text(value: object) -> str:
    return value[:_SHORT] if isinstance(value, str) else ""


def _size(value: object) -> int:
    return value if type(value) is int and value >= 0 else 0
