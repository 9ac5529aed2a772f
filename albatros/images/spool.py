"""Blobs in a temporary directory, for publishing without a server; gone when the context ends."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Self

from albatros.domain.references import Blob, Digest
from albatros.errors import NotFoundError, StoreError


class Spool:
    """A BlobSink for one run of one process."""

    def __init__(self, parent: Path | None = None) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="albatros-", dir=parent)
        self._root = Path(self._directory.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._directory.cleanup()

    def put(self, chunks: Iterable[bytes]) -> Blob:
        """Keep the bytes of `chunks`. Raises StoreError when the disk does not take them."""
        hasher = hashlib.sha256()
        size = 0
        with self._disk_errors():
            descriptor, temporary = tempfile.mkstemp(dir=self._root)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                for chunk in chunks:
                    hasher.update(chunk)
                    size += len(chunk)
                    with self._disk_errors():
                        _write_all(file, chunk)
            Path(temporary).rename(self._root / hasher.hexdigest())
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return Blob(Digest(f"sha256:{hasher.hexdigest()}"), size)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Errors of this disk, and not of whoever produces the chunks."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self._root} cannot be written: {error.strerror}; set TMPDIR to a disk with room"
            ) from error

    def open(self, digest: Digest) -> AbstractContextManager[BinaryIO]:
        """Open a blob. Raises NotFoundError."""
        try:
            return self._path(digest).open("rb")
        except FileNotFoundError as error:
            raise NotFoundError(f"blob {digest} is not in the spool") from error

    def size(self, digest: Digest) -> int | None:
        """A blob's size in bytes; None when it is not there."""
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def _path(self, digest: Digest) -> Path:
        return self._root / digest.removeprefix("sha256:")


def _write_all(file: FileIO, data: bytes) -> None:
    """Unbuffered, so that a full disk is told here and not a second time when the file is closed."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
