"""The line on a real Nomad: pushes are evaluated, built and run in its jobs, and the commits turn green."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import pytest

from tests.services.nomad import TLS_HOSTS, NomadServer, start_dev
from tests.support.flakes import hello
from tests.support.line import Line, list_of, make_line
from tests.support.pulls import elf_machine
from tests.support.scripts import MACHINES, image_files, push_script, start_with_scripts
from tests.support.tls import Authority
from tests.tools import needs

pytestmark = needs("nix", "git", "nomad")
META = {"nix_system": "x86_64-linux,i686-linux", "nix_sandbox": "true"}


@dataclass(frozen=True)
class Place:
    """A Nomad with ACLs, and what `[nomad]` says of the way to it."""

    nomad: NomadServer
    settings: Mapping[str, str]


@pytest.fixture(scope="module", params=["http", "mtls"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if request.param == "http":
        with start_dev(acl=True, meta=META) as nomad:
            yield Place(nomad, {})
        return
    authority = Authority(tmp_path_factory.mktemp("nomad-acceptance"))
    ours = authority.issue("albatros")
    settings = {"ca_file": str(ours.ca), "cert_file": str(ours.certificate), "key_file": str(ours.key)}
    with start_dev(acl=True, meta=META, tls=authority.issue("nomad", TLS_HOSTS)) as nomad:
        yield Place(nomad, settings)


@pytest.fixture
def line(place: Place) -> Iterator[Line]:
    nomad = {"addresses": [place.nomad.url], "token": place.nomad.token, "cpu_mhz": 100, "memory_mb": 512}
    changes = {"executor": {"kind": "nomad", "nix_store": "private"}, "nomad": {**nomad, **place.settings}}
    with make_line(None, changes) as made:
        yield made


def test_a_push_is_built_on_nomad(line: Line, place: Place) -> None:
    line.server.start()
    repo = line.repo("on-nomad")
    commit = repo.push_files(hello("said by a node"))
    line.wait_green(repo, commit)
    jobs = list_of(line.build(commit)["jobs"])
    assert {job["state"] for job in jobs} == {"succeeded"}
    assert line.server.stop() == 0
    assert place.nomad.call("GET", "/v1/vars?prefix=nomad/jobs/alb-") == (200, "[]")


@needs("skopeo")
def test_a_script_publishes_from_a_job_of_nomad(line: Line, place: Place) -> None:
    start_with_scripts(line)
    repo = line.repo("scripted")
    text = """#!/bin/sh -eu
env | grep NOMAD_ && exit 9
alba container push -t "scripted:$BRANCH" images static
cat "$ALBATROS_JOB"; echo
"""
    commit = push_script(repo, text, image_files("by a script on a node"))
    line.wait_green(repo, commit)
    build = line.build(commit)
    assert '"token": "***"' in line.log_of(build, ".albatros")
    (job,) = (job for job in list_of(build["jobs"]) if job["name"] == ".albatros")
    (attempt,) = list_of(line.server.get(f"/api/v1/jobs/{job['id']}")["attempts"])
    assert cast("Mapping[str, object]", attempt["placement"])["job"] == f"alb-{attempt['id']}"
    (remote,) = line.remotes("scripted")
    assert remote.tags() == {"main"}
    for machine in MACHINES:
        assert elf_machine(remote.pull("main", machine)) == machine.elf
    assert line.server.stop() == 0
    assert place.nomad.call("GET", "/v1/vars?prefix=nomad/jobs/alb-") == (200, "[]")
