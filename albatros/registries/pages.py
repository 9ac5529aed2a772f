"""The pages of a static registry for people: one that lists the images, and one for each with its tags.

Derived like `tags/list`: written, then looked at again until they agree with the keys, so of two pushers the last one
shows both. A summary beside each page keeps what was read, so that a push reads only the tags that moved.
"""

from __future__ import annotations

import io
import json
from functools import partial

from albatros.domain.references import is_digest
from albatros.errors import NotFoundError, RegistryUnavailableError
from albatros.registries import layout
from albatros.registries.html import GENERATOR, image_page, list_page
from albatros.registries.objects import ObjectStore
from albatros.registries.static_tags import manifest_reader
from albatros.registries.summary import TagSummary, summarize

_ROUNDS = 20
_LARGEST = 64 << 20


def update(objects: ObjectStore, name: str) -> None:
    """Bring the page of a name, and the list of names, up to date. Raises RegistryError."""
    for _ in range(_ROUNDS):
        seen = _seen(objects, name)
        known = _known(objects, name)
        if {tag: moment for tag, (moment, _) in known.items()} == seen:
            _update_list(objects)
            return
        _write(objects, name, seen, known)
    raise RegistryUnavailableError(f"the tags of {name} change too fast for its page; try again")


def _seen(objects: ObjectStore, name: str) -> dict[str, str]:
    """When each tag was moved last."""
    prefix = layout.manifests_prefix(name)
    found = ((item.key.removeprefix(prefix), item.modified.isoformat()) for item in objects.walk(prefix))
    return {tag: moment for tag, moment in found if not is_digest(tag)}


def _known(objects: ObjectStore, name: str) -> dict[str, tuple[str, TagSummary]]:
    """What the summary says; nothing when it is missing or damaged."""
    known: dict[str, tuple[str, TagSummary]] = {}
    try:
        with objects.open(layout.summary_key(name)) as stream:
            for moment, value in json.loads(stream.read(_LARGEST)):
                if summary := TagSummary.from_json(value):
                    known[summary.tag] = (str(moment), summary)
    except (NotFoundError, ValueError, TypeError, RecursionError):
        return {}
    return known


def _write(objects: ObjectStore, name: str, seen: dict[str, str], known: dict[str, tuple[str, TagSummary]]) -> None:
    read = manifest_reader(objects, name)
    tags: dict[str, tuple[str, TagSummary]] = {}
    for tag, moment in sorted(seen.items()):
        if tag in known and known[tag][0] == moment:
            tags[tag] = known[tag]
        elif summary := summarize(read, tag):
            tags[tag] = (moment, summary)
    page = image_page(name, [summary for _, summary in tags.values()])
    _put(objects, layout.page_key(name), page.encode(), layout.PAGE_HEADERS)
    rows = [[moment, summary.as_json()] for moment, summary in tags.values()]
    _put(objects, layout.summary_key(name), json.dumps(rows).encode(), layout.JSON_HEADERS)


def _update_list(objects: ObjectStore) -> None:
    for _ in range(_ROUNDS):
        names = sorted(layout.summarized(item.key) for item in objects.walk(layout.PAGES))
        page = list_page(names).encode()
        written = _read(objects, layout.LIST_KEY)
        # Somebody's own page is not ours to replace.
        if written == page or (written is not None and GENERATOR.encode() not in written):
            return
        _put(objects, layout.LIST_KEY, page, layout.PAGE_HEADERS)
    raise RegistryUnavailableError("the images change too fast for their page; try again")


def _read(objects: ObjectStore, key: str) -> bytes | None:
    try:
        with objects.open(key) as stream:
            return stream.read(_LARGEST)
    except NotFoundError:
        return None


def _put(objects: ObjectStore, key: str, data: bytes, headers: layout.Headers) -> None:
    objects.put(key, partial(io.BytesIO, data), headers)
