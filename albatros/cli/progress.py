"""How a push goes on: bars on a terminal, for each source read and each blob and target; lines elsewhere. On stderr."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO, TextIO, cast

from albatros.cli.output import size
from albatros.domain.references import Digest
from albatros.images.base import BlobSource, Source
from albatros.images.publish import BlobMounted, BlobSkipped, BlobUploaded, PublishEvent, TagMoved

_WIDTH = 24
_STEP = 1 << 20
"""Bytes between two pictures of a bar."""
_USUAL_SCREEN = os.terminal_size((80, 24))


class Progress:
    """Told of every source's and target's events; safe to call from several threads."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._bars: dict[str, tuple[int, int | None]] = {}
        self._shown = 0
        self._lock = threading.Lock()

    def event(self, target: str, event: PublishEvent) -> None:
        """What happened at a target."""
        match event:
            case BlobUploaded(blob):
                self.end(_blob_label(target, blob.digest), f"{target}: sent {blob.digest[:19]} ({size(blob.size)})")
            case BlobMounted(blob):
                self.end(_blob_label(target, blob.digest), f"{target}: mounted {blob.digest[:19]} ({size(blob.size)})")
            case BlobSkipped(blob):
                self.end(_blob_label(target, blob.digest), f"{target}: has {blob.digest[:19]} ({size(blob.size)})")
            case TagMoved(tag):
                self.say(f"{target}: tag {tag} moved")
            case _:
                pass

    def say(self, line: str) -> None:
        """A line of its own, above the bars."""
        with self._lock:
            self._clear()
            self._stream.write(f"{line}\n")
            self._draw()

    def moved(self, label: str, done: int, total: int | None) -> None:
        """How much of something was read, in bytes; None for a total that nobody knows."""
        if not self._terminal:
            return
        with self._lock:
            before = self._bars.get(label, (-_STEP, total))[0]
            if done - before >= _STEP or done < before or (done == total and done != before):
                self._bars[label] = (done, total)
                self._clear()
                self._draw()

    def end(self, label: str, line: str = "") -> None:
        """Take a bar away, and say a line for it."""
        with self._lock:
            self._clear()
            self._bars.pop(label, None)
            self._stream.write(f"{line}\n" if line else "")
            self._draw()

    def _clear(self) -> None:
        if self._shown:
            # ECMA-48: cursor up, erase to the end of the screen.
            self._stream.write(f"\x1b[{self._shown}A\x1b[J")
            self._shown = 0

    def _draw(self) -> None:
        screen = self._screen()
        bars = list(self._bars.items())[: screen.lines - 1]
        for label, (done, total) in bars:
            self._stream.write(_bar(label, done, total, screen.columns - 1) + "\n")
        self._shown = len(bars)
        self._stream.flush()

    def _screen(self) -> os.terminal_size:
        try:
            return os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return _USUAL_SCREEN


def _bar(label: str, done: int, total: int | None, width: int) -> str:
    """One line of at most `width` characters: one that wraps would not be found again by the cursor."""
    if total is None:
        return _fitting(label, f" {size(done)}", width)
    full = _WIDTH * done // total if total else _WIDTH
    return _fitting(label, f" [{'#' * full}{'.' * (_WIDTH - full)}] {size(done)} of {size(total)}", width)


def _fitting(label: str, rest: str, width: int) -> str:
    room = max(width - len(rest), 1)
    return ((label if len(label) <= room else "…" + label[len(label) - room + 1 :]) + rest)[:width]


def _blob_label(target: str, digest: Digest) -> str:
    return f"{target} {digest[7:19]}"


def watched(source: Source, progress: Progress) -> Source:
    """The same source, which tells how far it was read."""

    @contextmanager
    def opened() -> Iterator[BinaryIO]:
        with source.open() as stream:
            try:
                yield _counted(stream, lambda done: progress.moved(f"reading {source.label}", done, source.size))
            finally:
                progress.end(f"reading {source.label}")

    return replace(source, open=opened)


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
            label, total = _blob_label(self._target, digest), self._blobs.size(digest) or 0
            yield _counted(stream, lambda done: self._progress.moved(label, done, total))

    def size(self, digest: Digest) -> int | None:
        """A blob's size in bytes."""
        return self._blobs.size(digest)


def _counted(stream: BinaryIO, told: Callable[[int], None]) -> BinaryIO:
    return cast("BinaryIO", _Counted(stream, told))


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
