"""The log of a task, read from where it was read to, whatever Nomad rotated away meanwhile.

No stream is kept open: a log that is asked for again and again cannot fall silent, and needs a connection only while it
is read.
"""

from __future__ import annotations

import base64
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from albatros.errors import ExecutorUnavailableError
from albatros.executors.builder_base import LogPlace, LogRead, LogRest, Stream
from albatros.executors.nomad_api import NomadApi
from albatros.executors.nomad_errors import NomadMissingError
from albatros.executors.nomad_json import mapping, text

FRAME_BYTES = 256 << 10
"""More than a frame of 64 KiB takes in base64; what is longer is no frame."""
_FILE = re.compile(r"\.(?:stdout|stderr)\.([0-9]{1,9})$")


class NomadLogs:
    """Reads the logs of one task."""

    def __init__(self, api: NomadApi, task: str) -> None:
        self._api = api
        self._task = task

    def read(self, allocation: str, stream: Stream, place: LogPlace, most: int) -> LogRead:
        """Read from `place` on. An offset counts over all files that are there, and old ones go: see `_read_from`."""
        # The byte before is asked for again: an answer that does not begin with the first file missed the place.
        offset = max(place.offset - 1, 0) if place.file == 0 else 0
        read = self._read_from(allocation, stream, place, most, offset)
        return read if read is not None else self._read_from(allocation, stream, place, most, 0) or LogRead(b"", place)

    def read_end(self, allocation: str, stream: Stream, length: int) -> bytes:
        """The last bytes of a log, from as many files as it takes."""
        params = {"origin": "end", "offset": str(length)}
        data = b"".join(piece for _, piece in self._frames(allocation, stream, params))
        return data[-length:] if length else b""

    def read_rest(self, allocation: str, stream: Stream, place: LogPlace, length: int) -> LogRest:
        """Go through everything that follows `place`, and keep its end."""
        frames = self._frames(allocation, stream, {"origin": "start", "offset": "0"})
        count, end, held = 0, deque[bytes](), 0
        for _, fresh in _unread(frames, place, 0):
            count += len(fresh)
            held += len(fresh)
            end.append(fresh)
            while end and held - len(end[0]) >= length:
                held -= len(end.popleft())
        return LogRest(count, b"".join(end)[-length:] if length else b"")

    def _read_from(self, allocation: str, stream: Stream, place: LogPlace, most: int, offset: int) -> LogRead | None:
        """Read what follows `place`, having asked for everything from `offset` on; None when that missed the place.

        Only while the first file is there and is the one that is read does an offset lead to a place for certain;
        else the log is read from its beginning, and what is known of it is skipped.
        """
        chosen, data, seen, missed = place, b"", False, offset > 0
        frames = self._frames(allocation, stream, {"origin": "start", "offset": str(offset)})
        for at, fresh in _unread(frames, place, offset):
            if missed and at.file != 0:
                return None
            missed = False
            seen = seen or at.file == place.file
            if not fresh:
                continue
            if data and at.file != chosen.file:
                return LogRead(data, chosen, more=True, lost=_lost(place, chosen, seen=seen))
            chosen = chosen if data else at
            data += fresh
            if len(data) >= most:
                return LogRead(data[:most], chosen, more=True, lost=_lost(place, chosen, seen=seen))
        return None if missed else LogRead(data, chosen, lost=bool(data) and _lost(place, chosen, seen=seen))

    def _frames(self, allocation: str, stream: Stream, params: Mapping[str, str]) -> Iterator[tuple[int, bytes]]:
        """Pieces of a log, each with the number of its file. Raises ExecutorUnavailableError."""
        try:
            with self._api.log_frames(allocation, self._task, {"type": stream.value, **params}) as chunks:
                yield from read_frames(chunks)
        except NomadMissingError as error:
            # Before its task starts, and before the first byte of a log, there is none. Else its client let go of it.
            if "not started yet" not in error.detail and "log entry" not in error.detail:
                raise ExecutorUnavailableError(error.detail) from error


def _unread(frames: Iterable[tuple[int, bytes]], place: LogPlace, offset: int) -> Iterator[tuple[LogPlace, bytes]]:
    """What of each frame comes after `place`, and where it begins; the first frame begins at `offset` of its file."""
    at = LogPlace(0, offset)
    for file, piece in frames:
        at = at if file == at.file else LogPlace(file)
        known = len(piece) if file < place.file else max(place.offset - at.offset, 0) if file == place.file else 0
        yield LogPlace(file, at.offset + min(known, len(piece))), piece[known:]
        at = LogPlace(file, at.offset + len(piece))


def _lost(place: LogPlace, found: LogPlace, *, seen: bool) -> bool:
    """Whether something may have been between the place that a log was read to and what was found next."""
    return found.file != place.file and not (seen and found.file == place.file + 1)


def read_frames(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Take Nomad's frames apart: objects one after the other, whose `Data` is base64 and whose `Offset` means little.

    A frame's `Offset` is where its first part ended, however many parts it has. Raises ExecutorUnavailableError.
    """
    rest = b""
    for chunk in chunks:
        *frames, rest = (rest + chunk).split(b"}")
        if len(rest) > FRAME_BYTES:
            raise ExecutorUnavailableError("Nomad's answer is no log: a frame of it does not end")
        for frame in frames:
            yield from _read_frame(frame + b"}")


def _read_frame(piece: bytes) -> Iterator[tuple[int, bytes]]:
    try:
        frame = mapping(json.loads(piece))
        data = base64.b64decode(text(frame, "Data"), validate=True)
    except ValueError as error:
        raise ExecutorUnavailableError("Nomad's answer is no log: a frame of it cannot be read") from error
    file = _FILE.search(text(frame, "File"))
    if data and file is not None:
        yield int(file[1]), data
