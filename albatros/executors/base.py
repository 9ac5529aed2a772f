"""The protocol of an executor: it starts one runner for each Attempt, and says when one ended without speaking."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StartOrder:
    """What a runner is started with: its Attempt, the Attempt's token, and where the server listens."""

    attempt_id: str
    token: str = field(repr=False)
    server_url: str


@dataclass(frozen=True, slots=True)
class RunnerEnded:
    """A runner process that is gone; `exit_code` is negative for a signal, None when it is not known."""

    attempt_id: str
    exit_code: int | None
    oom: bool
    stderr_tail: str

    def describe(self) -> str:
        """Its end in a few words, for people."""
        if self.exit_code is None:
            end = "nobody saw how"
        else:
            end = f"signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"
        return f"{end}: {self.stderr_tail}" if self.stderr_tail else end


class Executor(Protocol):
    """Where Jobs run. Calls raise ExecutorError when a runner cannot be started or stopped."""

    @property
    def name(self) -> str:
        """Its name in Attempts."""
        ...

    def systems(self) -> AbstractSet[str]:
        """Nix systems that it can build."""
        ...

    def free_slots(self) -> int:
        """Runners that it could start now."""
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

    def poll(self) -> list[RunnerEnded]:
        """Runners that ended since the last call, each told once."""
        ...

    def close(self) -> None:
        """Let go of what the executor holds; runners go on."""
        ...
