"""A blob store in one directory: `sha256/ab/abcd…`, written to `tmp/` first, synced, then renamed; `id` names it.

Writers and the deleter meet at a lock on the directory, so a blob that is written again while it is being collected
stays. A writer holds a lock on its temporary file; a file that nobody holds was left by a killed process.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from albatros.domain.references import Blob, Digest, is_digest, parse_digest
from albatros.errors import NotFoundError, StoreError, StoreFullError
from albatros.log import get_logger
from albatros.store.base import CHUNK, BlobStore, BlobWriter, StoredBlob

log = get_logger(__name__)

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
IDENTITY_LENGTH = 32
_LEFT_OVER_SECONDS = 60
"""A temporary file younger than this may belong to a writer that has not locked it yet."""


@contextmanager
def _translated(root: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFullError(f"the blob store {root} is full; free some space or run `albatros gc`") from error
        raise StoreError(
            f"the blob store {root} failed {doing}: {error.strerror or error}; check its disk and owner"
        ) from error


class _BlobFile(io.FileIO):
    """A blob being read, whose failures are StoreErrors also in the middle."""

    def __init__(self, root: Path, path: Path) -> None:
        self._root = root
        super().__init__(path, "rb")

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]  # typeshed hides the buffer's type
        with _translated(self._root, "reading a blob"):
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with _translated(self._root, "reading a blob"):
            return super().readall()


class FileWriter(BlobWriter):
    """A blob on its way into a FileStore."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._hash = hashlib.sha256()
        self._size = 0
        self._path = store.root / "tmp" / secrets.token_hex(16)
        with _translated(store.root, "making a temporary file"):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._file = os.fdopen(descriptor, "wb", buffering=CHUNK)
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing flushes what is buffered, which fails again on a full disk; the first error is the one to tell.
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        with _translated(self._store.root, "writing a blob"):
            self._file.write(data)
        self._hash.update(data)
        self._size += len(data)

    def digest(self) -> Digest:
        return Digest(f"sha256:{self._hash.hexdigest()}")

    def commit(self) -> Blob:
        blob = Blob(self.digest(), self._size)
        self.sync()
        with _translated(self._store.root, "keeping a blob"):
            self._store.accept(self._path, blob)
        return blob

    def sync(self) -> None:
        """Put everything written so far on the disk."""
        with _translated(self._store.root, "writing a blob"):
            self._file.flush()
            os.fsync(self._file.fileno())


class FileStore(BlobStore):
    """Blobs as files below `root`, which only this user can enter."""

    def __init__(self, root: Path) -> None:
        """Open or make the store, and remove what killed writers left. Raises StoreError."""
        self.root = root
        with _translated(root, "being opened"):
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            root.chmod(0o700)
            for name in ("tmp", "sha256"):
                (root / name).mkdir(exist_ok=True, mode=0o700)
            (root / "lock").touch(mode=0o600)
            self._remove_left_over()

    def _remove_left_over(self) -> None:
        removed = 0
        for path in (self.root / "tmp").iterdir():
            with suppress(FileNotFoundError), path.open("rb") as file:
                if os.fstat(file.fileno()).st_mtime > time.time() - _LEFT_OVER_SECONDS:
                    continue
                with suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    removed += 1
        if removed:
            log.info("removed unfinished uploads of a killed process", files=removed, store=self.root)

    def _path(self, digest: Digest) -> Path:
        hexadecimal = parse_digest(digest).removeprefix("sha256:")
        return self.root / "sha256" / hexadecimal[:2] / hexadecimal

    @contextmanager
    def _lock(self, operation: int) -> Iterator[None]:
        with (self.root / "lock").open("rb") as file:
            fcntl.flock(file, operation)
            yield

    def writer(self) -> FileWriter:
        return FileWriter(self)

    def accept(self, temporary: Path, blob: Blob) -> None:
        """Move a writer's finished file to its place; when the blob is there already, mark that as written now."""
        path = self._path(blob.digest)
        with self._lock(fcntl.LOCK_SH):
            if self.size(blob.digest) == blob.size:
                _stamp(path)
                return
            if not path.parent.exists():
                path.parent.mkdir(exist_ok=True, mode=0o700)
                _sync_directory(path.parent.parent)
            _stamp(temporary)
            temporary.replace(path)
        _sync_directory(path.parent)

    def open(self, digest: Digest) -> BinaryIO:
        path = self._path(digest)
        with _translated(self.root, "opening a blob"):
            try:
                return io.BufferedReader(_BlobFile(self.root, path), CHUNK)
            except FileNotFoundError:
                raise NotFoundError(f"blob {digest} is not in the store {self.root}") from None

    def size(self, digest: Digest) -> int | None:
        path = self._path(digest)
        with _translated(self.root, "looking for a blob"):
            try:
                return path.stat().st_size
            except FileNotFoundError:
                return None

    def delete(self, digest: Digest, before: datetime) -> bool:
        path = self._path(digest)
        with _translated(self.root, "deleting a blob"), self._lock(fcntl.LOCK_EX):
            try:
                if _written_at(path.stat()) >= before:
                    return False
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    def list(self) -> Iterator[StoredBlob]:
        with _translated(self.root, "listing its blobs"):
            for directory in (self.root / "sha256").iterdir():
                for path in directory.iterdir():
                    digest = f"sha256:{path.name}"
                    with suppress(FileNotFoundError):
                        stat = path.lstat()
                        if is_digest(digest):
                            yield StoredBlob(Digest(digest), stat.st_size, _written_at(stat))

    def identity(self) -> str:
        path = self.root / "id"
        with _translated(self.root, "being told from others"), self._lock(fcntl.LOCK_EX):
            if not path.exists():
                draft = self.root / "tmp" / secrets.token_hex(16)
                draft.write_text(secrets.token_hex(16), encoding="ascii")
                with draft.open("rb") as file:
                    os.fsync(file.fileno())
                draft.replace(path)
                _sync_directory(self.root)
            return path.read_text(encoding="utf-8", errors="replace")[:IDENTITY_LENGTH]

    def check(self) -> None:
        with self.writer() as writer:
            writer.write(b"albatros")
            writer.sync()
        with _translated(self.root, "being read"):
            any((self.root / "sha256").iterdir())


def _written_at(stat: os.stat_result) -> datetime:
    return datetime.fromtimestamp(stat.st_mtime, UTC).replace(tzinfo=None)


def _stamp(path: Path) -> None:
    # Without a time given, the kernel takes that of its last tick, which can lie before a cutoff already decided on.
    at = time.time_ns()
    os.utime(path, ns=(at, at))


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
