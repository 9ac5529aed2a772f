"""The protocol of a builder: a job of the operator's own, which an engine runs once for each Attempt.

No runner of ours is in it: what there is to know of an Attempt is asked of the engine, its log included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from albatros.domain.states import Reason


class Phase(StrEnum):
    """How far what was dispatched has come."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"
    GONE = "gone"
    """The engine knows it no more, and nobody can say how it ended."""


class Stream(StrEnum):
    """The two outputs of a program."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class LogPlace:
    """How far a log was read: so many bytes of the file with this number, which the engine rotates."""

    file: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class LogRead:
    """What follows in one file of a log, which begins at `place`."""

    data: bytes
    place: LogPlace
    more: bool = False
    """Another file follows, so nothing is added to this one."""
    lost: bool = False
    """The engine took away some of what came before it."""


@dataclass(frozen=True, slots=True)
class LogRest:
    """How many bytes follow a place of a log, and the last of them."""

    count: int
    end: bytes


@dataclass(frozen=True, slots=True)
class ChildState:
    """What the engine says of something dispatched; `reason` is None for a success, and while it has not ended."""

    phase: Phase
    detail: str = ""
    """Why it waits, or how it ended, for people."""
    reason: Reason | None = None
    allocation: str = ""
    """Where its log is; another one when the engine started it again."""
    host: str = ""
    placement: Mapping[str, object] = field(default_factory=dict)
    """What is told of where it runs, as Attempts keep it."""


class Builder(Protocol):
    """One builder. Calls raise ExecutorUnavailableError when they cannot be answered now, ExecutorError for good."""

    def check(self) -> None:
        """Return when it can be dispatched to; ExecutorError says what is wrong with it, and what to do."""
        ...

    def dispatch(self, attempt_id: str, meta: Mapping[str, str]) -> str:
        """Run it for an Attempt, and say what the engine calls that; repeated for one Attempt it runs once."""
        ...

    def look(self, child: str) -> ChildState:
        """How it goes."""
        ...

    def read_log(self, allocation: str, stream: Stream, place: LogPlace, most: int) -> LogRead:
        """What follows `place` in a log, at most `most` bytes; nothing before there is any."""
        ...

    def read_log_rest(self, allocation: str, stream: Stream, place: LogPlace, length: int) -> LogRest:
        """Count what follows `place` in a log, with its last `length` bytes."""
        ...

    def read_log_end(self, allocation: str, stream: Stream, length: int) -> bytes:
        """The last `length` bytes of a log, or what there is of them."""
        ...

    def stop(self, child: str) -> None:
        """End it; one that has ended, or is gone, is no error."""
        ...

    def running(self) -> Mapping[str, str]:
        """What was dispatched and has not ended, each with its Attempt's id, whichever server did it."""
        ...

    def close(self) -> None:
        """Let go of its connections; what runs goes on."""
        ...
