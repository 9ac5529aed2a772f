"""Taking away from a static registry what nothing needs, beside running pushes and other collectors.

Mark, choose what is unmarked and older than the grace, write a tombstone, wait, mark again, delete: manifests before
blobs, each only if it is still old and the tombstone still stands. Killed anywhere, every tag is as whole as before.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from albatros.domain.references import Digest, is_digest
from albatros.errors import RegistryUnavailableError
from albatros.registries import layout, leases, static_tags
from albatros.registries.objects import ObjectStore, StoredObject
from albatros.registries.reach import Reach, attached_to

DEFAULT_GRACE = timedelta(hours=24)
PAUSE_SECONDS = 10.0
"""Between tombstone and second mark: time for a pusher's first write to be seen everywhere."""
MAX_DOOMED = 10_000
"""Objects deleted in one run, which bounds the size of a tombstone and how long a pusher may have to wait."""
_RENEW_BEFORE = leases.TOMBSTONE_LIFE - timedelta(seconds=30)
_END_BEFORE = timedelta(minutes=2)
_KEY = re.compile(r"v2/(?P<name>.+)/(?P<kind>manifests|referrers|blobs)/(?P<reference>[^/]+)")
_MARKER = re.compile(rf"{re.escape(layout.REFERRERS)}(?P<name>.+)/(?P<reference>[^/]+)/[^/]+")
_ORDER = ("tag", "manifests", "referrers", "marker", "blobs")


@dataclass(frozen=True, slots=True, order=True)
class Doomed:
    """An object that nothing needs; `order` is its place in the order of deletion, `size` is in bytes."""

    order: int
    key: str
    name: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Collection:
    """What a run took away, or would take away; sizes in bytes. `left` objects wait for the next run."""

    deleted: tuple[Doomed, ...]
    left: int

    @property
    def size(self) -> int:
        """Bytes of everything that went."""
        return sum(doomed.size for doomed in self.deleted)


class _Tombstone:
    """Ours, renewed while we delete."""

    def __init__(self, objects: ObjectStore, digests: leases.Digests) -> None:
        self.digests = digests
        self.key = leases.new_tombstone()
        self._objects = objects
        self._expires = self._write()

    def _write(self) -> datetime:
        return leases.write(self._objects, self.key, self.digests, leases.TOMBSTONE_LIFE)

    def check(self) -> None:
        """Raises RegistryUnavailableError when pushers may soon think that we are gone."""
        left = self._expires - datetime.now(UTC)
        if left < _END_BEFORE:
            raise RegistryUnavailableError("the collector was held up for too long; run it again to go on")
        if left < _RENEW_BEFORE:
            self._expires = self._write()


def collect(
    objects: ObjectStore,
    *,
    grace: timedelta = DEFAULT_GRACE,
    dry_run: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Collection:
    """One run. `grace` is how old, since its last use by a push, an object must be that nothing needs.

    Raises RegistryError when a manifest or lease cannot be read (nothing was deleted then) and
    RegistryUnavailableError when a later run may do better.
    """
    cutoff = datetime.now(UTC) - grace
    reach = Reach(objects)
    every = sorted(_choose(objects, reach, cutoff))
    doomed, left = every[:MAX_DOOMED], len(every[MAX_DOOMED:])
    if dry_run:
        return Collection(tuple(doomed), left)
    if not doomed:
        _bury(objects, cutoff)
        return Collection((), 0)
    tombstone = _Tombstone(objects, _by_name(doomed))
    try:
        sleep(PAUSE_SECONDS)
        needed = _mark(objects, reach, tombstone.digests)
        still = [item for item in doomed if item.digest not in needed[item.name]]
        deleted = tuple(_delete(objects, still, tombstone, cutoff))
    finally:
        objects.delete(tombstone.key)
    _bury(objects, cutoff)
    return Collection(deleted, left)


def _choose(objects: ObjectStore, reach: Reach, cutoff: datetime) -> Iterator[Doomed]:
    """What is unmarked, with everything of its digest older than the cutoff."""
    found: dict[str, dict[Digest, list[tuple[str, StoredObject]]]] = defaultdict(lambda: defaultdict(list))
    for prefix, pattern in (("v2/", _KEY), (layout.REFERRERS, _MARKER)):
        for item in objects.walk(prefix):
            if key := pattern.fullmatch(item.key):
                reference = key["reference"]
                subject = attached_to(reference)
                if subject is not None or is_digest(reference):
                    kind = "tag" if subject else key.groupdict().get("kind") or "marker"
                    found[key["name"]][subject or Digest(reference)].append((kind, item))
    needed = _mark(objects, reach, found)
    for name, digests in found.items():
        for digest, items in digests.items():
            if digest not in needed[name] and all(item.modified < cutoff for _, item in items):
                for kind, item in items:
                    yield Doomed(_ORDER.index(kind), item.key, name, digest, item.size)


def _mark(objects: ObjectStore, reach: Reach, names: Iterable[str]) -> dict[str, set[Digest]]:
    now = datetime.now(UTC)
    leased: dict[str, list[Digest]] = defaultdict(list)
    for lease in leases.read(objects, layout.LEASES):
        if lease.expires > now:
            for name, digests in lease.digests.items():
                leased[name] += digests
    return {name: reach.mark(name, leased[name]) for name in names}


def _by_name(doomed: Iterable[Doomed]) -> dict[str, list[Digest]]:
    names: dict[str, set[Digest]] = defaultdict(set)
    for item in doomed:
        names[item.name].add(item.digest)
    return {name: sorted(digests) for name, digests in names.items()}


def _delete(
    objects: ObjectStore, doomed: Iterable[Doomed], tombstone: _Tombstone, cutoff: datetime
) -> Iterator[Doomed]:
    tags_gone: set[str] = set()
    for item in doomed:
        tombstone.check()
        found = objects.find(item.key)
        if found is None or found.modified >= cutoff:
            continue
        objects.delete(item.key)
        if _ORDER[item.order] == "tag":
            tags_gone.add(item.name)
        yield item
    for name in tags_gone:
        static_tags.reconcile(objects, name)


def _bury(objects: ObjectStore, cutoff: datetime) -> None:
    """Remove what those left who died: leases, tombstones, and files that never got their name."""
    for prefix in (layout.LEASES, layout.TOMBSTONES):
        for claim in leases.read(objects, prefix):
            if claim.expires < cutoff:
                objects.delete(claim.key)
    for unfinished in objects.walk(layout.TEMPORARY):
        if unfinished.modified < cutoff:
            objects.delete(unfinished.key)
