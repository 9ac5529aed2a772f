"""Objects under keys, which a static registry is made of: the protocol, and a directory of files.

In a directory an object appears whole or not at all (temporary file, fsync, rename), whoever else writes at the time.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from albatros.errors import NotFoundError, RegistryError, RegistryUnavailableError
from albatros.registries import layout
from albatros.registries.base import BlobOpener
from albatros.registries.layout import Headers

CHUNK = 256 << 10
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE})


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object that is there: its size in bytes, and when it was written or touched last."""

    key: str
    size: int
    modified: datetime


class ObjectStore(Protocol):
    """Keys with bytes and headers. Raises RegistryError, or RegistryUnavailableError when a later try may help."""

    def find(self, key: str) -> StoredObject | None:
        """An object's size and age; None when it is not there."""

    def put(self, key: str, body: BlobOpener, headers: Headers) -> None:
        """Write an object whole; when reading `body` raises, nothing is written."""

    def open(self, key: str) -> BinaryIO:
        """Read an object. Raises NotFoundError."""

    def names(self, prefix: str) -> list[str]:
        """What follows `prefix` in the keys that have no further `/`; sorted."""

    def walk(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key begins with `prefix`, which ends with `/`; what comes meanwhile may be missed."""

    def touch(self, key: str) -> bool:
        """Make an object as young as if it had just been written; False when that cannot be: write it again."""

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""


class DirectoryObjects:
    """Files below one directory, which any web server can serve with the generated table of headers."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._temporary = root / layout.TEMPORARY
        self._prepared = False
        self._lock = threading.Lock()

    def find(self, key: str) -> StoredObject | None:
        """A file's size and time; None when there is no such file."""
        with _plain_errors(self._root):
            try:
                return _stored(key, (self._root / key).stat())
            except (FileNotFoundError, NotADirectoryError):
                return None

    def put(self, key: str, body: BlobOpener, headers: Headers) -> None:
        """Write a file, and its shadow where the rules would send it with another type than it has."""
        with _plain_errors(self._root):
            self._prepare()
            shadow = f"{layout.SHADOWS}/{key}"
            if layout.needs_shadow(key, headers):
                # Served in place of the file itself, so it has to be there first.
                self._write(shadow, body)
                self._write(key, body)
            else:
                self._write(key, body)
                (self._root / shadow).unlink(missing_ok=True)

    def open(self, key: str) -> BinaryIO:
        """Open a file for reading."""
        with _plain_errors(self._root):
            try:
                return (self._root / key).open("rb")
            except (FileNotFoundError, NotADirectoryError) as error:
                raise NotFoundError(f"{self._root} has no {key}") from error

    def names(self, prefix: str) -> list[str]:
        """The names of the files in the directory that `prefix` is."""
        with _plain_errors(self._root):
            try:
                return sorted(entry.name for entry in os.scandir(self._root / prefix) if entry.is_file())
            except (FileNotFoundError, NotADirectoryError):
                return []

    def walk(self, prefix: str) -> Iterator[StoredObject]:
        """Every file below a directory, in no order."""
        with _plain_errors(self._root):
            for path in (self._root / prefix).rglob("*"):
                # A file may go between being listed and being looked at.
                with suppress(FileNotFoundError):
                    status = path.lstat()
                    if stat.S_ISREG(status.st_mode):
                        yield _stored(path.relative_to(self._root).as_posix(), status)

    def touch(self, key: str) -> bool:
        """Set a file's time to now."""
        with _plain_errors(self._root):
            try:
                os.utime(self._root / key)
            except FileNotFoundError:
                return False
        return True

    def delete(self, key: str) -> None:
        """Remove a file and its shadow, which is served in its place."""
        with _plain_errors(self._root):
            for path in (self._root / layout.SHADOWS / key, self._root / key):
                with suppress(FileNotFoundError, NotADirectoryError):
                    path.unlink()

    def _prepare(self) -> None:
        with self._lock:
            if self._prepared:
                return
            self._temporary.mkdir(parents=True, exist_ok=True)
            for name, text in (
                ("headers.json", layout.headers_json()),
                ("nginx.conf", layout.nginx_fragment()),
                ("Caddyfile", layout.caddy_fragment()),
            ):
                path = self._root / layout.PRIVATE / name
                if not path.exists() or path.read_text(encoding="utf-8") != text:
                    self._replace(path, iter((text.encode(),)))
            self._prepared = True

    def _write(self, key: str, body: BlobOpener) -> None:
        with body() as stream:
            self._replace(self._root / key, iter(lambda: stream.read(CHUNK), b""))

    def _replace(self, path: Path, chunks: Iterator[bytes]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self._temporary)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(chunks)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)


def _stored(key: str, status: os.stat_result) -> StoredObject:
    return StoredObject(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _plain_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _PASSING:
            text = f"dir:{root} cannot be used now: {error.strerror}; make room or repair it"
            raise RegistryUnavailableError(text) from error
        raise RegistryError(f"dir:{root} cannot be used: {error.strerror}; check the path and its owner") from error
