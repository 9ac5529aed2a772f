"""The protocol of an executor: it starts one runner for each Attempt, and says when one ended without speaking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol

from albatros.domain.states import AttemptState, Reason


@dataclass(frozen=True, slots=True)
class StartOrder:
    """What a runner is started with: its Attempt, the Attempt's token, where the server listens, and where it may run.

    `system` is the derivation's own, empty for an evaluation, which runs anywhere. Without `trusted` nobody who may
    push stands for what it runs. `limit_seconds` is the wall clock of the Attempt: the runner keeps to it, and an
    executor that can ends what does not. `memory_mb` asks for less memory than the executor would give, in MiB; 0 does
    not.
    """

    attempt_id: str
    token: str = field(repr=False)
    server_url: str
    system: str = ""
    trusted: bool = True
    limit_seconds: int = 3600
    memory_mb: int = 0


@dataclass(frozen=True, slots=True)
class Slots:
    """Places that some Jobs share: builds for `systems`, and evaluations if it `evaluates`; `free` of them are left."""

    systems: frozenset[str]
    free: int
    evaluates: bool


@dataclass(frozen=True, slots=True)
class RunnerEnded:
    """A runner that is gone: why, if its Attempt is open still, in a word and in a sentence."""

    attempt_id: str
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class RunnerPlaced:
    """Where a runner is, as far as its executor has something to say of it; `facts` are JSON, for people.

    One that `waits` was not started yet, and nothing is wrong: its time to claim begins anew.
    """

    attempt_id: str
    waits: bool
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class RunnerUnseen:
    """A runner that was started and has not claimed, of which its executor can say nothing at the moment.

    It may be waiting for a place, so its time to claim begins anew.
    """

    attempt_id: str


RunnerNews = RunnerEnded | RunnerPlaced | RunnerUnseen


class Executor(Protocol):
    """Where Jobs run.

    Calls raise ExecutorError when a runner cannot be started or stopped, and ExecutorUnavailableError when it is not
    known whether that was done, or when it cannot be done now: the same call may be made again.
    """

    @property
    def name(self) -> str:
        """Its name in Attempts; servers whose executors have one name see the same runners."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other servers see its runners too: a server that ends leaves them to the others."""
        ...

    def slots(self) -> Sequence[Slots]:
        """The groups of places there are; none at all when that is not known at the moment."""
        ...

    def lacks(self, system: str) -> str:
        """Why there is no place for a system that no group names, for people."""
        ...

    def start(self, order: StartOrder) -> str:
        """Start a runner and say how the executor calls it; a repeated start of the same Attempt changes nothing."""
        ...

    def stop(self, attempt_id: str, *, kill: bool) -> None:
        """Ask a runner to end, or with `kill` end it and all of its children; unknown ones are no error."""
        ...

    def alive(self) -> AbstractSet[str]:
        """Attempts whose runners run, those of a server process before this one included."""
        ...

    def poll(self, open_attempts: Mapping[str, AttemptState]) -> list[RunnerNews]:
        """News since the last call; `open_attempts` are those of this executor, which alone have to be told of.

        An end is told once, or as long as its Attempt is open.
        """
        ...

    def close(self) -> None:
        """Let go of what the executor holds; runners go on."""
        ...
