"""An executor in memory that keeps the promises of `Executor`; its runners do what their token says."""

from dataclasses import dataclass, field

from albatros.errors import ExecutorError
from albatros.executors.base import RunnerEnded, StartOrder

SLEEPS = "sleep"
"""A runner with this token runs until it is stopped."""
EXITS = "exit 3"
"""A runner with this token prints `the last words` on stderr and ends with exit code 3."""


@dataclass
class FakeMachine:
    """What is left when an executor is closed: the runners."""

    running: dict[str, str] = field(default_factory=dict)
    ended: list[RunnerEnded] = field(default_factory=list)
    started: list[StartOrder] = field(default_factory=list)


class FakeExecutor:
    """`machine` outlives it, as processes outlive a server."""

    name = "fake"

    def __init__(
        self, machine: FakeMachine | None = None, slots: int = 2, systems: frozenset[str] = frozenset({"x86_64-linux"})
    ) -> None:
        self.machine = machine or FakeMachine()
        self._slots = slots
        self._systems = systems

    def systems(self) -> frozenset[str]:
        return self._systems

    def free_slots(self) -> int:
        return max(0, self._slots - len(self.machine.running))

    def start(self, order: StartOrder) -> str:
        if not order.attempt_id.replace("-", "").isalnum():
            raise ExecutorError(f"{order.attempt_id!r} is no attempt")
        known = self.machine.running.get(order.attempt_id)
        if known is not None:
            return known
        self.machine.started.append(order)
        reference = f"fake-{len(self.machine.started)}"
        self.machine.running[order.attempt_id] = reference
        if order.token == EXITS:
            self.end(order.attempt_id, 3, "the last words")
        return reference

    def stop(self, attempt_id: str, *, kill: bool) -> None:
        if attempt_id in self.machine.running:
            self.end(attempt_id, -9 if kill else 0)

    def end(self, attempt_id: str, exit_code: int | None, stderr: str = "", *, oom: bool = False) -> None:
        """Let a runner end."""
        del self.machine.running[attempt_id]
        self.machine.ended.append(RunnerEnded(attempt_id, exit_code, oom, stderr))

    def alive(self) -> frozenset[str]:
        return frozenset(self.machine.running)

    def poll(self) -> list[RunnerEnded]:
        ended, self.machine.ended = self.machine.ended, []
        return ended

    def close(self) -> None:
        return
