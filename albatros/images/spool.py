"""Blobs in a temporary directory, for publishing without a server; gone when the context ends."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from contextlib import AbstractContextManager
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
        try:
            with tempfile.NamedTemporaryFile(dir=self._root, delete=False) as file:
                for chunk in chunks:
                    hasher.update(chunk)
                    size += len(chunk)
                    file.write(chunk)
            Path(file.name).rename(self._root / hasher.hexdigest())
        except OSError as error:
            raise StoreError(
                f"{self._root} cannot be written: {error.strerror}; set TMPDIR to a disk with room"
            ) from error
        return Blob(Digest(f"sha256:{hasher.hexdigest()}"), size)

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
