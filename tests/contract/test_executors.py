"""What every executor promises, on the local one and on the fake that other tests use."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from albatros.domain.states import Reason
from albatros.errors import ExecutorError
from albatros.executors.base import Executor, RunnerEnded, StartOrder
from albatros.executors.local import LocalExecutor
from albatros.settings import ExecutorSettings
from tests.support.fake_executor import EXITS, SLEEPS, FakeExecutor, FakeMachine
from tests.support.zipapps import OBEDIENT, open_directory, zipapp

T = TypeVar("T")
FIRST, SECOND = str(uuid.uuid4()), str(uuid.uuid4())
SERVER_ID = "5e7f3a10"


class Place(Protocol):
    """Where runners are; opened again after a server has ended."""

    def open(self) -> Executor:
        """An executor of a server process that has just started."""

    def wait_ready(self, attempt_id: str) -> None:
        """Wait until a sleeping runner can be told to stop."""


class LocalPlace:
    def __init__(self, data: Path) -> None:
        self._data = data
        self._opened: list[LocalExecutor] = []

    def open(self) -> Executor:
        executor = LocalExecutor(SERVER_ID, ExecutorSettings(slots=2), self._data, zipapp(OBEDIENT))
        self._opened.append(executor)
        return executor

    def wait_ready(self, attempt_id: str) -> None:
        ready = self._data / "runner" / "home" / "work" / attempt_id / "ready"
        wait_for(lambda: ready.exists() or None)

    def end(self) -> None:
        for executor in self._opened:
            for attempt_id in executor.alive():
                executor.stop(attempt_id, kill=True)
            wait_for(lambda executor=executor: not executor.alive() or None)  # type: ignore[misc] # bound per turn


class FakePlace:
    def __init__(self) -> None:
        self._machine = FakeMachine()

    def open(self) -> Executor:
        return FakeExecutor(self._machine)

    def wait_ready(self, attempt_id: str) -> None:
        assert attempt_id in self._machine.running


@contextmanager
def local_place() -> Iterator[Place]:
    with open_directory() as directory:
        data = directory / "data"
        data.mkdir()
        place = LocalPlace(data)
        yield place
        place.end()


@contextmanager
def fake_place() -> Iterator[Place]:
    yield FakePlace()


@pytest.fixture(params=[local_place, fake_place], ids=["local", "fake"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with request.param() as opened:
        yield opened


def wait_for(ask: Callable[[], T | None]) -> T:
    """The first answer that is not None; the test's timeout ends a wait for nothing."""
    while (answer := ask()) is None:
        time.sleep(0.02)
    return answer


def order(attempt_id: str, token: str) -> StartOrder:
    return StartOrder(attempt_id, token, "http://127.0.0.1:1")


def free(executor: Executor) -> int:
    """Places for a build of this machine's system."""
    return sum(group.free for group in executor.slots() if "x86_64-linux" in group.systems)


def next_end(executor: Executor) -> RunnerEnded:
    ended = wait_for(lambda: executor.poll() or None)
    assert len(ended) == 1
    return ended[0]


def test_it_builds_for_some_system(place: Place) -> None:
    executor = place.open()
    assert executor.name
    systems = {system for group in executor.slots() for system in group.systems}
    assert systems
    assert all(system.endswith("-linux") for system in systems)
    assert any(group.evaluates for group in executor.slots())


def test_it_says_why_it_has_no_place_for_a_system(place: Place) -> None:
    assert "riscv64-linux" in place.open().lacks("riscv64-linux")


def test_a_started_runner_is_alive_and_takes_a_slot(place: Place) -> None:
    executor = place.open()
    assert (free(executor), set(executor.alive())) == (2, set())
    assert executor.start(order(FIRST, SLEEPS))
    assert (free(executor), set(executor.alive())) == (1, {FIRST})
    executor.start(order(SECOND, SLEEPS))
    assert (free(executor), set(executor.alive())) == (0, {FIRST, SECOND})
    assert executor.poll() == []


def test_a_repeated_start_changes_nothing(place: Place) -> None:
    executor = place.open()
    assert executor.start(order(FIRST, SLEEPS)) == executor.start(order(FIRST, SLEEPS))
    assert free(executor) == 1


def test_an_end_is_told_once_with_its_exit_code_and_last_words(place: Place) -> None:
    executor = place.open()
    executor.start(order(FIRST, EXITS))
    end = next_end(executor)
    assert (end.attempt_id, end.reason) == (FIRST, Reason.NODE_LOST)
    assert "exit code 3" in end.detail
    assert "the last words" in end.detail
    assert executor.poll() == []
    assert (free(executor), set(executor.alive())) == (2, set())


def test_an_attempt_may_be_started_again_after_its_end_was_told(place: Place) -> None:
    executor = place.open()
    for _ in range(2):
        executor.start(order(FIRST, EXITS))
        assert "exit code 3" in next_end(executor).detail


def test_a_stopped_runner_ends_in_its_own_way(place: Place) -> None:
    executor = place.open()
    executor.start(order(FIRST, SLEEPS))
    place.wait_ready(FIRST)
    executor.stop(FIRST, kill=False)
    assert "exit code 0" in next_end(executor).detail


def test_a_killed_runner_is_gone_and_was_not_out_of_memory(place: Place) -> None:
    executor = place.open()
    executor.start(order(FIRST, SLEEPS))
    executor.start(order(SECOND, SLEEPS))
    executor.stop(FIRST, kill=True)
    end = next_end(executor)
    assert (end.attempt_id, end.reason) == (FIRST, Reason.NODE_LOST)
    assert "signal 9" in end.detail
    assert set(executor.alive()) == {SECOND}


def test_stopping_an_unknown_attempt_is_no_error(place: Place) -> None:
    executor = place.open()
    executor.stop(FIRST, kill=False)
    executor.stop(FIRST, kill=True)
    assert executor.poll() == []


def test_the_next_server_finds_the_runners_of_the_last_one(place: Place) -> None:
    first = place.open()
    reference = first.start(order(FIRST, SLEEPS))
    first.close()
    second = place.open()
    assert set(second.alive()) == {FIRST}
    assert free(second) == 1
    assert second.start(order(FIRST, SLEEPS)) == reference
    second.stop(FIRST, kill=True)
    assert next_end(second).attempt_id == FIRST
    assert second.poll() == []


@pytest.mark.parametrize("attempt_id", ["../escape", "", "a/b", "a\0b"])
def test_an_attempt_that_is_no_name_is_refused(place: Place, attempt_id: str) -> None:
    with pytest.raises(ExecutorError):
        place.open().start(order(attempt_id, SLEEPS))


def test_the_token_is_not_in_the_orders_text() -> None:
    assert "a-secret" not in repr(order(FIRST, "a-secret"))
