"""The protocol of a blob store. Bytes are hashed as they pass, and a blob appears whole or not at all.

A store knows nothing of who uses a blob: rows of the database do. It satisfies `images.base.BlobSink`. Safe to call
from several threads and servers. Every call raises StoreError when the store cannot be used, StoreFullError when full.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from albatros.domain.references import Blob, Digest

CHUNK = 256 << 10
"""Bytes read or written at a time."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob as the store lists it: size in bytes, and when it was last written (UTC, naive as in the database)."""

    digest: Digest
    size: int
    written_at: datetime


class BlobWriter(Protocol):
    """One blob being written; leaving the context without `commit` throws it away."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def write(self, data: bytes) -> None:
        """Append bytes; nothing is visible yet."""
        ...

    def digest(self) -> Digest:
        """The digest of what was written so far."""
        ...

    def commit(self) -> Blob:
        """Make the blob visible and durable, once; one of the same digest counts as written now."""
        ...


class BlobStore(Protocol):
    """Blobs by digest."""

    def writer(self) -> BlobWriter:
        """Begin a blob whose digest is not known yet."""
        ...

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading and seeking from its start. Raises NotFoundError."""
        ...

    def size(self, digest: Digest) -> int | None:
        """A blob's size in bytes; None when it is not there."""
        ...

    def delete(self, digest: Digest, before: datetime) -> bool:
        """Delete a blob last written before `before`; False when there is none. A write meanwhile wins, never loses."""
        ...

    def list(self) -> Iterator[StoredBlob]:
        """Every blob, in no order; those written or deleted meanwhile may or may not appear."""
        ...

    def identity(self) -> str:
        """What tells this store from any other: 32 digits, drawn when they are first asked for and kept in it."""
        ...

    def check(self) -> None:
        """Prove that a blob could be written and read now."""
        ...

    def put(self, chunks: Iterable[bytes]) -> Blob:
        """Keep the bytes of `chunks` as they come; when iteration raises, nothing is kept."""
        with self.writer() as writer:
            for chunk in chunks:
                writer.write(chunk)
            return writer.commit()
