"""A registry in memory that keeps the promises of `Registry`; `tests/contract/test_registries.py` holds it to them."""

import hashlib
import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from albatros.domain.references import Blob, Digest, digest_of, is_digest
from albatros.errors import NotFoundError, RegistryError
from albatros.registries.base import BlobOpener, Manifest


def _nothing(_call: str, _name: str, _what: str) -> None:
    """Nothing happens."""


@dataclass
class MemoryRegistry:
    """`before` hears the name of each call, of the image, and the digest or tag; what it raises, the call raises."""

    before: Callable[[str, str, str], None] = _nothing
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], Manifest] = field(default_factory=dict)
    moves: list[tuple[str, str, str]] = field(default_factory=list)
    """Every move of a tag: name, tag, digest."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def address(self) -> str:
        return "memory.example.org"

    def tag(self, name: str, tag: str) -> str | None:
        """The digest that a tag names."""
        found = self.manifests.get((name, tag))
        return None if found is None else digest_of(found.data)

    @contextmanager
    def hold(self, name: str, digests: Sequence[Digest], /) -> Iterator[None]:
        self.before("hold", name, "")
        yield

    def blob_size(self, name: str, digest: Digest) -> int | None:
        self.before("blob_size", name, digest)
        data = self.blobs.get((name, digest))
        return None if data is None else len(data)

    def put_blob(self, name: str, blob: Blob, open_blob: BlobOpener, mount_from: Sequence[str] = (), /) -> bool:
        self.before("put_blob", name, blob.digest)
        mounted = next((data for source in mount_from if (data := self.blobs.get((source, blob.digest)))), None)
        if mounted is not None:
            self.blobs[name, blob.digest] = mounted
            return False
        with open_blob() as stream:
            data = stream.read()
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != blob.digest:
            raise RegistryError(f"blob {blob.digest} has other bytes")
        self.blobs[name, blob.digest] = data
        return True

    def put_manifest(self, name: str, reference: str, manifest: Manifest) -> bool:
        self.before("put_manifest", name, reference)
        digest = digest_of(manifest.data)
        if is_digest(reference) and reference != digest:
            raise RegistryError(f"manifest {digest} cannot be put as {reference}")
        with self.lock:
            self.manifests[name, digest] = manifest
            self.manifests[name, reference] = manifest
            if not is_digest(reference):
                self.moves.append((name, reference, digest))
        return False

    def get_manifest(self, name: str, reference: str) -> Manifest | None:
        self.before("get_manifest", name, reference)
        return self.manifests.get((name, reference))

    def get_referrers(self, name: str, subject: Digest) -> Manifest | None:
        self.before("get_referrers", name, subject)
        return None

    @contextmanager
    def open_blob(self, name: str, blob: Blob) -> Iterator[BinaryIO]:
        self.before("open_blob", name, blob.digest)
        data = self.blobs.get((name, blob.digest))
        if data is None:
            raise NotFoundError(f"{name} has no blob {blob.digest}")
        yield io.BytesIO(data)

    def list_tags(self, name: str) -> list[str]:
        with self.lock:
            return sorted(tag for owner, tag in self.manifests if owner == name and not is_digest(tag))

    def close(self) -> None:
        return
