"""How a push goes on: a bar per blob and target on a terminal, a line per finished blob elsewhere. All on stderr."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO, cast

from albatros.cli.output import size
from albatros.domain.references import Digest
from albatros.images.base import BlobSource
from albatros.images.publish import BlobMounted, BlobSkipped, BlobUploaded, PublishEvent, TagMoved

_WIDTH = 24
_STEP = 1 << 20
"""Bytes between two pictures of a bar."""


class Progress:
    """Told of every target's events; safe to call from several threads."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._bars: dict[tuple[str, Digest], tuple[int, int]] = {}
        self._shown = 0
        self._lock = threading.Lock()

    def event(self, target: str, event: PublishEvent) -> None:
        """What happened at a target."""
        match event:
            case BlobUploaded(blob):
                self._end(target, blob.digest, f"sent {blob.digest[:19]} ({size(blob.size)})")
            case BlobMounted(blob):
                self._end(target, blob.digest, f"mounted {blob.digest[:19]}")
            case BlobSkipped(blob):
                self._end(target, blob.digest, f"has {blob.digest[:19]}")
            case TagMoved(tag):
                self.say(f"{target}: tag {tag}")
            case _:
                pass

    def say(self, line: str) -> None:
        """A line of its own, above the bars."""
        with self._lock:
            self._clear()
            self._stream.write(f"{line}\n")
            self._draw()

    def moved(self, target: str, digest: Digest, done: int, total: int) -> None:
        """How much of a blob was read for a target, in bytes."""
        if not self._terminal:
            return
        with self._lock:
            before = self._bars.get((target, digest), (-_STEP, total))[0]
            if done - before >= _STEP or done < before or done == total:
                self._bars[target, digest] = (done, total)
                self._clear()
                self._draw()

    def _end(self, target: str, digest: Digest, line: str) -> None:
        with self._lock:
            self._bars.pop((target, digest), None)
        self.say(f"{target}: {line}")

    def _clear(self) -> None:
        if self._shown:
            # ECMA-48: cursor up, erase to the end of the screen.
            self._stream.write(f"\x1b[{self._shown}A\x1b[J")
            self._shown = 0

    def _draw(self) -> None:
        for (target, digest), (done, total) in self._bars.items():
            full = _WIDTH * done // total if total else _WIDTH
            bar = "#" * full + "." * (_WIDTH - full)
            self._stream.write(f"{target} {digest[7:19]} [{bar}] {size(done)} of {size(total)}\n")
        self._shown = len(self._bars)
        self._stream.flush()


class WatchedBlobs:
    """A BlobSource that tells how far its blobs were read for one target."""

    def __init__(self, blobs: BlobSource, progress: Progress, target: str) -> None:
        self._blobs = blobs
        self._progress = progress
        self._target = target

    @contextmanager
    def open(self, digest: Digest) -> Iterator[BinaryIO]:
        """Open a blob; a bar of it begins anew with every try."""
        with self._blobs.open(digest) as stream:
            total = self._blobs.size(digest) or 0
            yield cast(
                "BinaryIO", _Counted(stream, lambda done: self._progress.moved(self._target, digest, done, total))
            )

    def size(self, digest: Digest) -> int | None:
        """A blob's size in bytes."""
        return self._blobs.size(digest)


class _Counted:
    def __init__(self, stream: BinaryIO, told: Callable[[int], None]) -> None:
        self._stream = stream
        self._told = told
        self._done = 0

    def read(self, count: int = -1, /) -> bytes:
        data = self._stream.read(count)
        self._done += len(data)
        self._told(self._done)
        return data
