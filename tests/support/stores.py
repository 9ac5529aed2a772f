"""A blob store in memory that keeps the promises of `BlobStore`; `tests/contract/test_stores.py` holds it to them."""

import hashlib
import io
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import BinaryIO, Self

from albatros.db.session import now
from albatros.domain.references import Blob, Digest, digest_of, parse_digest
from albatros.errors import NotFoundError, StoreError, StoreFullError
from albatros.store.base import BlobStore, BlobWriter, StoredBlob


class MemoryWriter(BlobWriter):
    def __init__(self, store: "MemoryStore") -> None:
        self._store = store
        self._data = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._data.clear()

    def write(self, data: bytes) -> None:
        self._store.usable()
        if self._store.used() + len(self._data) + len(data) > self._store.capacity:
            raise StoreFullError("the store in memory is full")
        self._data += data

    def digest(self) -> Digest:
        return Digest("sha256:" + hashlib.sha256(self._data).hexdigest())

    def commit(self) -> Blob:
        self._store.usable()
        data = bytes(self._data)
        self._store.blobs[digest_of(data)] = (data, now())
        return Blob(digest_of(data), len(data))


@dataclass
class MemoryStore(BlobStore):
    """`capacity` in bytes; with `broken` every call fails, as on a disk that is gone."""

    capacity: int = 1 << 30
    broken: bool = False
    blobs: dict[Digest, tuple[bytes, datetime]] = field(default_factory=dict)
    name: str = field(default_factory=lambda: secrets.token_hex(16))

    def usable(self) -> None:
        if self.broken:
            raise StoreError("the store in memory is broken")

    def used(self) -> int:
        return sum(len(data) for data, _ in self.blobs.values())

    def writer(self) -> MemoryWriter:
        self.usable()
        return MemoryWriter(self)

    def open(self, digest: Digest) -> BinaryIO:
        self.usable()
        if parse_digest(digest) not in self.blobs:
            raise NotFoundError(f"blob {digest} is not in the store in memory")
        return io.BytesIO(self.blobs[digest][0])

    def size(self, digest: Digest) -> int | None:
        self.usable()
        return len(self.blobs[digest][0]) if parse_digest(digest) in self.blobs else None

    def delete(self, digest: Digest, before: datetime) -> bool:
        self.usable()
        if parse_digest(digest) not in self.blobs or self.blobs[digest][1] >= before:
            return False
        del self.blobs[digest]
        return True

    def list(self) -> Iterator[StoredBlob]:
        self.usable()
        for digest, (data, written_at) in list(self.blobs.items()):
            yield StoredBlob(digest, len(data), written_at)

    def identity(self) -> str:
        self.usable()
        return self.name

    def check(self) -> None:
        self.usable()
        with self.writer() as writer:
            writer.write(b"albatros")
