"""A push that a builder on Nomad builds, simulated and real: live logs, kills in the middle, an exit code, a cancel."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from tests.services.nomad import NomadServer
from tests.support.bare_repo import BareRepo
from tests.support.line import Line, list_of, make_line
from tests.support.nomad_jobs import JOB_ID, nomad_of, register
from tests.support.nomad_worlds import KINDS
from tests.support.server_process import eventually
from tests.tools import ROOT, needs

pytestmark = needs("git")
DYING = ("-m", "tests.support.crash_builder")
SLOW_LINES = 40


@pytest.fixture(params=KINDS)
def nomad(request: pytest.FixtureRequest) -> Iterator[NomadServer]:
    with nomad_of(request) as found:
        yield found


@pytest.fixture
def line(nomad: NomadServer) -> Iterator[Line]:
    """A server whose repos are all built by the job on Nomad."""
    register(nomad)
    house = {"name": "house", "job": JOB_ID, "forge": "home", "repos": ["alba/*"]}
    with make_line(None, {"builders": [house], "nomad": {"addresses": [nomad.url], "without_acl": True}}) as own:
        yield own


def children(nomad: NomadServer, line: Line) -> list[Mapping[str, object]]:
    """What was dispatched for the Attempts of this server."""
    attempts = [str(row[0]) for row in line.sql("SELECT id FROM attempts")]
    _, text = nomad.call("GET", f"/v1/jobs?prefix={JOB_ID}/dispatch-alb-")
    stubs = cast("list[Mapping[str, object]]", json.loads(text))
    return [stub for stub in stubs if any(attempt in str(stub["ID"]) for attempt in attempts)]


def expected(repo: BareRepo, commit: str, *, lines: int) -> tuple[list[str], list[str]]:
    """What the job says on stdout and on stderr."""
    told = [f"url file://{repo.bare}", f"commit {commit}", "branch main"]
    return [*told, *(f"line {n}" for n in range(lines)), "done"], ["a warning", *(f"warning {n}" for n in range(lines))]


def token_of(line: Line) -> str:
    """A token that may cancel, made as an operator makes it."""
    command = [sys.executable, "-m", "albatros", "token", "create", "a-test", "--scope", "write", "--json"]
    done = subprocess.run(
        [*command, "--config", str(line.paths.config)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return str(json.loads(done.stdout)["token"])


def is_said(line: Line, commit: str, text: str) -> bool:
    """Whether the log has this by now."""
    return text in line.log_of(line.build(commit), "house")


def streams_of(log: str) -> tuple[list[str], list[str]]:
    """The lines of a log by where they came from."""
    said = log.splitlines()
    return [one for one in said if "warning" not in one], [one for one in said if "warning" in one]


def test_a_push_is_built_on_nomad(line: Line, nomad: NomadServer) -> None:
    line.server.start()
    repo = line.repo("plain")
    commit = repo.push_files({"README": "hello"})
    line.wait_green(repo, commit)
    build = line.build(commit)
    assert [(job["kind"], job["name"], job["state"]) for job in list_of(build["jobs"])] == [
        ("builder", "house", "succeeded")
    ]
    assert streams_of(line.log_of(build, "house")) == expected(repo, commit, lines=0)
    assert [stub["Status"] for stub in children(nomad, line)] == ["dead"]
    assert line.server.stop() == 0


def test_killed_in_the_middle_again_and_again_its_log_is_whole(line: Line, nomad: NomadServer) -> None:
    line.server.start()
    repo = line.repo("slow")
    commit = repo.push_files({"README": "slow"})
    for seen in ("line 5", "line 15", "line 25"):
        eventually(partial(is_said, line, commit, seen), lambda: line.server.log)
        line.server.kill()
        line.server.start()
    build = line.wait_build(commit, "succeeded")
    assert streams_of(line.log_of(build, "house")) == expected(repo, commit, lines=SLOW_LINES)
    assert len(children(nomad, line)) == 1
    assert len(line.sql("SELECT 1 FROM attempts")) == 1


def test_killed_before_it_knows_what_it_dispatched_it_finds_the_same_child(line: Line, nomad: NomadServer) -> None:
    line.server.start(DYING)
    repo = line.repo("ok")
    commit = repo.push_files({"README": "ok"})
    assert line.server.wait() == -signal.SIGKILL
    assert line.sql("SELECT state FROM attempts") == [("submitting",)]
    assert len(children(nomad, line)) == 1
    line.server.start()
    line.wait_build(commit, "succeeded")
    assert len(children(nomad, line)) == 1


def test_an_exit_code_is_red_on_the_forge(line: Line) -> None:
    line.server.start()
    repo = line.repo("fails")
    commit = repo.push_files({"README": "fails"})
    build = line.wait_build(commit, "failed")
    assert build["reason"] == "build_failed"
    assert str(build["message"]).endswith("exit code 7")

    def told() -> bool:
        return {(status.context, status.state) for status in repo.statuses(commit)} >= {
            ("albatros", "failure"),
            ("albatros/house", "failure"),
        }

    eventually(told, lambda: f"{repo.statuses(commit)}\n{line.server.log}")


def test_cancelled_it_ends_on_nomad(line: Line, nomad: NomadServer) -> None:
    line.server.start()
    repo = line.repo("sleeps")
    commit = repo.push_files({"README": "sleeps"})
    eventually(partial(is_said, line, commit, "branch main"), lambda: line.server.log)
    build = line.wait_build(commit, "running")
    status, answer = line.server.call("POST", f"/api/v1/builds/{build['id']}/cancel", token=token_of(line))
    assert status == 200, answer

    def ended() -> bool:
        (child,) = children(nomad, line)
        return child["Status"] == "dead" and child["Stop"] is True

    eventually(ended, lambda: line.server.log)
    eventually(lambda: line.sql("SELECT 1 FROM attempts WHERE state = 'cancelled'"), lambda: line.server.log)


MAKEFILE = "ci:\n\t@echo made $(FLAVOR) of $$(cat README)\n"


@pytest.mark.parametrize("nomad", ["real"], indirect=True)
def test_the_example_job_builds_a_pushed_commit(line: Line, nomad: NomadServer, tmp_path: Path) -> None:
    """With raw_exec, since exec takes minutes to copy its chroot."""
    example = (ROOT / "deploy" / "nomad" / "builder.nomad.hcl").read_text()
    job = tmp_path / "builder.nomad.hcl"
    for there, here in (('"exec"', '"raw_exec"'), ('namespace = "ci"', ""), ('node_pool = "ci"', "")):
        example = example.replace(there, here)
    job.write_text(example)
    for command in ("validate", "run"):
        argv = ["nomad", "job", command, f"-address={nomad.url}", str(job)]
        subprocess.run(argv, check=True, capture_output=True, text=True)
    line.write_config({"builders": [{"name": "house", "job": "builder", "forge": "home", "repos": ["alba/*"]}]})
    line.server.start()
    commit = line.repo("example").push_files({"README": "the readme", "Makefile": MAKEFILE})
    build = line.wait_build(commit, "succeeded")
    assert f"building main ({commit})\nmade of the readme\n" in line.log_of(build, "house")
