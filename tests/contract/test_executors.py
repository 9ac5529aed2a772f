"""What every executor promises, on the local one, on a Nomad, and on the fake that other tests use."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar, cast

import httpx
import pytest

from albatros.domain.states import AttemptState, Reason
from albatros.errors import ExecutorError
from albatros.executors.base import Executor, RunnerEnded, StartOrder
from albatros.executors.local import LocalExecutor
from albatros.settings import ExecutorSettings
from tests.support.fake_executor import EXITS, SLEEPS, FakeExecutor, FakeMachine
from tests.support.nomad_place import open_nomad, serve_zipapp
from tests.support.nomad_worlds import RealWorld, SimulatedWorld, nomad_world
from tests.support.zipapps import OBEDIENT, open_directory, zipapp

T = TypeVar("T")
World = RealWorld | SimulatedWorld
SERVER_ID = "5e7f3a10"


class Place(Protocol):
    """Where runners are; opened again after a server has ended. At `url` they find their program."""

    @property
    def url(self) -> str: ...

    @property
    def first(self) -> str: ...

    @property
    def second(self) -> str: ...

    def open(self) -> Executor:
        """An executor of a server process that has just started."""

    def wait_ready(self, attempt_id: str) -> None:
        """Wait until a sleeping runner can be told to stop."""


class Ids:
    """Two Attempts, whose ids no other test has."""

    url = "http://127.0.0.1:1"

    def __init__(self) -> None:
        self.first, self.second = str(uuid.uuid4()), str(uuid.uuid4())


class LocalPlace(Ids):
    def __init__(self, data: Path) -> None:
        super().__init__()
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


class FakePlace(Ids):
    def __init__(self) -> None:
        super().__init__()
        self._machine = FakeMachine()

    def open(self) -> Executor:
        return FakeExecutor(self._machine)

    def wait_ready(self, attempt_id: str) -> None:
        assert attempt_id in self._machine.running


@contextmanager
def local_place(_: pytest.FixtureRequest) -> Iterator[Place]:
    with open_directory() as directory:
        data = directory / "data"
        data.mkdir()
        place = LocalPlace(data)
        yield place
        place.end()


@contextmanager
def fake_place(_: pytest.FixtureRequest) -> Iterator[Place]:
    yield FakePlace()


class NomadPlace(Ids):
    def __init__(self, nomad: World, url: str) -> None:
        super().__init__()
        self._nomad = nomad
        self.url = url
        self._opened: list[Executor] = []

    def open(self) -> Executor:
        executor = open_nomad(self._nomad.url, self._nomad.token, zipapp(OBEDIENT), self.first)
        self._opened.append(executor)
        return executor

    def wait_ready(self, attempt_id: str) -> None:
        path = f"/v1/job/alb-{attempt_id}/allocations"

        def running() -> str | None:
            found = cast("list[dict[str, str]]", self._get(path).json())
            return next((one["ID"] for one in found if one["ClientStatus"] == "running"), None)

        log = f"/v1/client/fs/logs/{wait_for(running)}?task=executor&type=stdout&plain=true"
        wait_for(lambda: "ready" in self._get(log).text or None)

    def _get(self, path: str) -> httpx.Response:
        return httpx.get(self._nomad.url + path, headers={"X-Nomad-Token": self._nomad.token}, timeout=60)

    def end(self) -> None:
        for executor in self._opened:
            executor.close()
        last = open_nomad(self._nomad.url, self._nomad.token, zipapp(OBEDIENT), self.first)
        for attempt_id in (self.first, self.second):
            last.stop(attempt_id, kill=True)
        last.close()


@contextmanager
def simulated_place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with nomad_place(request.getfixturevalue("simulated_nomad")) as place:
        yield place


@contextmanager
def real_place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with nomad_place(request.getfixturevalue("real_nomad")) as place:
        yield place


@contextmanager
def nomad_place(nomad: World) -> Iterator[Place]:
    with serve_zipapp(zipapp(OBEDIENT)) as url:
        place = NomadPlace(nomad, url)
        yield place
        place.end()


@pytest.fixture(scope="module")
def simulated_nomad() -> Iterator[World]:
    with nomad_world("simulated", clients=1) as world:
        yield world


@pytest.fixture(scope="module")
def real_nomad() -> Iterator[World]:
    with nomad_world("real", clients=1) as world:
        yield world


@pytest.fixture(
    params=[local_place, fake_place, simulated_place, real_place], ids=["local", "fake", "simulated", "real"]
)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with request.param(request) as opened:
        yield opened


@pytest.fixture(params=[local_place, fake_place], ids=["local", "fake"])
def machine(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A place of one machine, which knows exactly how many runners it has room for."""
    with request.param(request) as opened:
        yield opened


def wait_for(ask: Callable[[], T | None]) -> T:
    """The first answer that is not None; the test's timeout ends a wait for nothing."""
    while (answer := ask()) is None:
        time.sleep(0.02)
    return answer


def order(place: Place, attempt_id: str, token: str) -> StartOrder:
    return StartOrder(attempt_id, token, place.url, "x86_64-linux")


def free(executor: Executor) -> int:
    """Places for a build of this machine's system."""
    return sum(group.free for group in executor.slots() if "x86_64-linux" in group.systems)


def next_end(executor: Executor, attempt_id: str) -> RunnerEnded:
    """Wait until the end of an Attempt is told, which is open until then."""
    (ended,) = wait_for(lambda: ends(executor, attempt_id) or None)
    assert ended.attempt_id == attempt_id
    return ended


def ends(executor: Executor, *open_attempts: str) -> list[RunnerEnded]:
    """Ends that are told now."""
    news = executor.poll(dict.fromkeys(open_attempts, AttemptState.SUBMITTED))
    return [one for one in news if isinstance(one, RunnerEnded)]


def test_it_builds_for_some_system(place: Place) -> None:
    executor = place.open()
    assert executor.name
    systems = {system for group in executor.slots() for system in group.systems}
    assert systems
    assert all(system.endswith("-linux") for system in systems)
    assert any(group.evaluates for group in executor.slots())


def test_it_says_why_it_has_no_place_for_a_system(place: Place) -> None:
    assert "riscv64-linux" in place.open().lacks("riscv64-linux")


def test_a_started_runner_is_alive(place: Place) -> None:
    executor = place.open()
    assert set(executor.alive()) == set()
    assert executor.start(order(place, place.first, SLEEPS))
    executor.start(order(place, place.second, SLEEPS))
    place.wait_ready(place.first)
    assert ends(executor, place.first, place.second) == []
    assert set(executor.alive()) == {place.first, place.second}


def test_a_runner_takes_a_slot_until_its_end(machine: Place) -> None:
    executor = machine.open()
    assert free(executor) == 2
    executor.start(order(machine, machine.first, SLEEPS))
    assert free(executor) == 1
    executor.start(order(machine, machine.second, SLEEPS))
    assert free(executor) == 0
    executor.stop(machine.first, kill=True)
    next_end(executor, machine.first)
    assert free(executor) == 1


def test_a_repeated_start_changes_nothing(place: Place) -> None:
    executor = place.open()
    assert executor.start(order(place, place.first, SLEEPS)) == executor.start(order(place, place.first, SLEEPS))
    assert set(executor.alive()) == {place.first}


def test_an_end_is_told_with_its_exit_code_and_last_words(place: Place) -> None:
    executor = place.open()
    executor.start(order(place, place.first, EXITS))
    end = next_end(executor, place.first)
    assert end.reason is Reason.NODE_LOST
    assert "exit code 3" in end.detail
    assert "the last words" in end.detail
    assert ends(executor) == []
    assert set(executor.alive()) == set()


def test_an_attempt_may_be_started_again_after_its_end_was_told(machine: Place) -> None:
    executor = machine.open()
    for _ in range(2):
        executor.start(order(machine, machine.first, EXITS))
        assert "exit code 3" in next_end(executor, machine.first).detail


def test_a_stopped_runner_ends_in_its_own_way(place: Place) -> None:
    executor = place.open()
    executor.start(order(place, place.first, SLEEPS))
    place.wait_ready(place.first)
    executor.stop(place.first, kill=False)
    assert "exit code 0" in next_end(executor, place.first).detail


def test_a_killed_runner_is_gone_and_was_not_out_of_memory(place: Place) -> None:
    executor = place.open()
    executor.start(order(place, place.first, SLEEPS))
    executor.start(order(place, place.second, SLEEPS))
    executor.stop(place.first, kill=True)
    assert next_end(executor, place.first).reason is not Reason.OOM
    assert set(executor.alive()) == {place.second}


def test_stopping_an_unknown_attempt_is_no_error(place: Place) -> None:
    executor = place.open()
    executor.stop(place.first, kill=False)
    executor.stop(place.first, kill=True)
    assert ends(executor) == []


def test_the_next_server_finds_the_runners_of_the_last_one(place: Place) -> None:
    first = place.open()
    reference = first.start(order(place, place.first, SLEEPS))
    first.close()
    second = place.open()
    assert set(second.alive()) == {place.first}
    assert second.start(order(place, place.first, SLEEPS)) == reference
    second.stop(place.first, kill=True)
    next_end(second, place.first)
    assert ends(second) == []


@pytest.mark.parametrize("attempt_id", ["../escape", "", "a/b", "a\0b"])
def test_an_attempt_that_is_no_name_is_refused(place: Place, attempt_id: str) -> None:
    with pytest.raises(ExecutorError):
        place.open().start(order(place, attempt_id, SLEEPS))


def test_the_token_is_not_in_the_orders_text() -> None:
    assert "a-secret" not in repr(StartOrder(str(uuid.uuid4()), "a-secret", "http://127.0.0.1:1"))
