"""Referrers: manifests that name another one as their `subject`, and the index that lists them for it.

OCI distribution spec 1.1, "Listing Referrers" and "Referrers Tag Schema". Everything read here is hostile.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from albatros.domain import media
from albatros.domain.references import Digest, digest_of, is_digest
from albatros.errors import BadInputError


@dataclass(frozen=True, slots=True)
class Referrer:
    """An entry of an index of referrers; `size` in bytes."""

    media_type: str
    digest: Digest
    size: int
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    def as_json(self) -> dict[str, object]:
        """Its JSON form, a descriptor."""
        value: dict[str, object] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return value


def subject_of(manifest: bytes) -> Digest | None:
    """The digest of what a manifest refers to; None for one that refers to nothing. Raises BadInputError."""
    subject = _object(manifest, "a manifest").get("subject")
    if subject is None:
        return None
    digest = subject.get("digest") if isinstance(subject, dict) else None
    if not isinstance(digest, str) or not is_digest(digest):
        raise BadInputError("a manifest names a subject without a usable digest")
    return Digest(digest)


def describe(media_type: str, manifest: bytes) -> Referrer:
    """The entry for a manifest: `artifactType` is its own, else its config's type. Raises BadInputError."""
    value = _object(manifest, "a manifest")
    config = value.get("config")
    kind = value.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else None)
    return Referrer(media_type, digest_of(manifest), len(manifest), _text(kind), _annotations(value))


def read_index(data: bytes) -> tuple[Referrer, ...]:
    """The entries of an index of referrers. Raises BadInputError."""
    entries = _object(data, "an index of referrers").get("manifests")
    if not isinstance(entries, list):
        raise BadInputError("an index of referrers has no list of manifests")
    return tuple(map(_entry, entries))


def write_index(referrers: Iterable[Referrer]) -> bytes:
    """An index of these, each once, in an order of its own: equal sets give equal bytes."""
    by_digest = {referrer.digest: referrer.as_json() for referrer in referrers}
    entries = [entry for _, entry in sorted(by_digest.items())]
    value = {"schemaVersion": 2, "mediaType": media.INDEX, "manifests": entries}
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def fallback_tag(subject: Digest) -> str:
    """The tag that lists referrers where a registry has no API for it."""
    return subject.replace(":", "-")


def _entry(value: object) -> Referrer:
    if not isinstance(value, dict):
        raise BadInputError("an index of referrers has an entry that is no object")
    media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    if not (isinstance(media_type, str) and isinstance(digest, str) and is_digest(digest)):
        raise BadInputError("an index of referrers has an entry without a usable mediaType or digest")
    if type(size) is not int or size < 0:
        raise BadInputError(f"an index of referrers has an impossible size for {digest}")
    return Referrer(media_type, Digest(digest), size, _text(value.get("artifactType")), _annotations(value))


def _object(data: bytes, what: str) -> dict[str, object]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{what} is not JSON") from error
    if not isinstance(value, dict):
        raise BadInputError(f"{what} is JSON, but not an object")
    return value


def _annotations(value: Mapping[str, object]) -> dict[str, str]:
    annotations = value.get("annotations")
    if not isinstance(annotations, dict):
        return {}
    return {key: text for key, text in annotations.items() if isinstance(text, str)}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
