"""Unpacking what strangers packed: whole, in bounded steps, and never past a limit."""

import gzip
import io
import threading

import pytest
import zstandard

from albatros.errors import ImageError, TooLargeError
from albatros.images.streams import BLOCK, BoundedReader, PeekReader, StoppedError, blocks, unpacked

DATA = bytes(range(256)) * 5000


class Dribble(io.RawIOBase):
    """Gives a few bytes at a time, as pipes do."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._stream.read(min(size, 7))


def everything(data: bytes) -> bytes:
    return b"".join(blocks(unpacked(io.BytesIO(data))))


@pytest.mark.parametrize("packed", [DATA, gzip.compress(DATA), zstandard.compress(DATA)], ids=["plain", "gzip", "zstd"])
def test_what_a_stream_is_its_first_bytes_say(packed: bytes) -> None:
    assert everything(packed) == DATA
    assert b"".join(blocks(unpacked(Dribble(packed)))) == DATA


@pytest.mark.parametrize("data", [b"", b"\x1f", b"ab"])
def test_short_streams_are_plain(data: bytes) -> None:
    assert everything(data) == data


def test_several_gzip_members_are_one_stream_and_zeros_behind_them_padding() -> None:
    assert everything(gzip.compress(b"one") + gzip.compress(b"") + gzip.compress(b"two") + bytes(5000)) == b"onetwo"


def test_several_zstd_frames_are_one_stream() -> None:
    assert everything(zstandard.compress(b"one") + zstandard.compress(b"two")) == b"onetwo"


@pytest.mark.parametrize("cut", [3, 12, 100, -1])
def test_truncated_gzip_is_refused(cut: int) -> None:
    with pytest.raises(ImageError, match="truncated"):
        everything(gzip.compress(DATA)[:cut])


def test_damaged_gzip_is_refused() -> None:
    packed = bytearray(gzip.compress(DATA))
    packed[-6] ^= 1
    with pytest.raises(ImageError, match="damaged"):
        everything(bytes(packed))


def test_something_else_behind_gzip_is_refused() -> None:
    with pytest.raises(ImageError, match="something else"):
        everything(gzip.compress(DATA) + b"\0\0surprise")


def test_a_flood_of_gzip_members_is_refused() -> None:
    with pytest.raises(ImageError, match="more than 65536 members"):
        everything(gzip.compress(b"") * 65_537)


def test_damaged_zstd_is_refused() -> None:
    packed = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(DATA))
    packed[-1] ^= 1
    with pytest.raises(ImageError, match="zstd"):
        everything(bytes(packed))


def test_zstd_that_wants_much_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=28)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(ImageError, match="memory"):
        everything(compressor.compress(DATA) + compressor.flush())


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_a_bomb_goes_off_in_small_steps_and_stops_at_the_limit(pack: "type[bytes]") -> None:
    bomb = pack(bytes(64 << 20))
    reader = BoundedReader(unpacked(io.BytesIO(bomb)), 1 << 20, threading.Event())
    sizes: list[int] = []
    with pytest.raises(TooLargeError, match="1048576"):
        sizes.extend(len(data) for data in blocks(reader))
    assert sum(sizes) <= 1 << 20
    assert max(sizes) <= BLOCK


def test_a_reader_stops_when_it_is_told() -> None:
    stop = threading.Event()
    reader = BoundedReader(io.BytesIO(DATA), 1 << 30, stop)
    assert reader.read(10) == DATA[:10]
    stop.set()
    with pytest.raises(StoppedError):
        reader.read(10)


def test_peeking_takes_nothing_away() -> None:
    reader = PeekReader(Dribble(DATA))
    assert reader.peek(20) == DATA[:20]
    assert reader.peek(4) == DATA[:4]
    assert b"".join(blocks(reader)) == DATA
    assert reader.peek(1) == b""
