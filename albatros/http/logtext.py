"""A log as a page shows it: numbered lines of plain text, a bounded window of them, nothing a terminal would act on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_LINES = 500
MAX_BYTES = 48 << 10
"""A window ends before its first line that would not fit."""

# ECMA-48: control sequences, then operating system commands, then the other escapes.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?")
# Control characters but the tab, and those that reorder text so that it reads as something else.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(slots=True)
class LogSize:
    """How much log there is: counted while it passes."""

    size: int = 0
    """In bytes."""
    whole_lines: int = 0
    whole_bytes: int = 0
    """Where the whole lines end: one that is still being written begins there."""

    @property
    def lines(self) -> int:
        """Lines, with the one that is still being written."""
        return self.whole_lines + (self.size > self.whole_bytes)

    def count(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass the chunks on, and count them."""
        for chunk in chunks:
            yield chunk
            self.whole_lines += chunk.count(b"\n")
            if b"\n" in chunk:
                self.whole_bytes = self.size + chunk.rindex(b"\n") + 1
            self.size += len(chunk)


@dataclass(frozen=True, slots=True)
class LogWindow:
    """Some lines of a log in a row."""

    first: int
    """The number of the first line shown; lines count from 1."""
    lines: tuple[str, ...]
    log: LogSize

    @property
    def total(self) -> int:
        """Lines of the whole log."""
        return self.log.lines

    @property
    def last(self) -> int:
        return self.first + len(self.lines) - 1


NOTHING = LogWindow(1, (), LogSize())


def plain_text(line: bytes) -> str:
    """One line without colours and control characters; what a carriage return overwrote is gone, as on a terminal."""
    text = _ESCAPES.sub("", line.decode("utf-8", "replace")).rstrip("\r").rpartition("\r")[2]
    return _UNSEEN.sub("", text)


def tail(chunks: Iterable[bytes]) -> LogWindow:
    """The last lines of a log that comes in chunks."""
    log, end = LogSize(), b""
    for chunk in log.count(chunks):
        end = (end + chunk)[-MAX_BYTES:]
    lines = _split(end)
    if log.size > MAX_BYTES:
        lines = lines[1:] or lines
    lines = lines[-MAX_LINES:]
    return LogWindow(log.lines - len(lines) + 1, tuple(map(plain_text, lines)), log)


def window(chunks: Iterable[bytes], first: int) -> LogWindow:
    """The lines of a log from number `first` on."""
    log, kept = LogSize(), b""
    for chunk in log.count(chunks):
        skip = first - 1 - log.whole_lines
        if skip <= 0:
            kept += chunk[: MAX_BYTES - len(kept)]
        elif chunk.count(b"\n") >= skip:
            kept = chunk.split(b"\n", skip)[-1][:MAX_BYTES]
    lines = _split(kept)
    if len(kept) == MAX_BYTES:
        lines = lines[:-1] or lines
    return LogWindow(first, tuple(map(plain_text, lines[:MAX_LINES])), log)


def _split(data: bytes) -> list[bytes]:
    return data.removesuffix(b"\n").split(b"\n") if data else []
