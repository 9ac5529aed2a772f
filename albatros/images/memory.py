"""What layers became in earlier runs of a command, so that one that every destination has is not compressed again.

Only digests are remembered, in a directory of the user's own. Such a layer is hashed and not kept: whoever needs its
bytes after all, such as the maker of an SBOM, reads them from a destination.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from albatros.domain.references import Blob, Digest, is_digest
from albatros.images.base import BlobSink
from albatros.log import get_logger
from albatros.registries.base import BlobOpener

log = get_logger(__name__)
_MOST = 4096
"""Layers remembered; with more, the older half is forgotten."""


def memory_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where a user's layers are remembered: below `$XDG_CACHE_HOME`, else `~/.cache`."""
    base = environment.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "albatros" / "layers"


class LayerMemory:
    """A LayerCache, and the BlobSink that has the remembered layers beside what `sink` keeps.

    `find` gives an opener for a blob that every destination has, else None. Safe to use from several threads.
    """

    def __init__(self, directory: Path, sink: BlobSink, find: Callable[[Blob], BlobOpener | None]) -> None:
        self._directory = directory
        self._sink = sink
        self._find = find
        self._elsewhere: dict[Digest, tuple[Blob, BlobOpener]] = {}

    def lookup(self, diff_id: Digest, codec: str, /) -> Blob | None:
        """The blob that this layer became, when every destination has it."""
        try:
            digest, _, size = self._file(diff_id, codec).read_text(encoding="ascii").partition(" ")
        except (OSError, ValueError):
            return None
        if not is_digest(digest) or not size.isdigit():
            return None
        blob = Blob(Digest(digest), int(size))
        if self._sink.size(blob.digest) is None:
            opener = self._find(blob)
            if opener is None:
                return None
            self._elsewhere[blob.digest] = (blob, opener)
        return blob

    def store(self, diff_id: Digest, codec: str, blob: Blob, /) -> None:
        """Remember what a layer became; a directory that cannot be written only costs time in the next run."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._forget_old()
            descriptor, temporary = tempfile.mkstemp(dir=self._directory)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(f"{blob.digest} {blob.size}")
            Path(temporary).rename(self._file(diff_id, codec))
        except OSError as error:
            log.info("what a layer became is not remembered", directory=str(self._directory), error=str(error))

    def put(self, chunks: Iterable[bytes]) -> Blob:
        """Keep bytes."""
        return self._sink.put(chunks)

    def open(self, digest: Digest) -> AbstractContextManager[BinaryIO]:
        """Open what is kept here, else what a destination has."""
        if self._sink.size(digest) is None and digest in self._elsewhere:
            return self._elsewhere[digest][1]()
        return self._sink.open(digest)

    def size(self, digest: Digest) -> int | None:
        """A blob's size in bytes, wherever it is."""
        if digest in self._elsewhere:
            return self._elsewhere[digest][0].size
        return self._sink.size(digest)

    def _file(self, diff_id: Digest, codec: str) -> Path:
        return self._directory / hashlib.sha256(f"{diff_id} {codec}".encode()).hexdigest()

    def _forget_old(self) -> None:
        files = list(self._directory.iterdir())
        if len(files) >= _MOST:
            for file in sorted(files, key=lambda file: file.stat().st_mtime)[: _MOST // 2]:
                file.unlink(missing_ok=True)
