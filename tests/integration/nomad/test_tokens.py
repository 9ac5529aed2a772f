"""Tokens in Nomad's Variables: whoever wrote them, those of closed Attempts go."""

import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from albatros.domain.states import AttemptState
from albatros.executors import nomad_tokens
from albatros.executors.base import StartOrder
from albatros.executors.nomad_api import NomadApi
from albatros.executors.nomad_tokens import Tokens
from albatros.settings import NomadSettings
from tests.support.nomad_exchanges import PATIENCE, Talk
from tests.support.nomad_place import open_nomad
from tests.support.nomad_sim import MANAGEMENT, simulated_nomad
from tests.support.nomad_worlds import KINDS, SECRET, nomad_world

ZIPAPP = b"nobody runs this"


@pytest.fixture(params=KINDS)
def talk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Talk]:
    """A Nomad, in which tokens are searched all the time."""
    monkeypatch.setattr(nomad_tokens, "SEARCH_SECONDS", 0.0)
    with nomad_world(request.param, clients=1) as world:
        yield Talk(world)


def _order() -> StartOrder:
    return StartOrder(str(uuid.uuid4()), "a-token", "http://127.0.0.1:9", "x86_64-linux")


def _paths(talk: Talk) -> set[str]:
    return {row["Path"] for row in talk.say("GET", "/v1/vars?prefix=nomad/jobs/").response["body"]}


def test_a_server_takes_away_what_one_that_died_left_and_nothing_else(talk: Talk) -> None:
    closed, opened, foreign = (_order() for _ in range(3))
    for order, installation in ((closed, "ours"), (opened, "ours"), (foreign, "theirs")):
        dead = open_nomad(talk.world.url, "", ZIPAPP, installation)
        dead.start(order)
        dead.close()
    path = {order.attempt_id: f"nomad/jobs/alb-{order.attempt_id}" for order in (closed, opened, foreign)}
    assert _paths(talk) == set(path.values())
    executor = open_nomad(talk.world.url, "", ZIPAPP, "ours")
    deadline = time.monotonic() + PATIENCE
    while path[closed.attempt_id] in _paths(talk):
        assert time.monotonic() < deadline
        executor.poll({opened.attempt_id: AttemptState.SUBMITTED})
    for _ in range(20):
        executor.poll({opened.attempt_id: AttemptState.SUBMITTED})
    executor.close()
    assert _paths(talk) == {path[opened.attempt_id], path[foreign.attempt_id]}


def test_a_search_that_is_refused_is_told_once_until_that_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nomad_tokens, "SEARCH_SECONDS", 0.0)
    # One after the other: when a search has asked, the one before it is over.
    monkeypatch.setattr(nomad_tokens, "THREADS", 1)
    asked = threading.Semaphore(0)
    with simulated_nomad(tmp_path) as sim:
        nomad = NomadApi(NomadSettings(addresses=(sim.url,)))
        ask = nomad.variables

        def variables(prefix: str) -> Sequence[str]:
            try:
                return list(ask(prefix))
            finally:
                asked.release()

        monkeypatch.setattr(nomad, "variables", variables)
        tokens = Tokens(nomad, "ours", lambda: None)
        for acl in (True, True, True, False, True):
            sim.tokens = {SECRET: MANAGEMENT} if acl else {}
            tokens.tidy([])
            assert asked.acquire(timeout=PATIENCE)
        tokens.close()
        nomad.close()
    assert [record.levelname for record in caplog.records if record.name == nomad_tokens.__name__] == ["WARNING"] * 2


def test_a_token_of_others_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nomad_tokens, "SEARCH_SECONDS", 0.0)
    monkeypatch.setattr(nomad_tokens, "THREADS", 1)
    with simulated_nomad(tmp_path) as sim:
        dead = open_nomad(sim.url, "", ZIPAPP, "theirs")
        dead.start(_order())
        dead.close()
        nomad = NomadApi(NomadSettings(addresses=(sim.url,)))
        read, searched = nomad.variable, threading.Semaphore(0)
        reads: list[str] = []

        def variable(path: str) -> dict[str, object]:
            reads.append(path)
            return dict(read(path))

        ask = nomad.variables

        def variables(prefix: str) -> Sequence[str]:
            searched.release()
            return list(ask(prefix))

        monkeypatch.setattr(nomad, "variable", variable)
        monkeypatch.setattr(nomad, "variables", variables)
        tokens = Tokens(nomad, "ours", lambda: None)
        for _ in range(5):
            tokens.tidy([])
            assert searched.acquire(timeout=PATIENCE)
        tokens.close()
        nomad.close()
    assert len(reads) == 1
