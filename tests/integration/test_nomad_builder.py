"""A parameterized job on Nomad: what is wrong with one, why it waits, and logs that were rotated."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from pydantic import SecretStr

from albatros.errors import ExecutorError
from albatros.executors.builder_base import LogPlace, Phase, Stream
from albatros.executors.nomad_builder import META_KEYS, NomadBuilder
from albatros.settings import NomadSettings
from tests.contract.test_builders import attempt_id, meta, until
from tests.services.nomad import NomadServer, start_dev
from tests.support.nomad_jobs import JOB_ID, builder_job, nomad_of, register
from tests.support.nomad_worlds import KINDS, nomad_world
from tests.support.server_process import eventually
from tests.tools import ROOT, require


@pytest.fixture(params=KINDS)
def nomad(request: pytest.FixtureRequest) -> Iterator[NomadServer]:
    with nomad_of(request) as found:
        yield found


@contextmanager
def builder_of(nomad: NomadServer, job_id: str = JOB_ID, token: str = "") -> Iterator[NomadBuilder]:
    settings = NomadSettings(addresses=(nomad.url,), token=SecretStr(token), without_acl=not token)
    builder = NomadBuilder(settings, job_id)
    yield builder
    builder.close()


def test_a_job_that_is_not_there_is_named(nomad: NomadServer) -> None:
    wrong = r"'nowhere' of .* is not in Nomad's namespace 'default'"
    with builder_of(nomad, "nowhere") as builder, pytest.raises(ExecutorError, match=wrong):
        builder.dispatch(attempt_id(), meta(""))


def test_a_nomad_where_everybody_may_everything_is_refused(nomad: NomadServer) -> None:
    builder = NomadBuilder(NomadSettings(addresses=(nomad.url,)), JOB_ID)
    with pytest.raises(ExecutorError, match="ACLs off"):
        builder.dispatch(attempt_id(), meta(""))
    builder.close()


JOB: Any = builder_job()["Job"]
PARAMETERS = {"Payload": "forbidden", "MetaRequired": [], "MetaOptional": META_KEYS}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"ParameterizedJob": None}, "no `parameterized` block"),
        ({"ParameterizedJob": {"MetaRequired": ["REPO_URL", "COMMIT", "BRANCH"]}}, "not take the meta key FLAVOR"),
        ({"ParameterizedJob": {**PARAMETERS, "MetaRequired": ["KEY"]}}, "requires the meta key KEY"),
        ({"ParameterizedJob": {**PARAMETERS, "Payload": "required"}}, "requires a payload"),
        ({"TaskGroups": [{**JOB["TaskGroups"][0], "Name": "other"}]}, "no task 'executor' in a group 'runner'"),
    ],
)
def test_a_job_that_cannot_be_dispatched_is_named(nomad: NomadServer, changes: dict[str, object], problem: str) -> None:
    name = f"unfit-{attempt_id()}"
    register(nomad, ID=name, Name=name, **changes)
    with builder_of(nomad, name) as builder:
        with pytest.raises(ExecutorError, match=problem):
            builder.check()
        with pytest.raises(ExecutorError, match=problem):
            builder.dispatch(attempt_id(), meta(""))


def test_one_without_a_place_says_why(nomad: NomadServer) -> None:
    constraint = {"LTarget": "${meta.nix_system}", "RTarget": "riscv64-linux", "Operand": "="}
    register(nomad, ID="elsewhere", Name="elsewhere", Constraints=[constraint])
    with builder_of(nomad, "elsewhere") as builder:
        child = builder.dispatch(attempt_id(), meta(""))
        state = builder.look(child)
        while state.detail == "Nomad has not looked for a place yet":
            state = builder.look(child)
        assert (state.phase, state.detail) == (Phase.WAITING, "0 of 1 nodes have nix_system=riscv64-linux")
        assert state.placement["waits"] == state.detail
        builder.stop(child)
        assert until(builder, child, Phase.ENDED).detail == "it was stopped in Nomad before it ran"


@pytest.mark.parametrize("nomad", ["real"], indirect=True)
def test_a_rotated_log_has_a_hole_that_is_told_and_no_repetition(nomad: NomadServer) -> None:
    """Three MB through two files of one: the first is gone before it is read."""
    register(nomad)
    with builder_of(nomad) as builder:
        state = until(builder, builder.dispatch(attempt_id(), meta("long")), Phase.ENDED)
        place, data, lost = LogPlace(), b"", 0
        while (read := builder.read_log(state.allocation, Stream.STDOUT, place, 100_000)).data:
            data += read.data
            lost += read.lost
            place = LogPlace(read.place.file, read.place.offset + len(read.data))
    lines = data.decode().splitlines()
    assert lines[-1] == "done"
    numbers = [int(line.split()[1]) for line in lines[1:-1]]
    assert numbers == list(range(numbers[0], 40_001))
    assert lost == 1
    assert place.file >= 2


POLICY = """
namespace "ci" {
  capabilities = ["list-jobs", "read-job", "dispatch-job", "deregister-job", "read-logs"]
}
"""


def test_a_token_with_no_more_than_the_documented_rights_is_enough() -> None:
    require("nomad")
    page = (ROOT / "docs" / "how-to" / "bring-your-own-builder.md").read_text()
    assert POLICY.strip() in page
    with start_dev(acl=True) as nomad:
        register(nomad)
        nomad.call("POST", "/v1/acl/policy/albatros", {"Name": "albatros", "Rules": POLICY.replace("ci", "default", 1)})
        _, made = nomad.call("POST", "/v1/acl/token", {"Name": "a", "Type": "client", "Policies": ["albatros"]})
        with builder_of(nomad, token=json.loads(made)["SecretID"]) as builder:
            child = builder.dispatch(attempt_id(), meta("sleeps"))
            state = until(builder, child, Phase.RUNNING)
            read = partial(builder.read_log, state.allocation, Stream.STDOUT, LogPlace(), 1000)
            while not read().data:
                continue
            assert child in builder.running()
            builder.stop(child)
            until(builder, child, Phase.ENDED)


@pytest.mark.parametrize("kind", KINDS)
def test_one_whose_node_is_lost_is_followed_to_where_nomad_started_it_again(kind: str) -> None:
    """It may run twice: Nomad replaces what it lost whatever `reschedule` says, and the task of the node goes on."""
    with nomad_world(kind, clients=2) as world:
        register(NomadServer(world.url, world.token, {}))
        with builder_of(NomadServer(world.url, "", {})) as builder:
            child = builder.dispatch(attempt_id(), meta("sleeps"))
            first = until(builder, child, Phase.RUNNING)
            world.lose(first.host)
            eventually(
                lambda: builder.look(child).host != first.host and builder.look(child).phase is Phase.RUNNING,
                lambda: str(builder.look(child)),
            )
            assert builder.look(child).allocation != first.allocation
            builder.stop(child)
