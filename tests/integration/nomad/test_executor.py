"""The Nomad executor where Nomad is slow, refuses, is away or has no room: on the simulated one, which does as told."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from albatros.domain.states import AttemptState, Reason
from albatros.errors import ConfigError, ExecutorUnavailableError, NoCapacityError
from albatros.executors import nomad
from albatros.executors.base import RunnerEnded, RunnerPlaced, RunnerUnseen, StartOrder
from albatros.executors.nomad import FIRST_WAITING, NomadExecutor
from albatros.executors.nomad_api import NomadApi
from albatros.executors.nomad_job import RunnerSource, variable_path
from albatros.settings import NomadSettings
from tests.services.process import free_port
from tests.support.clock import Clock
from tests.support.nomad_place import open_nomad, serve_zipapp, wait_until
from tests.support.nomad_sim import NomadSim, simulated_nomad
from tests.support.zipapps import OBEDIENT, zipapp

PROGRAM = zipapp(OBEDIENT)
SLEEPS, EXITS = "sleep", "exit 3"


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[NomadSim]:
    with simulated_nomad(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with serve_zipapp(PROGRAM) as url:
        yield url


@pytest.fixture
def executor(sim: NomadSim) -> Iterator[NomadExecutor]:
    opened = open_nomad(sim.url, "", PROGRAM)
    yield opened
    opened.close()


def order(url: str, token: str = SLEEPS, system: str = "x86_64-linux", *, trusted: bool = True) -> StartOrder:
    return StartOrder(str(uuid.uuid4()), token, url, system, trusted)


def free(executor: NomadExecutor, system: str = "x86_64-linux") -> int:
    return next(group.free for group in executor.slots() if system in group.systems)


def told(executor: NomadExecutor, *attempt_ids: str) -> list[object]:
    return [*executor.poll(dict.fromkeys(attempt_ids, AttemptState.SUBMITTED))]


def first(executor: NomadExecutor, attempt_id: str, wanted: Callable[[object], bool]) -> object:
    """Wait until something like this is told of an Attempt."""
    return wait_until(lambda: next(filter(wanted, told(executor, attempt_id)), None))


def test_a_system_that_no_node_has_is_not_offered(executor: NomadExecutor) -> None:
    systems = {system for group in executor.slots() for system in group.systems}
    assert systems == {"x86_64-linux"}
    assert executor.lacks("aarch64-linux") == "0 of 1 nodes have nix_system=aarch64-linux"


def test_a_strangers_build_is_refused_where_no_node_has_a_sandbox(executor: NomadExecutor) -> None:
    with pytest.raises(NoCapacityError, match="0 of 1 nodes have nix_sandbox=true"):
        executor.start(order("http://127.0.0.1:1", trusted=False))


def test_what_has_no_room_says_why_and_stops_the_sending(sim: NomadSim, server_url: str) -> None:
    executor = open_nomad(sim.url, "", PROGRAM, memory_mb=1_000_000)
    big = order(server_url)
    assert free(executor) == FIRST_WAITING
    executor.start(big)
    placed = first(executor, big.attempt_id, lambda news: isinstance(news, RunnerPlaced) and bool(news.facts["waits"]))
    assert isinstance(placed, RunnerPlaced)
    assert placed.facts["waits"] == "1 of 1 nodes have no memory left"
    assert placed.waits
    assert free(executor) == 0, "nothing more is sent while Nomad has no place for what it has"
    assert free_evaluations(executor) == FIRST_WAITING, "another kind of work is not held up"
    executor.stop(big.attempt_id, kill=False)
    ended = first(executor, big.attempt_id, lambda news: isinstance(news, RunnerEnded))
    assert ended == RunnerEnded(big.attempt_id, Reason.PREEMPTED, "its job was stopped in Nomad before it had a place")
    assert free(executor) == FIRST_WAITING
    executor.close()


def free_evaluations(executor: NomadExecutor) -> int:
    return next(group.free for group in executor.slots() if group.evaluates)


def test_no_more_waits_in_nomad_than_is_allowed(executor: NomadExecutor, sim: NomadSim, server_url: str) -> None:
    sim.disconnect("client-1")
    for number in range(FIRST_WAITING):
        assert free(executor) == FIRST_WAITING - number
        executor.start(order(server_url))
    assert free(executor) == 0


def test_a_nomad_that_has_too_much_to_do_is_given_a_rest(
    executor: NomadExecutor, sim: NomadSim, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(nomad, "time", clock)
    wanted = order(server_url)
    sim.overloaded = True
    with pytest.raises(ExecutorUnavailableError, match="429"):
        executor.start(wanted)
    calls = writes(sim)
    with pytest.raises(ExecutorUnavailableError, match="given a rest"):
        executor.start(wanted)
    assert writes(sim) == calls, "it is not asked again at once"
    sim.overloaded = False
    clock.sleep(nomad.FIRST_PAUSE)
    assert executor.start(wanted) == f"alb-{wanted.attempt_id}"


def writes(sim: NomadSim) -> list[str]:
    """The calls that change something: it is looked at all the time."""
    return [call for call in sim.calls if not call.startswith("GET ")]


def test_a_server_without_a_leader_is_asked_again(executor: NomadExecutor, sim: NomadSim, server_url: str) -> None:
    sim.leaderless = True
    with pytest.raises(ExecutorUnavailableError, match="No cluster leader"):
        executor.start(order(server_url))


def test_the_address_that_answers_is_taken(sim: NomadSim, server_url: str) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    executor = open_nomad(sim.url, "", PROGRAM, addresses=[nowhere, sim.url])
    wanted = order(server_url, EXITS)
    assert executor.start(wanted) == f"alb-{wanted.attempt_id}"
    ended = first(executor, wanted.attempt_id, lambda news: isinstance(news, RunnerEnded))
    assert isinstance(ended, RunnerEnded)
    assert "the last words" in ended.detail
    executor.close()


def test_the_token_goes_when_its_attempt_is_closed(executor: NomadExecutor, sim: NomadSim, server_url: str) -> None:
    wanted = order(server_url)
    executor.start(wanted)
    path = variable_path(wanted.attempt_id)
    assert told(executor, wanted.attempt_id) is not None
    assert variables(sim) == [path]
    executor.poll({})
    wait_until(lambda: variables(sim) == [] or None)


def variables(sim: NomadSim) -> list[str]:
    nomad = NomadApi(NomadSettings(addresses=(sim.url,)))
    try:
        return list(nomad.variables("nomad/jobs/"))
    finally:
        nomad.close()


def test_a_job_that_was_purged_is_told_as_lost(executor: NomadExecutor, sim: NomadSim, server_url: str) -> None:
    wanted = order(server_url)
    executor.start(wanted)
    first(executor, wanted.attempt_id, lambda news: isinstance(news, RunnerPlaced) and not news.waits)
    with sim.state.locked():
        sim.forget(next(job for job in sim.state.jobs.values() if job.id.endswith(wanted.attempt_id)))
    sim.restart_server()
    ended = first(executor, wanted.attempt_id, lambda news: isinstance(news, RunnerEnded))
    assert ended == RunnerEnded(wanted.attempt_id, Reason.NODE_LOST, "Nomad does not have its job any more")


def test_jobs_of_another_installation_are_not_ours(executor: NomadExecutor, sim: NomadSim, server_url: str) -> None:
    ours, theirs = order(server_url), order(server_url)
    other = open_nomad(sim.url, "", PROGRAM, "others")
    other.start(theirs)
    executor.start(ours)
    other.close()
    for installation, expected in (("others", theirs), ("tests", ours)):
        again = open_nomad(sim.url, "", PROGRAM, installation)
        assert set(again.alive()) == {expected.attempt_id}
        again.close()


def test_a_nomad_without_acls_is_refused(sim: NomadSim) -> None:
    with pytest.raises(ConfigError, match=r"nomad\.without_acl = true"):
        NomadExecutor(NomadSettings(addresses=(sim.url,)), RunnerSource("ab" * 32, ""), "us")


def test_one_that_is_away_knows_no_places_and_refuses_nothing() -> None:
    away = NomadExecutor(
        NomadSettings(addresses=(f"http://127.0.0.1:{free_port()}",)), RunnerSource("ab" * 32, ""), "us"
    )
    assert away.slots() == []
    states = dict(zip("abc", (AttemptState.SUBMITTED, AttemptState.SUBMITTING, AttemptState.CLAIMED), strict=True))
    assert away.poll(states) == [RunnerUnseen("a")], "one that was not sent is not there, and one that claimed is well"
    assert away.poll(states) == [], "it need not be said again at once"
    away.close()


def test_what_should_be_known_is_said() -> None:
    settings = NomadSettings(addresses=("http://nomad.example.org:4646",), without_acl=True)
    executor = NomadExecutor(settings, RunnerSource("ab" * 32, ""), "us")
    said = "\n".join(executor.warnings())
    executor.close()
    assert "strangers are refused" in said
    assert "nomad.without_acl" in said
    assert "unencrypted to http://nomad.example.org:4646" in said
