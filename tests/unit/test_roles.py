"""The loops of a server: they outlive errors, slow down, and stop at once."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from albatros import roles
from albatros.db.signals import Signals
from albatros.errors import DatabaseUnavailableError
from albatros.roles import Loop, stop_all

FOREVER = 3600.0


class Steps:
    """A step that does what it is told, call by call, then has nothing to do."""

    def __init__(self, *outcomes: bool | Exception) -> None:
        self._outcomes = list(outcomes)
        self._changed = threading.Condition()
        self.calls = 0

    def __call__(self) -> bool:
        with self._changed:
            self.calls += 1
            self._changed.notify_all()
            outcome = self._outcomes.pop(0) if self._outcomes else False
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def wait(self, calls: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.calls >= calls, 60), f"{self.calls} of {calls} calls came"


@pytest.fixture
def run() -> Iterator[Callable[[Callable[[], bool], Signals], Loop]]:
    loops: list[Loop] = []

    def start(step: Callable[[], bool], signals: Signals) -> Loop:
        loop = Loop("a-loop", signals, "work", step, FOREVER)
        loops.append(loop)
        loop.start()
        return loop

    yield start
    assert stop_all(loops, 60)


Run = Callable[[Callable[[], bool], Signals], Loop]


def test_it_goes_on_while_there_is_work_then_waits(run: Run) -> None:
    steps, signals = Steps(True, True, True), Signals()
    run(steps, signals)
    steps.wait(4)
    time.sleep(0.05)
    assert steps.calls == 4
    signals.notify("other")
    signals.notify("work")
    steps.wait(5)


def test_a_notice_during_the_step_is_not_missed(run: Run) -> None:
    signals = Signals()
    steps = Steps()

    def step() -> bool:
        if steps.calls == 0:
            signals.notify("work")
        return steps()

    run(step, signals)
    steps.wait(2)


def test_it_survives_errors_and_slows_down(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "LONGEST_PAUSE", 0.01)
    steps = Steps(ValueError("a bug"), DatabaseUnavailableError("locked"), KeyError("another"))
    run(steps, Signals())
    steps.wait(4)


def test_pauses_grow_to_the_longest_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    class Stopping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            if len(pauses) == 2000:
                self.set()
            return self.is_set()

    def fail() -> bool:
        raise DatabaseUnavailableError("gone for a day")

    monkeypatch.setattr(roles.log, "error", lambda *args, **kwargs: None)
    loop = Loop("a-loop", Signals(), "work", fail, FOREVER)
    loop._stopping = Stopping()
    loop.start()
    assert loop.join(60)
    assert pauses[:5] == [2.0, 4.0, 8.0, 16.0, 30.0]
    assert len(pauses) == 2000, "an outage of any length ends no loop"
    assert set(pauses[5:]) == {30.0}


def test_success_ends_the_slowness(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    class Stopping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            if len(pauses) == 3:
                self.set()
            return self.is_set()

    error = ValueError("a bug")
    loop = Loop("a-loop", Signals(), "work", Steps(error, error, True, error), FOREVER)
    loop._stopping = Stopping()
    loop.start()
    assert loop.join(60)
    assert pauses == [2.0, 4.0, 2.0]


def rests(*, is_busy: bool) -> list[float]:
    """What a loop rests after steps that cost processor time."""
    pauses: list[float] = []

    class Stopping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            return self.is_set()

    stopping = Stopping()

    def work() -> bool:
        until = time.thread_time() + 0.002
        while time.thread_time() < until:
            pass
        if steps() is False:
            stopping.set()
        return True

    steps = Steps(True, True)
    loop = Loop("a-loop", Signals(), "work", work, FOREVER, lambda: is_busy)
    loop._stopping = stopping
    loop.start()
    assert loop.join(60)
    return pauses


def test_it_rests_after_each_step_while_somebody_waits_for_an_answer() -> None:
    pauses = rests(is_busy=True)
    assert len(pauses) == 3
    assert all(0.002 * roles.REST <= pause <= roles.LONGEST_REST for pause in pauses)


def test_it_does_not_rest_while_nobody_waits() -> None:
    assert rests(is_busy=False) == []


def test_it_stops_while_it_waits_for_work() -> None:
    steps = Steps()
    loop = Loop("a-loop", Signals(), "work", steps, FOREVER)
    loop.start()
    steps.wait(1)
    loop.stop()
    assert loop.join(60)


def test_it_stops_while_it_is_slow() -> None:
    steps = Steps(*[ValueError("a bug")] * 9)
    loop = Loop("a-loop", Signals(), "work", steps, FOREVER)
    loop.start()
    steps.wait(2)
    loop.stop()
    assert loop.join(60)


def test_a_step_that_hangs_is_told_of() -> None:
    release, entered = threading.Event(), threading.Event()

    def hang() -> bool:
        entered.set()
        return release.wait(60)

    hanging = Loop("hanging", Signals(), "work", hang, FOREVER)
    hanging.start()
    assert entered.wait(60)
    assert not stop_all([hanging], 0.01)
    release.set()
    assert stop_all([hanging], 30)


def test_a_loop_that_never_began_has_ended() -> None:
    assert stop_all([Loop("idle", Signals(), "work", Steps(), FOREVER)], 1)
