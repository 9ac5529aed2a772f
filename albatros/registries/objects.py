"""Objects under keys, which a static registry is made of: the protocol, and a directory of files.

In a directory an object appears whole or not at all (temporary file, fsync, rename), whoever else writes at the time.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from albatros.errors import NotFoundError, RegistryError, RegistryUnavailableError
from albatros.registries import layout
from albatros.registries.base import BlobOpener
from albatros.registries.layout import Headers

CHUNK = 256 << 10
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE})


class ObjectStore(Protocol):
    """Keys with bytes and headers. Raises RegistryError, or RegistryUnavailableError when a later try may help."""

    def size(self, key: str) -> int | None:
        """An object's size in bytes; None when it is not there."""

    def put(self, key: str, body: BlobOpener, headers: Headers) -> None:
        """Write an object whole; when reading `body` raises, nothing is written."""

    def open(self, key: str) -> BinaryIO:
        """Read an object. Raises NotFoundError."""

    def names(self, prefix: str) -> list[str]:
        """What follows `prefix` in the keys that have no further `/`; sorted."""

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""


class DirectoryObjects:
    """Files below one directory, which any web server can serve with the generated table of headers."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._temporary = root / layout.PRIVATE / "tmp"
        self._prepared = False
        self._lock = threading.Lock()

    def size(self, key: str) -> int | None:
        """A file's size; None when there is no such file."""
        with _plain_errors(self._root):
            try:
                return (self._root / key).stat().st_size
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

    def delete(self, key: str) -> None:
        """Remove a file."""
        with _plain_errors(self._root):
            (self._root / key).unlink(missing_ok=True)

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
