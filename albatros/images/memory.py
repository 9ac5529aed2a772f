"""What layers and files became in earlier runs of a command, so that what every destination has is not made again.

A remembered layer is hashed and not compressed, a file that did not change is not read at all. Only digests and configs
are kept, in a directory of the user's own: whoever needs a layer's bytes after all, such as the maker of an SBOM, reads
them from a destination.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from albatros.domain.references import Blob, Digest, digest_of, is_digest
from albatros.images.base import BlobSink
from albatros.log import get_logger
from albatros.registries.base import BlobOpener

log = get_logger(__name__)
_MOST = 4096
"""Layers and files remembered; with more, the older half is forgotten."""
_SETTLED_NS = 2_000_000_000
"""A file may change again within the step of its file system's clock, two seconds on FAT, and look the same."""


def memory_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where a user's layers are remembered: below `$XDG_CACHE_HOME`, else `~/.cache`."""
    base = environment.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "albatros" / "layers"


def stamp(file: os.stat_result) -> Digest | None:
    """What stands for a file's bytes: its place, its size, and when it was changed, which only the kernel can set.

    None for one that was changed a moment ago.
    """
    if time.time_ns() - max(file.st_mtime_ns, file.st_ctime_ns) < _SETTLED_NS:
        return None
    fields = (file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns)
    return digest_of(" ".join(map(str, fields)).encode())


class LayerMemory:
    """A LayerCache and SourceMemory, and the BlobSink that has the remembered layers beside what `sink` keeps.

    `find` gives an opener for a blob that every destination has, else None. Safe to use from several threads.
    """

    def __init__(self, directory: Path, sink: BlobSink, find: Callable[[Blob], BlobOpener | None]) -> None:
        self._directory = directory
        self._sink = sink
        self._find = find
        self._elsewhere: dict[Digest, tuple[Blob, BlobOpener]] = {}

    def lookup(self, diff_id: Digest, codec: str, /) -> Blob | None:
        """The blob that this layer became, when every destination has it."""
        _, layers = self._read(diff_id, codec)
        return layers[0] if len(layers) == 1 and self._has(layers[0]) else None

    def store(self, diff_id: Digest, codec: str, blob: Blob, /) -> None:
        """Remember what a layer became."""
        self._write(diff_id, codec, "", (blob,))

    def recall(self, digest: Digest, how: str, /) -> str | None:
        """What a file was read as, when every destination has all its layers."""
        parts, layers = self._read(digest, how)
        return parts if parts and all(self._has(layer) for layer in layers) else None

    def remember(self, digest: Digest, how: str, parts: str, layers: Collection[Blob], /) -> None:
        """Remember what a file was read as."""
        self._write(digest, how, parts, layers)

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

    def _has(self, blob: Blob) -> bool:
        if self._sink.size(blob.digest) == blob.size or blob.digest in self._elsewhere:
            return True
        opener = self._find(blob)
        if opener is not None:
            self._elsewhere[blob.digest] = (blob, opener)
        return opener is not None

    def _read(self, digest: Digest, how: str) -> tuple[str, list[Blob]]:
        """What was written; nothing where that is missing or damaged."""
        try:
            known = json.loads(self._file(digest, how).read_bytes())
            layers = [Blob(Digest(layer), int(size)) for layer, size in known["layers"].items() if is_digest(layer)]
            return str(known["parts"]), layers
        except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
            return "", []

    def _write(self, digest: Digest, how: str, parts: str, layers: Collection[Blob]) -> None:
        """A directory that cannot be written only costs time in the next run."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._forget_old()
            descriptor, temporary = tempfile.mkstemp(dir=self._directory)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                json.dump({"parts": parts, "layers": {layer.digest: layer.size for layer in layers}}, file)
            Path(temporary).rename(self._file(digest, how))
        except OSError as error:
            log.info("what this became is not remembered", directory=str(self._directory), error=str(error))

    def _file(self, digest: Digest, how: str) -> Path:
        return self._directory / hashlib.sha256(f"{digest} {how}".encode()).hexdigest()

    def _forget_old(self) -> None:
        files = list(self._directory.iterdir())
        if len(files) >= _MOST:
            for file in sorted(files, key=lambda file: file.stat().st_mtime)[: _MOST // 2]:
                file.unlink(missing_ok=True)
