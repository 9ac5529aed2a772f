"""Tags of a static registry: each a key of its own, and `tags/list`, which is derived from the keys.

There is no lock: whoever writes the list looks at the keys afterwards, and so sees the tags of all who wrote before.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable
from functools import partial

from albatros.domain import media
from albatros.domain.references import is_digest
from albatros.errors import NotFoundError, RegistryUnavailableError
from albatros.registries import layout
from albatros.registries.objects import ObjectStore

_ROUNDS = 20
_TAG_KEY = re.compile(r"v2/(?P<name>.+)/manifests/[^/:]+")


def list_tags(objects: ObjectStore, name: str) -> list[str]:
    """The tags that are there as keys, sorted."""
    return [found for found in objects.names(layout.manifests_prefix(name)) if not is_digest(found)]


def list_names(objects: ObjectStore) -> dict[str, int]:
    """Every name with the number of its tags, sorted by name; looks at every key."""
    found = Counter(match["name"] for item in objects.walk("v2/") if (match := _TAG_KEY.fullmatch(item.key)))
    return dict(sorted(found.items()))


def manifest_reader(objects: ObjectStore, name: str) -> Callable[[str], bytes | None]:
    """Reads the manifests of a name by tag or digest, 4 MiB of each at most; None for one that is not there."""

    def read(reference: str) -> bytes | None:
        try:
            with objects.open(layout.manifest_key(name, reference)) as stream:
                return stream.read(media.MAX_MANIFEST + 1)
        except NotFoundError:
            return None

    return read


def announce(objects: ObjectStore, name: str, tag: str) -> None:
    """List a tag whose key is about to be written, so that the key is the last write of a push."""
    announced = {*list_tags(objects, name), tag}
    if announced != _written(objects, name):
        _write(objects, name, announced)


def reconcile(objects: ObjectStore, name: str) -> None:
    """Write `tags/list` until it says what the keys say."""
    for _ in range(_ROUNDS):
        tags = set(list_tags(objects, name))
        if tags == _written(objects, name):
            return
        _write(objects, name, tags)
    raise RegistryUnavailableError(f"the tags of {name} change too fast to be listed; try again")


def _written(objects: ObjectStore, name: str) -> set[str] | None:
    """What `tags/list` says; None when it is missing or damaged."""
    try:
        with objects.open(layout.tags_key(name)) as stream:
            return set(json.load(stream)["tags"])
    except (NotFoundError, ValueError, LookupError, TypeError):
        return None


def _write(objects: ObjectStore, name: str, tags: set[str]) -> None:
    data = json.dumps({"name": name, "tags": sorted(tags)}).encode()
    objects.put(layout.tags_key(name), partial(io.BytesIO, data), layout.JSON_HEADERS)
