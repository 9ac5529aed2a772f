"""An executor in memory that keeps the promises of `Executor`; its runners do what their token says."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from albatros.domain.states import AttemptState, Reason
from albatros.errors import ExecutorError
from albatros.executors.base import RunnerEnded, RunnerNews, Slots, StartOrder

SLEEPS = "sleep"
"""A runner with this token runs until it is stopped."""
EXITS = "exit 3"
"""A runner with this token prints `the last words` on stderr and ends with exit code 3."""


@dataclass
class FakeMachine:
    """What is left when an executor is closed: the runners."""

    running: dict[str, str] = field(default_factory=dict)
    ended: list[RunnerNews] = field(default_factory=list)
    started: list[StartOrder] = field(default_factory=list)


class FakeExecutor:
    """`machine` outlives it, as processes outlive a server; tests may have it `shared` by several."""

    name = "fake"
    shared = False

    def __init__(
        self, machine: FakeMachine | None = None, slots: int = 2, systems: frozenset[str] = frozenset({"x86_64-linux"})
    ) -> None:
        self.machine = machine or FakeMachine()
        self._slots = slots
        self._systems = systems

    def slots(self) -> list[Slots]:
        return [Slots(self._systems, max(0, self._slots - len(self.machine.running)), evaluates=True)]

    def lacks(self, system: str) -> str:
        return f"the fake builds {', '.join(sorted(self._systems))}, and not {system}"

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
            self.end(order.attempt_id, "exit code 3: the last words")
        return reference

    def stop(self, attempt_id: str, *, kill: bool) -> None:
        if attempt_id in self.machine.running:
            self.end(attempt_id, "signal 9" if kill else "exit code 0")

    def end(self, attempt_id: str, how: str = "exit code 0", reason: Reason = Reason.NODE_LOST) -> None:
        """Let a runner end."""
        del self.machine.running[attempt_id]
        self.machine.ended.append(RunnerEnded(attempt_id, reason, f"its runner ended ({how}) without a report"))

    def alive(self) -> frozenset[str]:
        return frozenset(self.machine.running)

    def poll(self, open_attempts: Mapping[str, AttemptState]) -> list[RunnerNews]:
        ended, self.machine.ended = self.machine.ended, []
        return ended

    def close(self) -> None:
        return
