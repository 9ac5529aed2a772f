"""What real Nomads were recorded saying, said again: by the simulated one, and by a real one where there is one."""

import http.client
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.services.nomad import start_dev
from tests.support.nomad_exchanges import FIXTURES, PATIENCE, Exchange, Talk, recorded, shape
from tests.support.nomad_scenarios import ONE_NODE, TWO_NODES, acls
from tests.support.nomad_sim import simulated_nomad
from tests.support.nomad_sim_tasks import Ended, Exits
from tests.support.nomad_worlds import KINDS, RealWorld, SimulatedWorld, nomad_world
from tests.tools import missing

_OF_A_NODE = frozenset({"Name", "ComputedClass", "Events", "HostNetworks", "LastAllocUpdateIndex", "Meta"})
_STREAM = "event-stream"
_SMALL_ROOT = ("/bin/sh", "/usr/bin/tail", "/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6")
EVERY = (*ONE_NODE, *TWO_NODES, acls)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=EVERY, ids=lambda scenario: scenario.__name__)
def talk(request: pytest.FixtureRequest, kind: str) -> Iterator[Talk]:
    """A talk in which one scenario took place."""
    scenario: Callable[[Talk], None] = request.param
    world: RealWorld | SimulatedWorld
    with nomad_world(kind, clients=2 if scenario in TWO_NODES else 1, acl=scenario is acls) as world:
        talk = Talk(world)
        scenario(talk)
        yield talk


def test_a_nomad_says_what_was_recorded(talk: Talk) -> None:
    wrong = [line for name, exchange in talk.kept.items() for line in _differences(name, recorded(name), exchange)]
    assert wrong == []


def _differences(name: str, before: Exchange, now: Exchange) -> list[str]:
    return _compare(name, _seen(name, before), _seen(name, now))


def _seen(name: str, exchange: Exchange) -> object:
    """What is compared: all, but for lists that hold what else was on the Nomad of the recording."""
    response = dict(exchange.response)
    if name == "jobs-prefix":
        response["body"] = [job for job in response["body"] if job["ID"] == "alb-ok"]
    if name == "nodes":
        response["body"] = [{key: value for key, value in node.items() if key != "Name"} for node in response["body"]]
    if name in ("node", "node-drained"):
        response["body"] = {key: value for key, value in response["body"].items() if key not in _OF_A_NODE}
    return shape(response)


def _compare(where: str, before: object, now: object) -> list[str]:
    """Each place in which two documents differ, as a line."""
    if isinstance(before, dict) and isinstance(now, dict):
        lines = [f"{where}: {key} is missing" for key in before.keys() - now.keys()]
        lines += [f"{where}: {key} is too much" for key in now.keys() - before.keys()]
        return lines + [
            line for key in before.keys() & now.keys() for line in _compare(f"{where}.{key}", before[key], now[key])
        ]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [
            line for at, pair in enumerate(zip(before, now, strict=True)) for line in _compare(f"{where}[{at}]", *pair)
        ]
    return [] if before == now else [f"{where}: {before!r} was recorded, {now!r} is said"]


@pytest.fixture
def exec_world(kind: str) -> Iterator[RealWorld | SimulatedWorld]:
    """A Nomad with the exec driver, which needs root; its tasks see a root directory of four files."""
    if kind == "simulated":
        killed = Exits(0.1, Ended(137, oom=True))
        with (
            tempfile.TemporaryDirectory() as home,
            simulated_nomad(Path(home), nodes=0, outcome=lambda _: killed) as sim,
        ):
            sim.add_node("client-1", drivers=frozenset({"raw_exec", "exec"}))
            yield SimulatedWorld(sim)
        return
    if reason := missing("nomad"):
        pytest.skip(reason)
    if os.geteuid() != 0:
        pytest.skip("needs root, for Nomad's exec driver")
    with start_dev(chroot_env={str(Path(path).resolve()): path for path in _SMALL_ROOT}) as nomad:
        yield RealWorld(nomad)


def test_the_kernel_ends_a_task_that_takes_too_much_memory(exec_world: RealWorld | SimulatedWorld) -> None:
    talk = Talk(exec_world)
    talk.repeat("register-oom")
    talk.until_state("alb-oom", "failed")
    talk.repeat("allocations-oom-exec")
    wrong = [line for name, exchange in talk.kept.items() for line in _differences(name, recorded(name), exchange)]
    assert wrong == []


def test_the_event_stream_tells_what_was_recorded(kind: str) -> None:
    """Topics, types and states in their order, and the fields of each."""
    with nomad_world(kind, clients=1) as world:
        talk = Talk(world)
        lines = _Stream(world.url, "topic=Job&topic=Evaluation&topic=Allocation")
        talk.repeat("register-fail")
        talk.until_state("alb-fail", "failed")
        talk.repeat("register-sleep")
        talk.until_ready("alb-stop")
        talk.repeat("deregister")
        talk.until_state("alb-stop", "complete")
        told = lines.until(lambda events: ("Allocation", "AllocationUpdated", "complete", "stop") in map(_says, events))
    before = [event for line in json.loads((FIXTURES / f"{_STREAM}.json").read_text()) for event in _events(line)]
    assert _without_news_on_the_way(told) == _without_news_on_the_way(before)
    for topic in ("Job", "Evaluation", "Allocation"):
        shown, recorded_once = _fields(told, topic), _fields(before, topic)
        assert shown == recorded_once


def test_the_stream_starts_at_the_oldest_event_it_has_and_repeats_the_last_one(kind: str) -> None:
    with nomad_world(kind, clients=1) as world:
        talk = Talk(world)
        talk.repeat("register-fail")
        talk.until_state("alb-fail", "failed")
        talk.until(lambda: bool(talk.say("GET", "/v1/job/alb-fail").response["body"]["Status"] == "dead"))
        old = _Stream(world.url, "topic=Job&index=1").until(lambda events: len(events) == 3)
        assert [event["Type"] for event in old] == ["JobRegistered", "PlanResult", "AllocationUpdated"]
        newest = _Stream(world.url, "topic=*&index=1000000").until(bool)
        assert newest[0]["Type"] == "AllocationUpdated"


class _Stream:
    """Reads an event stream in a thread."""

    def __init__(self, url: str, query: str) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE)
        self._connection.request("GET", f"/v1/event/stream?{query}")
        self._answer = self._connection.getresponse()
        assert self._answer.readline() == b"{}\n"
        self._events: list[dict[str, object]] = []
        self._came = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def until(self, check: Callable[[list[dict[str, object]]], bool]) -> list[dict[str, object]]:
        """The events once they are as wanted; the stream is closed."""
        with self._came:
            assert self._came.wait_for(lambda: bool(self._events) and check(self._events), PATIENCE)
            return list(self._events)

    def _read(self) -> None:
        with self._answer:
            for line in self._answer:
                with self._came:
                    self._events += _events(json.loads(line))
                    self._came.notify()
        self._connection.close()


def _events(line: dict[str, list[dict[str, object]]]) -> list[dict[str, object]]:
    return line.get("Events", [])


def _payload(event: dict[str, object]) -> dict[str, object]:
    payload = event["Payload"]
    assert isinstance(payload, dict)
    (row,) = payload.values()
    assert isinstance(row, dict)
    return row


def _says(event: dict[str, object]) -> tuple[object, ...]:
    row = _payload(event)
    if event["Topic"] == "Allocation":
        return (event["Topic"], event["Type"], row["ClientStatus"], row["DesiredStatus"])
    return (event["Topic"], event["Type"], row["Status"])


def _without_news_on_the_way(events: list[dict[str, object]]) -> list[tuple[object, ...]]:
    """How often a client tells of a task that starts or stops is a matter of its batches of 200 ms."""
    told: list[tuple[object, ...]] = []
    for event in events:
        says = _says(event)
        if says[1:3] not in (("AllocationUpdated", "pending"), ("AllocationUpdated", "running")):
            told.append(says)
    return told


def _fields(events: list[dict[str, object]], topic: str) -> set[str]:
    return {key for event in events if event["Topic"] == topic for key in _payload(event)}


def test_every_recording_is_repeated_by_a_scenario() -> None:
    """A fixture that nothing repeats pins nothing."""
    sources = [Path(__file__), FIXTURES.parents[1] / "support" / "nomad_scenarios.py"]
    text = "".join(path.read_text() for path in sources)
    patterned = {
        f"{what}-{who}" for what in ("jobs", "register", "token-self") for who in ("management", "anonymous", "unknown")
    }
    assert [
        path.stem for path in FIXTURES.glob("*.json") if f'"{path.stem}"' not in text and path.stem not in patterned
    ] == []
