"""The real runner against a server that drops connections, answers errors, says stop, or lets the Attempt go."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from tests.support.runner import (
    RunnerProcess,
    attributes_of,
    build_order,
    evaluation_order,
    make_repo,
    outputs_of,
    result_of,
    run_order,
)
from tests.support.runner_server import Fault, RunnerServer
from tests.tools import needs

pytestmark = needs("nix", "git")
SECONDS = f"6{os.getpid()}"  # tells the builders of test processes apart
SLEEP = f"sleep\x00{SECONDS}"
FLAKE = """{ outputs = { self }:
  let run = name: script: derivation {
    inherit name;
    system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "PATH=/usr/bin:/bin; ${script}" ];
  }; in {
    packages.x86_64-linux.talks = run "talks" "for i in 1 2 3 4 5 6; do echo word $i; sleep 0.3; done; echo > $out";
    packages.x86_64-linux.sleeps = run "sleeps" "echo asleep; exec sleep SECONDS";
  }; }""".replace("SECONDS", SECONDS)


@dataclass(frozen=True)
class Case:
    """A repo, and the orders for its attributes."""

    directory: Path
    commit: str
    drv_paths: dict[str, str]

    @property
    def home(self) -> Path:
        return self.directory / "home"

    def evaluation(self) -> dict[str, object]:
        return evaluation_order(self.directory / "repo", self.commit)

    def build(self, name: str) -> dict[str, object]:
        attribute = f"packages.x86_64-linux.{name}"
        return build_order(self.directory / "repo", self.commit, attribute, self.drv_paths[attribute])


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    directory = tmp_path_factory.mktemp("trouble")
    commit = make_repo(directory / "repo", {"flake.nix": FLAKE})
    found = attributes_of(run_order(directory / "home", evaluation_order(directory / "repo", commit)))
    return Case(directory, commit, {name: cast("str", entry["drv_path"]) for name, entry in found.items()})


@pytest.fixture
def sleeping(case: Case) -> Iterator[tuple[RunnerServer, RunnerProcess]]:
    """A runner in the middle of a build that would never end."""
    server = RunnerServer(case.build("sleeps"))
    runner = RunnerProcess(case.home, server)
    try:
        wait_for(lambda: "asleep" in server.log)
        wait_for(lambda: processes(SLEEP) != [])
        yield server, runner
    finally:
        runner.end()
        server.close()
        for pid in processes(SLEEP):
            os.kill(pid, signal.SIGKILL)


def to(part: str) -> Callable[[str, str], bool]:
    return lambda _method, path: part in path


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([Fault(to("/claim"), 503, 2)], id="claim answered 503"),
        pytest.param([Fault(to("/claim"), 0, 1, after_work=True)], id="answer to the claim lost"),
        pytest.param([Fault(to("/log/"), 0, 3)], id="log pieces dropped"),
        pytest.param([Fault(to("/log/"), 0, 2, after_work=True)], id="answers to log pieces lost"),
        pytest.param([Fault(to("/log/"), 429, 2)], id="log answered 429"),
        pytest.param([Fault(to("/blobs/sha256"), 0, 1)], id="upload dropped"),
        pytest.param([Fault(to("/result"), 502, 1), Fault(to("/result"), 0, 1, after_work=True)], id="result lost"),
    ],
)
def test_a_passing_fault_changes_nothing(case: Case, faults: list[Fault]) -> None:
    order = case.build("talks")
    server = run_order(case.home, order, RunnerServer(order, faults=faults))
    assert all(fault.times == 0 for fault in faults)
    assert result_of(server)["outcome"] == "succeeded"
    assert list(server.pieces) == list(range(len(server.pieces)))
    assert server.log.count("claimed on") == 1
    assert server.log.rstrip().rpartition("\n")[2].startswith("succeeded after")
    assert server.result is not None
    assert server.result["log_bytes"] == len(server.log.encode())
    (file,) = cast("list[dict[str, object]]", outputs_of(server)[0]["files"])
    assert file["digest"] in server.blobs


def test_a_server_that_lost_log_pieces_gets_them_again(case: Case) -> None:
    order = case.build("talks")
    server = RunnerServer(order)

    def lose(method: str, path: str) -> bool:
        # As a server whose last transaction did not survive its end.
        if "/log/2?" in path and len(server.pieces) == 2:
            del server.pieces[1]
            return True
        return False

    server.faults.append(Fault(lose, 503, 1))
    run_order(case.home, order, server)
    assert server.faults[0].times == 0
    assert any(call.status == 409 for call in server.calls)
    assert server.log.startswith("claimed on")
    assert server.result is not None
    assert server.result["log_bytes"] == len(server.log.encode())


@pytest.mark.parametrize("reason", ["cancelled", "superseded", "handback"])
def test_a_stop_ends_the_builder_and_is_reported(sleeping: tuple[RunnerServer, RunnerProcess], reason: str) -> None:
    server, runner = sleeping
    server.stop = reason
    assert runner.wait().status == 0
    result = result_of(server)
    assert (result["outcome"], result["reason"]) == ("failed", reason)
    wait_for(lambda: processes(SLEEP) == [])


def test_sigterm_hands_the_attempt_back(sleeping: tuple[RunnerServer, RunnerProcess]) -> None:
    server, runner = sleeping
    runner.process.terminate()
    assert runner.wait().status == 0
    assert result_of(server)["reason"] == "handback"
    wait_for(lambda: processes(SLEEP) == [])


def test_sigterm_reports_the_reason_that_the_server_knows(sleeping: tuple[RunnerServer, RunnerProcess]) -> None:
    server, runner = sleeping
    server.stop = "cancelled"
    runner.process.terminate()
    assert runner.wait().status == 0
    assert result_of(server)["reason"] == "cancelled"


def test_a_closed_attempt_ends_the_runner_and_its_builder(sleeping: tuple[RunnerServer, RunnerProcess]) -> None:
    server, runner = sleeping
    server.closed = True
    ended = runner.wait()
    assert ended.status == 3
    assert "the attempt is closed" in ended.stderr
    assert server.result is None
    wait_for(lambda: processes(SLEEP) == [])


def test_a_killed_runner_leaves_no_builder(sleeping: tuple[RunnerServer, RunnerProcess]) -> None:
    _, runner = sleeping
    runner.process.kill()
    wait_for(lambda: processes(SLEEP) == [])


def test_an_attempt_that_another_runner_has_is_left_alone(case: Case) -> None:
    server = RunnerServer(case.evaluation(), nonce="0" * 32)
    ended = RunnerProcess(case.home, server).wait()
    server.close()
    assert ended.status == 3
    assert "claimed already" in ended.stderr
    assert server.count("/log/") == 0


def test_heartbeats_come_while_a_builder_runs(sleeping: tuple[RunnerServer, RunnerProcess]) -> None:
    server, _ = sleeping
    wait_for(lambda: server.count("/heartbeat") >= 3)


def test_an_order_it_cannot_read_is_reported(case: Case) -> None:
    order = {**case.evaluation(), "kind": "dance"}
    server = run_order(case.home, order)
    assert result_of(server)["reason"] == "driver"
    assert "'dance'" in str(result_of(server)["message"])


def test_the_token_is_in_no_argument_and_no_environment(sleeping: tuple[RunnerServer, RunnerProcess]) -> None:
    _, runner = sleeping
    assert not (runner.workdir / "token").exists()
    mine = [pid for pid in map(int, pids()) if f"ALBATROS_WORKDIR={runner.workdir}" in read(pid, "environ")]
    assert mine
    for pid in pids():
        told = read(int(pid), "cmdline") + (read(int(pid), "environ") if int(pid) in mine else "")
        assert "attempt-token" not in told


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until it is so; the test's own timeout ends a wait for nothing."""
    while not condition():
        time.sleep(0.02)


def pids() -> list[str]:
    return [path.name for path in Path("/proc").iterdir() if path.name.isdigit()]


def read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def processes(words: str) -> list[int]:
    """Living processes with these words in their command line."""
    return [int(pid) for pid in pids() if words in read(int(pid), "cmdline")]
