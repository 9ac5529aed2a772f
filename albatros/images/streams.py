"""Reading hostile byte streams: peeking, unpacking by magic number, and bounds on what comes out.

Nothing here holds more than a few blocks, whatever the stream claims about itself.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import IO, Protocol, cast

import zstandard
from zlib_ng import zlib_ng

from albatros.errors import ImageError, TooLargeError

BLOCK = 256 << 10
"""Bytes per step of every pipeline."""
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_GZIP_ERROR = cast("type[Exception]", zlib_ng.error)
"""The library's stub takes the class for an instance."""
_MAX_GZIP_MEMBERS = 65_536
"""More would cost far more time than their bytes are worth: each starts an unpacker of its own."""
_ZSTD_WINDOW = 64 << 20
"""Largest zstd window that is unpacked: each reader may take this much memory."""


class StoppedError(ImageError):
    """Reading ended because another source of the same image failed first."""


class Reader(Protocol):
    """Anything with a `read` that gives up to `size` bytes, and none only at its end."""

    def read(self, size: int, /) -> bytes:
        """The next bytes."""


class PeekReader:
    """A reader whose first bytes can be looked at before they are read."""

    def __init__(self, raw: Reader) -> None:
        self._raw = raw
        self._head = b""

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end; they stay to be read."""
        while len(self._head) < size:
            more = self._raw.read(size - len(self._head))
            if not more:
                break
            self._head += more
        return self._head[:size]

    def read(self, size: int, /) -> bytes:
        """The next bytes."""
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._raw.read(size)


class BoundedReader:
    """Lets `limit` bytes pass, then raises TooLargeError; raises StoppedError once `stop` is set; `left` still may."""

    def __init__(self, raw: Reader, limit: int, stop: threading.Event) -> None:
        self._raw = raw
        self._limit = limit
        self._stop = stop
        self.left = limit

    def read(self, size: int, /) -> bytes:
        """The next bytes."""
        if self._stop.is_set():
            raise StoppedError("not read to its end, because another source of this image failed")
        data = self._raw.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise TooLargeError(f"it unpacks to more than {self._limit} bytes; raise the limit if that is meant to be")
        return data


class _GzipReader:
    """Unpacks gzip (RFC 1952), also of several members, never more at once than it is asked for."""

    def __init__(self, raw: Reader) -> None:
        self._raw = raw
        self._inflate = zlib_ng.decompressobj(31)
        self._pending = b""
        self._members = 1
        self._ended = False

    def read(self, size: int, /) -> bytes:
        while not self._ended:
            if self._inflate.eof:
                self._next_member()
                continue
            packed = self._pending or self._raw.read(BLOCK)
            if not packed:
                raise ImageError("its gzip data ends too early: the file is truncated")
            try:
                data = self._inflate.decompress(packed, size)
            except _GZIP_ERROR as error:
                raise ImageError(f"its gzip data is damaged: {error}") from error
            self._pending = self._inflate.unconsumed_tail
            if data:
                return data
        return b""

    def _next_member(self) -> None:
        """Go on with a further member; zeros after the last one are padding (as GNU gzip reads them)."""
        rest = self._inflate.unused_data
        while not (rest := rest.lstrip(b"\0")):
            rest = self._raw.read(BLOCK)
            if not rest:
                self._ended = True
                return
        while len(rest) < 2 and (more := self._raw.read(BLOCK)):
            rest += more
        if not rest.startswith(GZIP_MAGIC):
            raise ImageError("there is something else behind its gzip data")
        self._members += 1
        if self._members > _MAX_GZIP_MEMBERS:
            raise ImageError(f"its gzip data has more than {_MAX_GZIP_MEMBERS} members; compress it as one")
        self._pending = rest
        self._inflate = zlib_ng.decompressobj(31)


class _ZstdReader:
    """Unpacks zstd (RFC 8878), also of several frames. A cut-off frame just ends: tar and diff_id tell."""

    def __init__(self, raw: Reader) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._stream = decompressor.stream_reader(cast("IO[bytes]", raw), read_size=BLOCK, read_across_frames=True)

    def read(self, size: int, /) -> bytes:
        try:
            return self._stream.read(size)
        except zstandard.ZstdError as error:
            raise ImageError(f"its zstd data is damaged or needs more than {_ZSTD_WINDOW} bytes of memory") from error


def unpacked(raw: Reader) -> Reader:
    """`raw` itself, or its content when it begins as gzip or zstd."""
    stream = PeekReader(raw)
    magic = stream.peek(4)
    if magic.startswith(GZIP_MAGIC):
        return _GzipReader(stream)
    if magic == ZSTD_MAGIC:
        return _ZstdReader(stream)
    return stream


def blocks(raw: Reader) -> Iterator[bytes]:
    """Everything up to the end, in pieces of at most BLOCK bytes."""
    while data := raw.read(BLOCK):
        yield data


class ChunkReader(io.RawIOBase):
    """An iterator of bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override] # narrower than any buffer
        while not self._rest:
            try:
                self._rest = memoryview(next(self._chunks))
            except StopIteration:
                return 0
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
