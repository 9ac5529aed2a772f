"""A log that is rotated while it is read: nothing comes twice or out of order, and a hole is told."""

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albatros.errors import ExecutorUnavailableError
from albatros.executors.builder_base import LogPlace, Stream
from albatros.executors.nomad_api import NomadApi
from albatros.executors.nomad_logs import NomadLogs, read_frames

FRAME = 5


class Rotated:
    """The log files of a task, and Nomad's way to a place in them (client/fs_endpoint.go, findClosest)."""

    def __init__(self, max_files: int, max_size: int) -> None:
        self.written = b""
        self._starts = {0: 0}
        self._gone: set[int] = set()
        self._max_files, self._max_size = max_files, max_size

    def write(self, data: bytes) -> None:
        for byte in data:
            newest = max(self._starts)
            if len(self.written) - self._starts[newest] == self._max_size:
                self._starts[newest + 1] = len(self.written)
            self.written += bytes([byte])
        for old in sorted(self._starts)[: -self._max_files]:
            # What a place means has to be known for good: only that it is there is forgotten.
            self._gone.add(old)

    @property
    def files(self) -> dict[int, bytes]:
        starts = sorted(self._starts)
        ends = [*(self._starts[one] for one in starts[1:]), len(self.written)]
        there = zip(starts, ends, strict=True)
        return {file: self.written[self._starts[file] : end] for file, end in there if file not in self._gone}

    def position(self, place: LogPlace) -> int:
        return self._starts[place.file] + place.offset

    @contextmanager
    def log_frames(self, allocation: str, task: str, params: Mapping[str, str]) -> Iterator[Iterator[bytes]]:
        assert (allocation, task, params["type"], params["origin"]) == ("a1", "executor", "stdout", "start")
        yield self._frames(int(params["offset"]))

    def _frames(self, offset: int) -> Iterator[bytes]:
        files = self.files
        order = sorted(files)
        at = 0
        while offset > len(files[order[at]]) and at < len(order) - 1:
            offset -= len(files[order[at]])
            at += 1
        for file in order[at:]:
            data = files[file][offset:]
            offset = 0
            for start in range(0, len(data), FRAME):
                piece = base64.b64encode(data[start : start + FRAME]).decode()
                yield json.dumps({"Data": piece, "File": f"alloc/logs/executor.stdout.{file}", "Offset": 1}).encode()


STEPS = st.lists(st.one_of(st.integers(1, 60), st.just(0)), max_size=40)


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, max_files=st.integers(1, 4), max_size=st.integers(1, 12), most=st.integers(1, 20))
def test_what_is_read_is_what_was_written_but_for_holes_that_are_told(
    steps: list[int], max_files: int, max_size: int, most: int
) -> None:
    log = Rotated(max_files, max_size)
    reader = NomadLogs(cast("NomadApi", log), "executor")
    place, position = LogPlace(), 0
    for number, count in enumerate([*steps, *([0] * 400)]):
        if count:
            log.write(bytes((number * 7 + i) % 256 for i in range(count)))
            continue
        read = reader.read("a1", Stream.STDOUT, place, most)
        if not read.data:
            if number >= len(steps):
                break
            continue
        start = log.position(read.place)
        assert start >= position
        assert read.lost or start == position
        assert read.data == log.written[start : start + len(read.data)]
        place = LogPlace(read.place.file, read.place.offset + len(read.data))
        position = start + len(read.data)
    assert position == len(log.written)
    rest = reader.read_rest("a1", Stream.STDOUT, LogPlace(), most)
    there = b"".join(data for _, data in sorted(log.files.items()))
    assert (rest.count, rest.end) == (len(there), there[-most:])


def test_frames_may_be_cut_anywhere() -> None:
    frames = b'{"Data":"b25l","File":"alloc/logs/executor.stdout.0","Offset":3}{}\n{"Data":"dHdv","File":"x.stderr.12"}'
    for size in (1, 2, 7, len(frames)):
        chunks = [frames[start : start + size] for start in range(0, len(frames), size)]
        assert list(read_frames(chunks)) == [(0, b"one"), (12, b"two")]


@pytest.mark.parametrize("answer", [b"not json}", b'{"Data":"%%%","File":"x.stdout.0"}', b"x" * (300 << 10)])
def test_what_is_no_log_is_refused(answer: bytes) -> None:
    with pytest.raises(ExecutorUnavailableError, match="is no log"):
        list(read_frames([answer]))
