"""What recorded answers of a real Nomad mean: each end has its reason, each wait its sentence."""

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from albatros.domain.states import Reason
from albatros.executors.nomad_json import Document
from albatros.executors.nomad_words import Allocation, TaskEvent, end_of, newest, read_allocation, read_node, wait_of

RECORDED = Path(__file__).parents[1] / "fixtures" / "nomad-2.0.6"


def recorded(name: str) -> list[Document]:
    """The body of a recorded answer."""
    return cast("list[Document]", json.loads((RECORDED / f"{name}.json").read_text())["response"]["body"])


def allocation(name: str) -> Allocation:
    (document,) = recorded(name)
    return read_allocation(document)


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("allocations-complete", Reason.NODE_LOST, "its runner ended on vm (exit code 0) without a report"),
        ("allocations-failed-exit-7", Reason.NODE_LOST, "its runner ended on vm (exit code 7) without a report"),
        ("allocations-oom-exec", Reason.OOM, "Nomad killed it on vm: it used more memory than nomad.memory_mb"),
        (
            "allocations-driver-failure",
            Reason.DRIVER,
            (
                "vm could not run it: Driver Failure: failed to launch command with executor: rpc error: "
                'code = Unknown desc = binary "/no/such/program" could not be found'
            ),
        ),
        (
            "allocations-max-run-duration",
            Reason.TIMEOUT,
            "Nomad ended it on vm: allocation exceeded max_run_duration",
        ),
        (
            "allocations-stopped",
            Reason.PREEMPTED,
            "it was stopped in Nomad (alloc not needed due to job update) and ended with exit code 3",
        ),
    ],
)
def test_an_end_has_a_reason_and_a_sentence(name: str, reason: Reason, words: str) -> None:
    assert end_of(allocation(name)) == (reason, words)


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        (
            {"client_status": "lost", "desired_description": "alloc is lost since its node is down"},
            Reason.NODE_LOST,
            "down",
        ),
        ({"preempted": True}, Reason.PREEMPTED, "higher priority"),
        ({"migrated": True}, Reason.PREEMPTED, "drained"),
        ({"desired_description": "alloc not needed as node is tainted"}, Reason.PREEMPTED, "drained"),
        ({"exit_code": 137}, Reason.NODE_LOST, "signal 9"),
        ({"exit_code": 130, "signal": 2}, Reason.NODE_LOST, "signal 2"),
        ({"exit_code": None, "client_description": "Unknown"}, Reason.NODE_LOST, "Unknown"),
    ],
)
def test_ends_that_were_not_recorded(changes: dict[str, object], reason: Reason, words: str) -> None:
    changed = replace(allocation("allocations-failed-exit-7"), **changes)  # type: ignore[arg-type]  # fields of it
    found = end_of(changed)
    assert found is not None
    assert found[0] is reason
    assert words in found[1]


@pytest.mark.parametrize("status", ["pending", "running", "unknown"])
def test_what_may_run_still_has_not_ended(status: str) -> None:
    changed = replace(allocation("allocations-failed-exit-7"), client_status=status)
    assert end_of(changed) is None
    assert changed.running is (status != "pending")


@pytest.mark.parametrize(
    ("kind", "message", "reason"),
    [
        ("Failed Artifact Download", "checksums did not match", Reason.DRIVER),
        ("Setup Failure", "failed to build task directory: no space left on device", Reason.DISK_FULL),
        ("Failed Restoring Task", "failed to restore task; will not run until server is contacted", Reason.DRIVER),
        ("Killing", "Template failed: no such variable", Reason.DRIVER),
    ],
)
def test_what_a_node_could_not_do(kind: str, message: str, reason: Reason) -> None:
    (document,) = recorded("allocations-driver-failure")
    text = json.dumps(document).replace("Driver Failure", kind)
    failed = read_allocation(json.loads(text))
    events = [replace(event, message=message) if event.kind == kind else event for event in failed.events]
    found = end_of(replace(failed, events=events))
    assert found == (reason, f"vm could not run it: {kind}: {message}")


def test_what_was_overcome_is_no_end() -> None:
    """A rebooted client cannot restore a task, starts it again, and the runner finds its Attempt claimed."""
    ended = allocation("allocations-failed-exit-7")
    events = [TaskEvent("", "Failed Restoring Task", "it was rebooted"), TaskEvent("", "Started", ""), ended.events[-2]]
    found = end_of(replace(ended, events=events))
    assert found == (Reason.NODE_LOST, "its runner ended on vm (exit code 7) without a report")


def test_the_newest_allocation_counts() -> None:
    old = allocation("allocations-complete")
    new = replace(old, create_index=old.create_index + 1, client_status="pending")
    assert newest([new, old]) == new
    assert newest([]) is None


def test_a_system_that_no_node_has_is_said() -> None:
    blocked, first = recorded("evaluations-filtered")
    assert wait_of(blocked) == wait_of(first) == "0 of 1 nodes have nix_system=aarch64-linux"


def test_too_little_memory_is_said() -> None:
    assert wait_of(recorded("evaluations-no-capacity")[0]) == "1 of 1 nodes have no memory left"


def test_set_contains_is_said_as_people_say_it() -> None:
    text = json.dumps(recorded("evaluations-filtered")[0]).replace("nix_system} =", "nix_system} set_contains")
    assert wait_of(json.loads(text)) == "0 of 1 nodes have nix_system=aarch64-linux"


def test_what_nodes_lack_is_said() -> None:
    metric = {"ConstraintFiltered": {"missing drivers": 2}, "NodesInPool": 3}
    assert wait_of({"FailedTGAllocs": {"runner": metric}}) == "2 of 3 nodes lack drivers"


def test_a_cluster_without_nodes_is_said() -> None:
    assert "no node of pool default" in wait_of({"FailedTGAllocs": {"runner": {"NodesEvaluated": 0}}})
    assert wait_of({"FailedTGAllocs": None}) == ""


@pytest.mark.parametrize("document", [{}, {"TaskStates": 3}, {"TaskStates": {"executor": {"Events": [1, {}]}}}])
def test_an_answer_that_lacks_something_is_read(document: Document) -> None:
    found = read_allocation(document)
    assert (found.id, found.ended) == ("", False)


def test_a_node_says_what_its_nix_is() -> None:
    node = read_node(
        {
            "ID": "a",
            "Name": "worker",
            "Status": "ready",
            "SchedulingEligibility": "eligible",
            "Meta": {"nix_system": "x86_64-linux, i686-linux", "nix_sandbox": "true"},
            "Attributes": {"cpu.arch": "amd64"},
        }
    )
    assert (node.systems, node.sandbox, node.arch) == (frozenset({"x86_64-linux", "i686-linux"}), True, "amd64")
    assert (node.ready, node.pool) == (True, "default")


@pytest.mark.parametrize(
    "change",
    [{"Drain": True}, {"DrainStrategy": {"Deadline": 1}}, {"SchedulingEligibility": "ineligible"}, {"Status": "down"}],
)
def test_a_node_that_takes_no_work_is_not_ready(change: Document) -> None:
    assert not read_node({"Status": "ready", "SchedulingEligibility": "eligible", **change}).ready
