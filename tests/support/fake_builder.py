"""A builder in memory: a test says what its program does, and what goes wrong on the way."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from albatros.domain.states import Reason
from albatros.errors import ExecutorUnavailableError
from albatros.executors.builder_base import ChildState, LogPlace, LogRead, LogRest, Phase, Stream

WAITS = ChildState(Phase.WAITING, "there is no place for it")
UNKNOWN = ChildState(Phase.GONE, "nobody knows it")


@dataclass
class FakeChild:
    """Something dispatched."""

    name: str
    attempt_id: str
    meta: Mapping[str, str]
    state: ChildState = WAITS
    logs: dict[Stream, bytes] = field(default_factory=lambda: dict.fromkeys(Stream, b""))
    stopped: int = 0

    def begin(self, allocation: str = "a1", host: str = "node-1") -> None:
        placement = {"allocation": allocation, "node": host}
        self.state = ChildState(Phase.RUNNING, allocation=allocation, host=host, placement=placement)

    def say(self, text: str, stream: Stream = Stream.STDOUT) -> None:
        self.logs[stream] += text.encode()

    def end(self, reason: Reason | None = None, detail: str = "") -> None:
        self.state = replace(self.state, phase=Phase.ENDED, reason=reason, detail=detail)


@dataclass
class FakeBuilder:
    """See `Builder`; what was dispatched is in `children`."""

    children: dict[str, FakeChild] = field(default_factory=dict)
    answers_lost: int = 0
    """So many dispatches take effect without an answer."""
    away: bool = False
    logs_away: bool = False

    def check(self) -> None:
        self._check()

    def dispatch(self, attempt_id: str, meta: Mapping[str, str]) -> str:
        self._check()
        name = f"build/dispatch-alb-{attempt_id}"
        self.children.setdefault(name, FakeChild(name, attempt_id, meta))
        if self.answers_lost:
            self.answers_lost -= 1
            raise ExecutorUnavailableError("the answer was lost")
        return name

    def look(self, child: str) -> ChildState:
        self._check()
        return self.children[child].state if child in self.children else UNKNOWN

    def read_log(self, allocation: str, stream: Stream, place: LogPlace, most: int) -> LogRead:
        data = self._log(allocation, stream)[place.offset :]
        return LogRead(data[:most], place, more=len(data) > most)

    def read_log_rest(self, allocation: str, stream: Stream, place: LogPlace, length: int) -> LogRest:
        data = self._log(allocation, stream)[place.offset :]
        return LogRest(len(data), data[-length:] if length else b"")

    def read_log_end(self, allocation: str, stream: Stream, length: int) -> bytes:
        return self._log(allocation, stream)[-length:] if length else b""

    def stop(self, child: str) -> None:
        self._check()
        found = self.children.get(child)
        if found is not None:
            found.stopped += 1
            if found.state.phase is not Phase.ENDED:
                found.end(Reason.PREEMPTED, "it was stopped")

    def running(self) -> Mapping[str, str]:
        self._check()
        going = (child for child in self.children.values() if child.state.phase in (Phase.WAITING, Phase.RUNNING))
        return {child.name: child.attempt_id for child in going}

    def close(self) -> None:
        """Nothing is held."""

    @property
    def only(self) -> FakeChild:
        """The one child there is."""
        assert len(self.children) == 1, self.children
        return next(iter(self.children.values()))

    def _log(self, allocation: str, stream: Stream) -> bytes:
        if self.away or self.logs_away:
            raise ExecutorUnavailableError("the node does not answer")
        return next(child for child in self.children.values() if child.state.allocation == allocation).logs[stream]

    def _check(self) -> None:
        if self.away:
            raise ExecutorUnavailableError("the engine does not answer")
