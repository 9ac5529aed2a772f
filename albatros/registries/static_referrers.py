"""Referrers in a static registry: a marker object for each, and the index that clients read, derived from the markers.

There is no lock: whoever writes an index looks at the markers afterwards, and so sees everybody's who wrote before.
"""

from __future__ import annotations

import io
import json
from functools import partial

from albatros.domain import media
from albatros.domain.references import Digest
from albatros.domain.referrers import Referrer, describe, read_index, subject_of, write_index
from albatros.errors import BadInputError, NotFoundError, RegistryError, RegistryUnavailableError
from albatros.registries import layout
from albatros.registries.objects import ObjectStore

_ROUNDS = 20


def record(objects: ObjectStore, name: str, media_type: str, manifest: bytes) -> bool:
    """List a manifest under its subject; False when it has none. Raises RegistryError for an unusable subject."""
    try:
        subject = subject_of(manifest)
    except BadInputError as error:
        raise RegistryError(f"{name}: {error.detail}; it was not listed") from error
    if subject is None:
        return False
    referrer = describe(media_type, manifest)
    key = layout.referrer_marker_key(name, subject, referrer.digest)
    if objects.find(key) is None:
        data = json.dumps(referrer.as_json(), sort_keys=True).encode()
        objects.put(key, partial(io.BytesIO, data), layout.JSON_HEADERS)
    reconcile(objects, name, subject)
    return True


def reconcile(objects: ObjectStore, name: str, subject: Digest) -> None:
    """Write the index of a subject until it says what the markers say; one without any is written empty."""
    for _ in range(_ROUNDS):
        wanted = write_index(_markers(objects, name, subject))
        if wanted == _read(objects, layout.referrers_key(name, subject)):
            return
        objects.put(layout.referrers_key(name, subject), partial(io.BytesIO, wanted), layout.INDEX_HEADERS)
    raise RegistryUnavailableError(f"what refers to {subject} of {name} changes too fast to be listed; try again")


def _markers(objects: ObjectStore, name: str, subject: Digest) -> list[Referrer]:
    found: list[Referrer] = []
    for marker in objects.names(layout.referrer_markers(name, subject)):
        data = _read(objects, layout.referrer_markers(name, subject) + marker)
        if data is not None:
            found += read_index(b'{"manifests":[%b]}' % data)
    return found


def _read(objects: ObjectStore, key: str) -> bytes | None:
    try:
        with objects.open(key) as stream:
            return stream.read(media.MAX_MANIFEST + 1)
    except NotFoundError:
        return None
