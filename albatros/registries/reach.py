"""What a static registry still needs: all that can be reached from its tags and leases.

From an index to its manifests, to their configs and layers, and from each to what refers to it: by marker, or by a tag
`sha256-HEX` with or without a suffix, which stands for its subject and is no root. Nothing is guessed: a manifest that
cannot be read ends the marking.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable

from albatros.domain.references import Digest, digest_of, is_digest, parse_digest
from albatros.errors import AlbatrosError, RegistryError
from albatros.registries import layout
from albatros.registries.objects import ObjectStore
from albatros.registries.static_tags import manifest_reader

_ATTACHMENT = re.compile(r"sha256-([0-9a-f]{64})(?:\..+)?")


def attached_to(tag: str) -> Digest | None:
    """The subject of a tag that only attaches something to a manifest (referrers tag schema, cosign's tags)."""
    found = _ATTACHMENT.fullmatch(tag)
    return Digest(f"sha256:{found[1]}") if found else None


class Reach:
    """Marks one name after the other; remembers the manifests that it has read, since a digest's bytes stay."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._edges: dict[tuple[str, Digest], list[Digest]] = {}

    def mark(self, name: str, leased: Iterable[Digest]) -> set[Digest]:
        """The digests of a name that are needed. The leases must have been read before this is called.

        A push moves its tags before it gives its lease back, so one of the two is seen. Raises RegistryError.
        """
        keys = set(self._objects.names(layout.manifests_prefix(name)))
        attachments: dict[Digest, list[str]] = defaultdict(list)
        roots: list[Digest] = list(leased)
        for tag in keys:
            if subject := attached_to(tag):
                attachments[subject].append(tag)
            elif not is_digest(tag):
                roots += self._tagged(name, tag)
        marked: set[Digest] = set()
        while roots:
            digest = roots.pop()
            if digest in marked:
                continue
            marked.add(digest)
            if digest in keys:
                roots += self._children(name, digest)
                roots += map(Digest, self._objects.names(layout.referrer_markers(name, digest)))
            for tag in attachments.get(digest, ()):
                roots += self._tagged(name, tag)
        return marked

    def _tagged(self, name: str, tag: str) -> list[Digest]:
        data = manifest_reader(self._objects, name)(tag)
        if data is None:
            return []
        digest = digest_of(data)
        # A tag may name a manifest that has lost its copy by digest; what is below it is needed all the same.
        return [digest, *self._remembered(name, digest, data)]

    def _children(self, name: str, digest: Digest) -> list[Digest]:
        if (name, digest) in self._edges:
            return self._edges[name, digest]
        data = manifest_reader(self._objects, name)(digest)
        return [] if data is None else self._remembered(name, digest, data)

    def _remembered(self, name: str, digest: Digest, data: bytes) -> list[Digest]:
        if (name, digest) not in self._edges:
            self._edges[name, digest] = _named(name, digest, data)
        return self._edges[name, digest]


def _named(name: str, digest: Digest, data: bytes) -> list[Digest]:
    """Every digest in the descriptors of a manifest or index (OCI image spec, manifest.md and image-index.md)."""
    try:
        value = json.loads(data)
        descriptors = [*value.get("manifests", []), *value.get("layers", [])]
        descriptors += [value["config"]] if "config" in value else []
        return [parse_digest(descriptor["digest"]) for descriptor in descriptors]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, AlbatrosError) as error:
        raise RegistryError(
            f"{digest} of {name} cannot be read as a manifest, so what it needs is not known and nothing more is "
            "deleted; push the tags of this name again, or remove the damaged one"
        ) from error
