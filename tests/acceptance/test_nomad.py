"""The line on a real Nomad: a push is evaluated and built by Nix in jobs of Nomad, and the commit turns green."""

from collections.abc import Iterator

import pytest

from tests.services.nomad import NomadServer, start_dev
from tests.support.flakes import hello
from tests.support.line import Line, list_of, make_line
from tests.tools import needs

pytestmark = needs("nix", "git", "nomad")


@pytest.fixture(scope="module")
def nomad() -> Iterator[NomadServer]:
    meta = {"nix_system": "x86_64-linux,i686-linux", "nix_sandbox": "true"}
    with start_dev(acl=True, meta=meta) as server:
        yield server


@pytest.fixture
def line(nomad: NomadServer) -> Iterator[Line]:
    changes = {
        "executor": {"kind": "nomad", "nix_store": "private"},
        "nomad": {"addresses": [nomad.url], "token": nomad.token, "cpu_mhz": 100, "memory_mb": 512},
    }
    with make_line(None, changes) as made:
        made.server.start()
        yield made


def test_a_push_is_built_on_nomad(line: Line, nomad: NomadServer) -> None:
    repo = line.repo("on-nomad")
    commit = repo.push_files(hello("said by a node"))
    line.wait_green(repo, commit)
    jobs = list_of(line.build(commit)["jobs"])
    assert {job["state"] for job in jobs} == {"succeeded"}
    assert line.server.stop() == 0
    assert nomad.call("GET", "/v1/vars?prefix=nomad/jobs/alb-") == (200, "[]")
