"""Layers: hashing a tar's bytes, compressing them reproducibly, keeping the result as a blob.

The same bytes give the same blob on any machine: the compressor is fed blocks of one size, the gzip header says nothing
of time, name or system, and every codec here was seen to give equal bytes on old and new processors. By default each
block is a gzip member of its own, so that one layer keeps every processor busy.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import deflate
import isal
import zstandard
from isal import isal_zlib

from albatros.domain.references import Digest
from albatros.errors import ImageError
from albatros.images.base import BlobSink, LayerCache
from albatros.images.model import Descriptor
from albatros.images.streams import BLOCK

_RAW_DEFLATE = -15
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""RFC 1952: deflate, no flags, mtime 0, no extra flags, system 255 (unknown)."""


class Compression(StrEnum):
    """How layers are compressed."""

    GZIP = "gzip"
    """libdeflate level 2, a gzip member for each MiB: small, and every client reads it."""
    FAST = "fast"
    """gzip by ISA-L level 2: four times faster, about a tenth larger. Its level 3 differs between processors."""
    ZSTD = "zstd"
    """zstd level 3: smaller and fast, but Docker before 23 cannot read it."""

    @property
    def media_type(self) -> str:
        """The media type of a layer (OCI image spec, layer.md)."""
        return "application/vnd.oci.image.layer.v1.tar+" + ("zstd" if self is Compression.ZSTD else "gzip")

    @property
    def codec(self) -> str:
        """What decides a blob's bytes beside its content: library, version and level."""
        return _CODECS[self]


_LIBDEFLATE_LEVEL, _ISAL_LEVEL, _ZSTD_LEVEL = 2, 2, 3
_MEMBER = 1 << 20
"""Unpacked bytes of a gzip member."""
_MOST_THREADS = 8
"""Each holds a member or two in memory."""
_CODECS = {
    Compression.GZIP: f"gzip:deflate-{deflate.__version__}:{_LIBDEFLATE_LEVEL}:{_MEMBER}",
    Compression.FAST: f"gzip:isa-l-{isal.ISAL_VERSION}:{_ISAL_LEVEL}",
    Compression.ZSTD: f"zstd:{'.'.join(map(str, zstandard.ZSTD_VERSION))}:{_ZSTD_LEVEL}",
}


@dataclass(frozen=True, slots=True)
class Layer:
    """A kept layer: the digest of its tar and the blob it became."""

    diff_id: Digest
    descriptor: Descriptor


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _FastGzip:
    """gzip framing around ISA-L's raw deflate, since the library writes a header of its own liking."""

    def __init__(self) -> None:
        self._deflate = isal_zlib.compressobj(_ISAL_LEVEL, isal_zlib.DEFLATED, _RAW_DEFLATE)
        self._checksum = 0
        self._size = 0
        self._header = _GZIP_HEADER

    def compress(self, data: bytes, /) -> bytes:
        self._checksum = isal_zlib.crc32(data, self._checksum)
        self._size += len(data)
        header, self._header = self._header, b""
        return header + self._deflate.compress(data)

    def flush(self) -> bytes:
        return self._header + self._deflate.flush() + struct.pack("<II", self._checksum, self._size & 0xFFFFFFFF)


def _compressor(compression: Compression) -> _Compressor:
    if compression is Compression.ZSTD:
        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compressobj()
    return _FastGzip()


def _gzip_member(block: bytes) -> bytes:
    """One member (RFC 1952), whose header says nothing of time, name or system."""
    return bytes(deflate.gzip_compress(block, _LIBDEFLATE_LEVEL))


class LayerWriter:
    """Turns tar streams into kept layers, skipping the compression of those the cache knows."""

    def __init__(self, sink: BlobSink, cache: LayerCache, compression: Compression) -> None:
        self._sink = sink
        self._cache = cache
        self._compression = compression
        self._threads = min(os.cpu_count() or 1, _MOST_THREADS)
        self._pool: ThreadPoolExecutor | None = None
        if compression is Compression.GZIP:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="compress")

    def close(self) -> None:
        """End its threads; what they have not begun is dropped."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def write(self, chunks: Iterable[bytes], expected: Digest | None = None) -> Layer:
        """Keep one layer. `expected` is what its name promises as diff_id: only a hint, for a look into the cache.

        Raises ImageError when the cache knows the promised layer and the bytes are another's.
        """
        hasher = hashlib.sha256()
        known = self._cache.lookup(expected, self._compression.codec) if expected else None
        if expected and known and self._sink.size(known.digest) == known.size:
            for chunk in chunks:
                hasher.update(chunk)
            if hasher.hexdigest() != expected.removeprefix("sha256:"):
                raise ImageError(f"a layer is named {expected}, but its bytes have another digest")
            return Layer(expected, Descriptor(self._compression.media_type, known.digest, known.size))
        blob = self._sink.put(self._compressed(chunks, hasher.update))
        diff_id = Digest("sha256:" + hasher.hexdigest())
        self._cache.store(diff_id, self._compression.codec, blob)
        return Layer(diff_id, Descriptor(self._compression.media_type, blob.digest, blob.size))

    def _compressed(self, chunks: Iterable[bytes], seen: _Update) -> Iterator[bytes]:
        if self._pool is not None:
            yield from self._members(self._pool, chunks, seen)
            return
        compressor = _compressor(self._compression)
        for block in _equal_blocks(chunks, BLOCK):
            seen(block)
            if data := compressor.compress(block):
                yield data
        yield compressor.flush()

    def _members(self, pool: ThreadPoolExecutor, chunks: Iterable[bytes], seen: _Update) -> Iterator[bytes]:
        """Members in order; as many are under way as keep every processor busy while this thread reads and hashes."""
        waiting: deque[Future[bytes]] = deque()
        for block in _equal_blocks(chunks, _MEMBER):
            waiting.append(pool.submit(_gzip_member, block))
            seen(block)
            if len(waiting) > self._threads:
                yield waiting.popleft().result()
        if not waiting:
            yield _gzip_member(b"")
        for future in waiting:
            yield future.result()


class _Update(Protocol):
    def __call__(self, data: bytes, /) -> None: ...


def _equal_blocks(chunks: Iterable[bytes], length: int) -> Iterator[bytes]:
    """The same bytes in blocks of one length, so that a source's own rhythm cannot show in the compressed form."""
    pending: list[bytes] = []
    size = 0
    for chunk in chunks:
        pending.append(chunk)
        size += len(chunk)
        if size >= length:
            joined = b"".join(pending)
            whole = size - size % length
            for start in range(0, whole, length):
                yield joined[start : start + length]
            pending, size = [joined[whole:]], size - whole
    if size:
        yield b"".join(pending)
