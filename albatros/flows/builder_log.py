"""The log of a builder's Attempt: both outputs of its program, read where the engine keeps them, become one log.

How far each was read is committed with what was read, so that a server that was killed, or another one, goes on without
a hole or a repetition. What is beyond `limits.log_bytes` is left out between the log's head and its end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import count

from albatros.db import builders, logs
from albatros.db.models import BuilderRun
from albatros.db.session import Database, now
from albatros.executors.builder_base import Builder, LogPlace, LogRead, Stream

READ_BYTES = 1 << 20
"""Most that is read of a log, and committed, at once."""
MOST_READS = 4
"""So often in one round: a program that never stops writing may not hold up the others."""
HEARD_BYTES = 256
HOLD_SECONDS = 3.0
"""How long the beginning of a line waits for its end before it is shown."""
LOST = b"[albatros] some of the log is missing here: Nomad's rotation took it away before it was read\n"


class TakenOverError(Exception):
    """Another server follows the Attempt by now."""


@dataclass(frozen=True, slots=True)
class Followed:
    """How far an output was copied; `full`: there was no room for more, so that its end alone follows."""

    file: int = 0
    offset: int = 0
    full: bool = False


DONE = Followed(file=1 << 30)
"""Where nothing follows."""


class BuilderLog:
    """Copies the log of one Attempt that this server follows; `begin` anew when the engine starts it elsewhere."""

    def __init__(self, database: Database, builder: Builder, run: BuilderRun, limit: int) -> None:
        """`limit`: bytes that are kept, half of them of the head."""
        self._database = database
        self._builder = builder
        self._run = run
        self._head = max(limit // 2, 1)
        self._end = max(limit - limit // 2, 1)
        self._held: dict[Stream, float] = {}
        self._heard: dict[Stream, bytes] = {}

    @property
    def run(self) -> BuilderRun:
        """The run as it was committed last."""
        return self._run

    def begin(self, allocation: str, note: str) -> None:
        """Read another allocation's log from its start, after a line that says so. Raises TakenOverError."""
        self._held.clear()
        self._commit(note.encode(), {}, allocation)

    def say(self, note: str) -> None:
        """Add a line of ours. Raises TakenOverError."""
        self._commit(note.encode(), self._streams(), self._run.allocation)

    def copy(self) -> None:
        """Copy what is new of both outputs, or see whether there is anything.

        Raises TakenOverError, ExecutorUnavailableError or ExecutorError; GoneError when the Attempt is closed.
        """
        for stream, at in self._streams().items():
            if at.full:
                self._listen(stream)
            else:
                self._copy_stream(stream, MOST_READS, whole=False)

    def finish(self) -> None:
        """Copy the rest of what its program, which has ended, said; of a long log the end. Raises as `copy`."""
        for stream, at in self._streams().items():
            if not at.full:
                self._copy_stream(stream, None, whole=True)
        for stream, at in self._streams().items():
            if at.full:
                self._copy_end(stream, at)

    def _copy_stream(self, stream: Stream, most: int | None, *, whole: bool) -> None:
        """Copy an output as far as it is there and there is room, in at most so many pieces."""
        for _ in count() if most is None else range(most):
            at = self._streams()[stream]
            read = self._builder.read_log(self._run.allocation, stream, LogPlace(at.file, at.offset), READ_BYTES)
            data = read.data if whole or read.more else self._full_lines(stream, read.data)
            if at.full or (not data and not read.lost):
                return
            # What the other output says comes behind it, and begins a line of its own.
            ends_open = whole and not read.more and data[-1:] not in (b"\n", b"")
            self._keep(stream, replace(read, data=data), b"\n" if ends_open else b"")

    def _copy_end(self, stream: Stream, at: Followed) -> None:
        rest = self._builder.read_log_rest(
            self._run.allocation, stream, LogPlace(at.file, at.offset), self._end // len(Stream)
        )
        left_out = rest.count - len(rest.end)
        note = f"\n[albatros] … {left_out} bytes of {stream} were left out here …\n" if left_out else ""
        self._commit(note.encode() + rest.end, {**self._streams(), stream: DONE}, self._run.allocation)

    def _listen(self, stream: Stream) -> None:
        """An output that is not copied is heard all the same."""
        end = self._builder.read_log_end(self._run.allocation, stream, HEARD_BYTES)
        if end != self._heard.get(stream):
            self._heard[stream] = end
            self._commit(b"", self._streams(), self._run.allocation)

    def _full_lines(self, stream: Stream, data: bytes) -> bytes:
        """`data` to the end of its last line, since what the other output says comes behind it."""
        lines = data[: data.rfind(b"\n") + 1]
        if lines or not data:
            self._held.pop(stream, None)
            return lines
        since = self._held.setdefault(stream, time.monotonic())
        return data if time.monotonic() - since > HOLD_SECONDS else b""

    def _keep(self, stream: Stream, read: LogRead, closing: bytes) -> None:
        self._held.pop(stream, None)
        room = max(self._head - self._run.attempt.log_bytes, 0)
        kept = read.data[:room]
        full = len(kept) < len(read.data)
        end = Followed(read.place.file, read.place.offset + len(kept), full)
        data = (LOST if read.lost else b"") + kept + (b"" if full else closing)
        self._commit(data, {**self._streams(), stream: end}, self._run.allocation)

    def _commit(self, data: bytes, streams: Mapping[Stream, Followed], allocation: str) -> None:
        with self._database.write() as session:
            if data:
                logs.append_next(session, self._run.attempt_id, data)
            run = builders.lock_run(session, self._run)
            if run is None:
                raise TakenOverError
            run.allocation = allocation
            run.streams = {stream.value: asdict(at) for stream, at in streams.items()}
            run.heard_at = now()
            run.revision += 1
            session.flush()
            session.refresh(run.attempt)
        self._run = run

    def _streams(self) -> dict[Stream, Followed]:
        return {stream: _read_followed(self._run.streams.get(stream.value)) for stream in Stream}


def _read_followed(value: object) -> Followed:
    return Followed(**value) if isinstance(value, dict) else Followed()
