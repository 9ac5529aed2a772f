"""Leases of pushers and tombstones of collectors: objects in a static registry itself, instead of a lock.

A pusher writes its lease and then looks for tombstones; a collector writes its tombstone and then looks for leases. So
one of the two sees the other: the collector leaves what a lease names, and the pusher waits while a tombstone names
what it is going to use. Both run out by themselves, for those who died.
"""

from __future__ import annotations

import io
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from albatros.domain.references import Digest
from albatros.errors import NotFoundError, RegistryError, RegistryUnavailableError
from albatros.log import get_logger
from albatros.registries import layout
from albatros.registries.objects import ObjectStore

LEASE_LIFE = timedelta(hours=24)
"""Longer than any push."""
TOMBSTONE_LIFE = timedelta(minutes=5)
"""A collector renews its own long before, and ends when it could not."""
_LONGEST_WAIT = timedelta(minutes=15)
_POLL_SECONDS = 0.5
_LARGEST = 64 << 20
_log = get_logger(__name__)

Digests = Mapping[str, Sequence[Digest]]
"""Digests by image name."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease or a tombstone: what it is about, and until when."""

    key: str
    digests: Digests
    expires: datetime


@contextmanager
def hold(
    objects: ObjectStore, name: str, digests: Sequence[Digest], sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Keep these digests of a name from every collector while the context is open.

    Waits for a collector that has them under its tombstone. Raises RegistryUnavailableError when that takes too long.
    """
    key = _new_key(layout.LEASES)
    write(objects, key, {name: sorted(digests)}, LEASE_LIFE)
    try:
        _wait_for_collectors(objects, name, frozenset(digests), sleep)
        yield
    finally:
        objects.delete(key)


def new_tombstone() -> str:
    """The key of a tombstone that nobody else writes."""
    return _new_key(layout.TOMBSTONES)


def write(objects: ObjectStore, key: str, digests: Digests, life: timedelta) -> datetime:
    """Write or renew a claim; the moment at which it runs out."""
    expires = datetime.now(UTC) + life
    data = json.dumps({"digests": {name: list(every) for name, every in digests.items()}, "expires": str(expires)})
    objects.put(key, partial(io.BytesIO, data.encode()), layout.JSON_HEADERS)
    return expires


def read(objects: ObjectStore, prefix: str) -> list[Claim]:
    """Every lease or tombstone that is there, also those that ran out. Raises RegistryError for a damaged one."""
    claims = (_read(objects, prefix + file) for file in objects.names(prefix))
    return [claim for claim in claims if claim is not None]


def _new_key(prefix: str) -> str:
    return f"{prefix}{uuid.uuid4()}.json"


def _wait_for_collectors(
    objects: ObjectStore, name: str, digests: frozenset[Digest], sleep: Callable[[float], None]
) -> None:
    begin = datetime.now(UTC)
    while True:
        now = datetime.now(UTC)
        tombstones = read(objects, layout.TOMBSTONES)
        if not any(t.expires > now and digests.intersection(t.digests.get(name, ())) for t in tombstones):
            return
        if now > begin + _LONGEST_WAIT:
            raise RegistryUnavailableError(f"a collector has been removing what {name} needs for long; try again later")
        _log.info("waiting for a collector that removes what this push will use", name=name)
        sleep(_POLL_SECONDS)


def _read(objects: ObjectStore, key: str) -> Claim | None:
    try:
        with objects.open(key) as stream:
            data = stream.read(_LARGEST)
    except NotFoundError:
        return None
    try:
        value = json.loads(data)
        expires = datetime.fromisoformat(value["expires"])
        digests = {str(name): [Digest(str(digest)) for digest in every] for name, every in value["digests"].items()}
        return Claim(key, digests, expires.astimezone(UTC))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RegistryError(
            f"{key} cannot be read, so nobody knows what it protects; delete it when no push and no collector runs"
        ) from error
