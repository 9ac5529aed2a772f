"""A static registry: files or objects in the layout that docker, containerd, podman, skopeo and crane pull from.

There are no locks. Every tag is a key of its own and is written last; `tags/list` is derived from the keys and written
again until it agrees with them, so two pushers lose nothing. Nothing is deleted but a push's own lease.
"""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, cast

from albatros.domain import media
from albatros.domain.references import Blob, Digest, digest_of, is_digest
from albatros.errors import NotFoundError, RegistryError, RegistryUnavailableError
from albatros.registries import layout, static_referrers
from albatros.registries.base import BlobOpener, Manifest
from albatros.registries.objects import ObjectStore

_LEASE_LIFE = timedelta(hours=24)
"""Longer than any push; a collector waits at least as long."""
_TAG_ROUNDS = 20


class StaticRegistry:
    """The layout on any ObjectStore; `address` is how references name it."""

    def __init__(self, objects: ObjectStore, address: str) -> None:
        self._objects = objects
        self._address = address

    @property
    def address(self) -> str:
        """What stands before `/NAME:TAG`."""
        return self._address

    @contextmanager
    def hold(self, name: str, digests: Sequence[Digest], /) -> Iterator[None]:
        """A lease object in the target itself, so that every collector sees every pusher; gone at the end."""
        layout.check_static_name(name)
        key = f"{layout.LEASES}{uuid.uuid4()}.json"
        lease = {"name": name, "digests": sorted(digests), "expires": (datetime.now(UTC) + _LEASE_LIFE).isoformat()}
        self._put(key, json.dumps(lease).encode(), layout.JSON_HEADERS)
        try:
            yield
        finally:
            self._objects.delete(key)

    def blob_size(self, name: str, digest: Digest) -> int | None:
        """The size of a blob's object."""
        return self._objects.size(layout.blob_key(name, digest))

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
        if self._objects.size(layout.referrers_key(name, digest)) is None:
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
        return [found for found in self._objects.names(layout.manifests_prefix(name)) if not is_digest(found)]

    def close(self) -> None:
        """Nothing is held open."""

    def _move_tag(self, name: str, tag: str, manifest: Manifest) -> None:
        announced = {*self.list_tags(name), tag}
        if announced != self._written_tags(name):
            self._write_tags(name, announced)
        headers = layout.manifest_headers(tag, manifest.media_type)
        self._put(layout.manifest_key(name, tag), manifest.data, headers)
        self._reconcile_tags(name)

    def _reconcile_tags(self, name: str) -> None:
        """Write `tags/list` until it says what the keys say.

        Whoever writes it last looks at the keys afterwards, and so sees the tag of everybody who wrote before.
        """
        for _ in range(_TAG_ROUNDS):
            tags = set(self.list_tags(name))
            if tags == self._written_tags(name):
                return
            self._write_tags(name, tags)
        raise RegistryUnavailableError(f"{self._address}: the tags of {name} change too fast to be listed; try again")

    def _written_tags(self, name: str) -> set[str] | None:
        """What `tags/list` says; None when it is missing or damaged."""
        try:
            with self._objects.open(layout.tags_key(name)) as stream:
                return set(json.load(stream)["tags"])
        except (NotFoundError, ValueError, LookupError, TypeError):
            return None

    def _write_tags(self, name: str, tags: set[str]) -> None:
        data = json.dumps({"name": name, "tags": sorted(tags)}).encode()
        self._put(layout.tags_key(name), data, layout.JSON_HEADERS)

    def _put(self, key: str, data: bytes, headers: layout.Headers) -> None:
        self._objects.put(key, lambda: io.BytesIO(data), headers)

    def _put_missing(self, key: str, data: bytes, headers: layout.Headers) -> None:
        """Write an object whose bytes follow from its key, unless it is there."""
        if self._objects.size(key) is None:
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
