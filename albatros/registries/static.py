"""A static registry: files or objects in the layout that docker, containerd, podman, skopeo and crane pull from.

There are no locks. Every tag is a key of its own and is written last; what is derived from the keys is written again
until it agrees with them, so two pushers lose nothing. Nothing is deleted here but a push's own lease.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, cast

from albatros.domain import media
from albatros.domain.references import Blob, Digest, digest_of, is_digest
from albatros.errors import NotFoundError, RegistryError
from albatros.registries import layout, leases, pages, static_referrers, static_tags
from albatros.registries.base import BlobOpener, Manifest
from albatros.registries.objects import ObjectStore, StoredObject

_YOUNG = timedelta(hours=12)
"""Half the time for which a collector leaves alone what nothing needs."""


class StaticRegistry:
    """The layout on any ObjectStore; `address` is how references name it."""

    def __init__(self, objects: ObjectStore, address: str) -> None:
        self._objects = objects
        self._address = address
        self._held = 0
        self._moved: set[str] = set()
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """What stands before `/NAME:TAG`."""
        return self._address

    @contextmanager
    def hold(self, name: str, digests: Sequence[Digest], /) -> Iterator[None]:
        """A lease object in the target itself, so that every collector sees every pusher; gone at the end.

        Then the pages for people are brought up to date, once for all tags that moved.
        """
        layout.check_static_name(name)
        with leases.hold(self._objects, name, digests):
            with self._lock:
                self._held += 1
            try:
                yield
            finally:
                with self._lock:
                    self._held -= 1
            if name in self._moved:
                self._moved.discard(name)
                pages.update(self._objects, name)

    def blob_size(self, name: str, digest: Digest) -> int | None:
        """The size of a blob's object."""
        found = self._find(layout.blob_key(name, digest))
        return found.size if found else None

    def put_blob(self, name: str, blob: Blob, open_blob: BlobOpener, _mount_from: Sequence[str] = (), /) -> bool:
        """Write a blob, whose digest is checked before it appears. Every name keeps its own."""
        self._objects.put(layout.blob_key(name, blob.digest), lambda: _checked(open_blob, blob), layout.BLOB_HEADERS)
        return True

    def put_manifest(self, name: str, reference: str, manifest: Manifest) -> bool:
        """Write a manifest under its digest, under `blobs/` too (some clients look there), and under its tag last."""
        layout.check_static_name(name)
        digest = digest_of(manifest.data)
        if is_digest(reference) and reference != digest:
            raise RegistryError(f"a manifest with digest {digest} cannot be put as {reference}")
        headers = layout.manifest_headers(digest, manifest.media_type)
        self._put_missing(layout.PING_KEY, b"{}", layout.JSON_HEADERS)
        self._put_missing(layout.blob_key(name, digest), manifest.data, layout.BLOB_HEADERS)
        if self._find(layout.referrers_key(name, digest)) is None:
            static_referrers.reconcile(self._objects, name, digest)
        self._put_missing(layout.manifest_key(name, digest), manifest.data, headers)
        listed = static_referrers.record(self._objects, name, manifest.media_type, manifest.data)
        if not is_digest(reference):
            self._move_tag(name, reference, manifest)
        return listed

    def get_manifest(self, name: str, reference: str) -> Manifest | None:
        """Read a manifest back; its type is what it says itself."""
        try:
            with self._objects.open(layout.manifest_key(name, reference)) as stream:
                data = stream.read(media.MAX_MANIFEST + 1)
        except NotFoundError:
            return None
        if len(data) > media.MAX_MANIFEST:
            raise RegistryError(
                f"{self._address}: manifest {reference} of {name} has more than {media.MAX_MANIFEST} bytes"
            )
        return Manifest(_media_type(data), data)

    def get_referrers(self, name: str, subject: Digest) -> Manifest | None:
        """Read the derived index."""
        try:
            with self._objects.open(layout.referrers_key(name, subject)) as stream:
                return Manifest(media.INDEX, stream.read(media.MAX_MANIFEST))
        except NotFoundError:
            return None

    @contextmanager
    def open_blob(self, name: str, blob: Blob) -> Iterator[BinaryIO]:
        """Read a blob's object."""
        with self._objects.open(layout.blob_key(name, blob.digest)) as stream:
            yield stream

    def list_tags(self, name: str) -> list[str]:
        """The tags that are there as keys."""
        return static_tags.list_tags(self._objects, name)

    def close(self) -> None:
        """Nothing is held open."""

    def _move_tag(self, name: str, tag: str, manifest: Manifest) -> None:
        static_tags.announce(self._objects, name, tag)
        headers = layout.manifest_headers(tag, manifest.media_type)
        self._put(layout.manifest_key(name, tag), manifest.data, headers)
        static_tags.reconcile(self._objects, name)
        self._moved.add(name)

    def _find(self, key: str) -> StoredObject | None:
        """An object that will stay while a lease is held: one that a collector could soon take for old is made young.

        Where that cannot be, it is as if it were missing: whoever pushes writes it again.
        """
        found = self._objects.find(key)
        if found is None or not self._held or datetime.now(UTC) - found.modified < _YOUNG:
            return found
        return found if self._objects.touch(key) else None

    def _put(self, key: str, data: bytes, headers: layout.Headers) -> None:
        self._objects.put(key, lambda: io.BytesIO(data), headers)

    def _put_missing(self, key: str, data: bytes, headers: layout.Headers) -> None:
        """Write an object whose bytes follow from its key, unless it is there."""
        if self._find(key) is None:
            self._put(key, data, headers)


def _media_type(data: bytes) -> str:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    media_type = value.get("mediaType") if isinstance(value, dict) else None
    return media_type if isinstance(media_type, str) else media.MANIFEST


@contextmanager
def _checked(open_blob: BlobOpener, blob: Blob) -> Iterator[BinaryIO]:
    """A blob's bytes, which at their end must have had its digest. Raises RegistryError."""
    with open_blob() as stream:
        reader = _CheckedReader(stream, blob)
        yield cast("BinaryIO", reader)


class _CheckedReader:
    def __init__(self, stream: BinaryIO, blob: Blob) -> None:
        self._stream = stream
        self._blob = blob
        self._hasher = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._hasher.update(data)
        if not data and self._hasher.hexdigest() != self._blob.digest.removeprefix("sha256:"):
            raise RegistryError(f"blob {self._blob.digest} has other bytes where it is kept; nothing was written")
        return data
