"""A server that is stopped, down or told to cancel loses nothing: what was under way is handed back, ended or found."""

import json
import subprocess
import sys

import pytest

from tests.support.bare_repo import BareRepo
from tests.support.flakes import AMD64, HOST_SYSTEM, derivation, elf, flake, hello, wait_for
from tests.support.line import Line, list_of
from tests.support.server_process import eventually
from tests.tools import ROOT, needs

pytestmark = needs("nix", "git", "skopeo", "docker-registry")
ONE = [AMD64]


def push_waiting(line: Line, name: str) -> tuple[BareRepo, str]:
    """Push a Build that waits for the gate of its name, and wait until it does; its repo and commit."""
    repo = line.repo(name)
    commit = repo.push_files(hello(f"made by {name}", ONE, wait_for(line.paths.gate / name)))
    eventually(lambda: "waiting" in line.log_of(line.build(commit), "packages."), lambda: line.server.log)
    return repo, commit


def check_program(line: Line, name: str) -> None:
    for remote in line.remotes(name):
        assert remote.pull("main", AMD64) == elf(AMD64, f"made by {name}")


def build_attempts(line: Line) -> list[tuple[object, ...]]:
    return line.sql(
        "SELECT attempts.state, attempts.reason FROM attempts JOIN jobs ON jobs.id = job_id "
        "WHERE kind = 'build' ORDER BY attempts.number"
    )


def test_ctrl_c_hands_running_jobs_back_to_the_queue(line: Line) -> None:
    line.server.start()
    repo, commit = push_waiting(line, "handed-back")
    line.wait_statuses(repo, commit, {"albatros": "pending"})
    assert line.server.stop() == 0
    assert build_attempts(line) == [("handed_back", None)]
    assert line.sql("SELECT state FROM jobs WHERE kind = 'build'") == [("queued",)]
    status = repo.status(commit)
    assert status is not None
    assert status.state == "pending"
    line.open_gate("handed-back")
    line.server.start()
    assert "1 open builds go on" in line.server.log
    line.wait_green(repo, commit)
    check_program(line, "handed-back")
    assert build_attempts(line) == [("handed_back", None), ("succeeded", None)]


def test_ctrl_c_waits_for_running_jobs_where_it_is_told_to(line: Line) -> None:
    line.write_config({"executor": {"shutdown": "finish"}})
    line.server.start()
    repo, commit = push_waiting(line, "finished")
    line.server.interrupt()
    eventually(lambda: "stopping" in line.server.log, lambda: line.server.log)
    later = repo.push_files(hello("pushed too late to be built", ONE))
    assert not line.server.has_ended()
    line.open_gate("finished")
    assert line.server.wait() == 0
    assert build_attempts(line) == [("succeeded", None)]
    assert not line.sql("SELECT id FROM attempts WHERE state IN ('submitting', 'submitted', 'claimed')")
    line.server.start()
    line.wait_green(repo, commit)
    line.wait_green(repo, later)
    assert line.remotes("finished")[0].pull(commit, AMD64) == elf(AMD64, "made by finished")


def test_a_push_while_the_server_was_down_is_found_at_its_start(line: Line) -> None:
    line.server.start()
    repo = line.repo("found")
    before = repo.push_files(hello("made by before", ONE))
    line.wait_green(repo, before)
    assert line.server.stop() == 0
    commit = repo.commit(hello("made by found", ONE))
    assert "not told" in repo.push()
    assert repo.status(commit) is None
    line.server.start()
    line.wait_green(repo, commit)
    check_program(line, "found")
    assert line.sql("SELECT count(*) FROM builds") == [(2,)]


@pytest.fixture(scope="module")
def token(shared: Line) -> str:
    """A token that may cancel, made as an operator makes it."""
    command = [sys.executable, "-m", "albatros", "token", "create", "a-test", "--scope", "write", "--json"]
    command += ["--config", str(shared.paths.config)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return str(json.loads(done.stdout)["token"])


def test_a_running_build_can_be_cancelled(shared: Line, token: str) -> None:
    repo, commit = push_waiting(shared, "cancelled")
    build = shared.build(commit)
    refused, _ = shared.server.call("POST", f"/api/v1/builds/{build['id']}/cancel")
    assert refused == 401
    status, answer = shared.server.call("POST", f"/api/v1/builds/{build['id']}/cancel", token=token)
    assert (status, answer["state"]) == (200, "cancelled")
    shown = shared.wait(repo, commit)
    assert shown.state == "error"
    assert "cancelled by a-test" in shown.description
    eventually(lambda: not runs_in(shared, "cancelled"), lambda: shared.server.log)
    ended = shared.build(commit)
    assert {(job["kind"], job["state"]) for job in list_of(ended["jobs"])} == {
        ("evaluation", "succeeded"),
        ("build", "cancelled"),
    }
    assert not shared.remotes("cancelled")[0].has(commit)
    again, _ = shared.server.call("POST", f"/api/v1/builds/{build['id']}/cancel", token=token)
    assert again == 409
    shared.open_gate("cancelled")
    status, rerun = shared.server.call("POST", f"/api/v1/builds/{build['id']}/rerun", token=token)
    assert status == 201
    assert rerun["rerun_of"] == build["id"]
    eventually(lambda: shown_state(repo, commit) == "success", lambda: shared.server.log)
    check_program(shared, "cancelled")


def runs_in(line: Line, name: str) -> bool:
    """Whether an Attempt of a repo is open."""
    query = (
        "SELECT attempts.id FROM attempts JOIN jobs ON jobs.id = job_id JOIN builds ON builds.id = build_id "
        f"JOIN repos ON repos.id = repo_id WHERE repos.name = '{name}' "
        "AND attempts.state IN ('submitting', 'submitted', 'claimed')"
    )
    return bool(line.sql(query))


def shown_state(repo: BareRepo, commit: str) -> str:
    status = repo.status(commit)
    return status.state if status is not None else ""


@pytest.mark.parametrize(
    ("limit", "script", "reason", "says"),
    [
        ("job_seconds", "while :; do echo still here; /usr/bin/sleep 0.2; done", "timeout", "longer than 2 s"),
        ("silence_seconds", "/usr/bin/sleep 100", "silent", "printed nothing for 2 s"),
    ],
)
def test_a_job_that_takes_too_long_is_ended(shared: Line, limit: str, script: str, reason: str, says: str) -> None:
    repo = shared.repo(reason)
    attribute = f"packages.{HOST_SYSTEM}.endless"
    files = {"flake.nix": flake({attribute: derivation("endless", script)})}
    commit = repo.push_files({**files, ".albatros.toml": f"[limits]\n{limit} = 2\n"})
    assert shared.wait(repo, commit).state == "failure"
    build = shared.build(commit)
    assert (build["state"], build["reason"]) == ("failed", reason)
    assert attribute in str(build["message"])
    assert says in str(build["message"])
