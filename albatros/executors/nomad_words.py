"""What Nomad says of an allocation, a node or an evaluation, in our reasons and in sentences.

`complete` is no success: stopped, drained and overdue allocations are complete too. A runner that did its work has
reported it; whoever is asked here has an Attempt that is open still.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from albatros.domain.states import Reason
from albatros.domain.text import plain
from albatros.executors.nomad_job import TASK
from albatros.executors.nomad_json import Document, mapping, number, rows, text, within

MAX_EVENTS = 10
MAX_WORDS = 300
FATAL = 128
_ENDED = frozenset({"complete", "failed", "lost"})
_DRIVER_EVENTS = frozenset(
    {"Driver Failure", "Setup Failure", "Failed Validation", "Failed Artifact Download", "Failed Restoring Task"}
)
_DISK = ("no space left on device", "disk quota exceeded")


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """One line of a task's history; `at` in UTC."""

    at: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Allocation:
    """An allocation as far as we look at it."""

    id: str
    node: str
    node_id: str
    client_status: str
    desired_status: str
    client_description: str
    desired_description: str
    preempted: bool
    modify_index: int
    create_index: int
    exit_code: int | None = None
    signal: int = 0
    oom: bool = False
    migrated: bool = False
    events: Sequence[TaskEvent] = field(default=())

    @property
    def ended(self) -> bool:
        """Whether nothing runs of it any more."""
        return self.client_status in _ENDED

    @property
    def running(self) -> bool:
        """Whether its task runs, or ran when its node was heard of last."""
        return self.client_status in {"running", "unknown"}


def read_allocation(document: Document) -> Allocation:
    """Read an allocation out of a listing or an event."""
    task = within(document, "TaskStates", TASK)
    events = list(rows(task.get("Events")))
    over = next((event for event in reversed(events) if text(event, "Type") == "Terminated"), None)
    return Allocation(
        id=text(document, "ID"),
        node=plain(text(document, "NodeName"), MAX_WORDS),
        node_id=text(document, "NodeID"),
        client_status=text(document, "ClientStatus"),
        desired_status=text(document, "DesiredStatus"),
        client_description=plain(text(document, "ClientDescription"), MAX_WORDS),
        desired_description=plain(text(document, "DesiredDescription"), MAX_WORDS),
        preempted=bool(text(document, "PreemptedByAllocation")) or text(document, "DesiredStatus") == "evict",
        modify_index=number(document, "ModifyIndex"),
        create_index=number(document, "CreateIndex"),
        exit_code=None if over is None else number(over, "ExitCode"),
        signal=0 if over is None else number(over, "Signal"),
        oom=any(mapping(event.get("Details")).get("oom_killed") == "true" for event in events),
        migrated=within(document, "DesiredTransition").get("Migrate") is True,
        events=tuple(_event(event) for event in events[-MAX_EVENTS:]),
    )


def _event(event: Document) -> TaskEvent:
    at = datetime.fromtimestamp(number(event, "Time") // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return TaskEvent(at, plain(text(event, "Type"), 64), plain(text(event, "DisplayMessage"), MAX_WORDS))


def end_of(allocation: Allocation) -> tuple[Reason, str] | None:
    """Why the runner of an open Attempt is gone; None while it may run."""
    if allocation.client_status == "lost":
        return Reason.NODE_LOST, f"Nomad lost the node {allocation.node}: {_why(allocation, 'no reason given')}"
    if not allocation.ended:
        return None
    if allocation.oom:
        return Reason.OOM, f"Nomad killed it on {allocation.node}: it used more memory than nomad.memory_mb"
    if "max_run_duration" in allocation.client_description:
        return Reason.TIMEOUT, f"Nomad ended it on {allocation.node}: {allocation.client_description}"
    if allocation.preempted:
        return Reason.PREEMPTED, f"Nomad gave its place on {allocation.node} to a job of higher priority"
    return _failed(allocation) or _stopped(allocation) or _silent_end(allocation)


def _failed(allocation: Allocation) -> tuple[Reason, str] | None:
    """What Nomad or the node could not do; what came before the task's last start did not end it."""
    for event in reversed(allocation.events):
        if event.kind == "Started":
            return None
        template = event.kind == "Killing" and "Template" in event.message
        if event.kind in _DRIVER_EVENTS or template:
            full = any(words in event.message.lower() for words in _DISK)
            reason = Reason.DISK_FULL if full else Reason.DRIVER
            return reason, f"{allocation.node} could not run it: {event.kind}: {event.message}"
    return None


def _stopped(allocation: Allocation) -> tuple[Reason, str] | None:
    if allocation.migrated or any(word in allocation.desired_description for word in ("migrated", "tainted")):
        return Reason.PREEMPTED, f"the node {allocation.node} is being drained"
    if allocation.desired_status == "stop":
        why = _why(allocation, "no reason given")
        return Reason.PREEMPTED, f"it was stopped in Nomad ({why}) and ended with {_how(allocation)}"
    return None


def _silent_end(allocation: Allocation) -> tuple[Reason, str]:
    return Reason.NODE_LOST, f"its runner ended on {allocation.node} ({_how(allocation)}) without a report"


def _how(allocation: Allocation) -> str:
    code = allocation.exit_code
    if code is None:
        return _why(allocation, "nobody saw how")
    # A task of raw_exec that was killed shows 128 and the signal, as a shell does.
    number = allocation.signal or (code - 128 if FATAL < code < FATAL + 32 else 0)
    return f"signal {number}" if number else f"exit code {code}"


def _why(allocation: Allocation, otherwise: str) -> str:
    return allocation.desired_description or allocation.client_description or otherwise


def newest(allocations: Sequence[Allocation]) -> Allocation | None:
    """The allocation that counts: Nomad replaces one that it lost, whatever the job says."""
    return max(allocations, key=lambda allocation: allocation.create_index, default=None)


def wait_of(evaluation: Document) -> str:
    """Why Nomad has no place for a job, out of an evaluation; empty when it has."""
    failed = mapping(evaluation.get("FailedTGAllocs"))
    return "; ".join(_no_place(mapping(metric)) for metric in failed.values())


def _no_place(metric: Document) -> str:
    pool = number(metric, "NodesInPool") or number(metric, "NodesEvaluated")
    if pool == 0:
        return f"no node of pool {text(metric, 'NodePool') or 'default'} takes work in its datacenters"
    reasons = [_filtered(name, count, pool) for name, count in _counts(metric, "ConstraintFiltered").items()]
    reasons += [
        f"{count} of {pool} nodes have no {name} left" for name, count in _counts(metric, "DimensionExhausted").items()
    ]
    reasons += [f"the quota is exhausted: {name}" for name in _strings(metric.get("QuotaExhausted"))]
    return ", ".join(reasons) or f"none of {pool} nodes has room"


def _counts(metric: Document, key: str) -> Mapping[str, int]:
    found = mapping(metric.get(key))
    return {plain(name, MAX_WORDS): count for name, count in sorted(found.items()) if isinstance(count, int)}


def _strings(value: object) -> list[str]:
    return [plain(item, MAX_WORDS) for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _filtered(words: str, count: int, pool: int) -> str:
    """`${meta.nix_system} = aarch64-linux` as people say it: `nix_system=aarch64-linux`."""
    if words.startswith("missing "):
        return f"{count} of {pool} nodes lack {words.removeprefix('missing ')}"
    left, _, rest = words.partition(" ")
    operand, _, right = rest.partition(" ")
    name = left.removeprefix("${").removesuffix("}").removeprefix("meta.").removeprefix("attr.")
    wanted = f"{name}={right}" if operand in {"=", "set_contains"} and right else words
    return f"{pool - count} of {pool} nodes have {wanted}"


@dataclass(frozen=True, slots=True)
class Node:
    """A node: whether it takes work now, and what its meta says of its Nix."""

    id: str
    name: str
    ready: bool
    datacenter: str
    pool: str
    node_class: str
    systems: frozenset[str]
    arch: str
    sandbox: bool
    modify_index: int


def read_node(document: Document) -> Node:
    """Read a node as `GET /v1/node/ID` and events give it."""
    meta, attributes = within(document, "Meta"), within(document, "Attributes")
    ready = text(document, "Status") == "ready" and text(document, "SchedulingEligibility") == "eligible"
    draining = document.get("Drain") is True or bool(document.get("DrainStrategy"))
    return Node(
        id=text(document, "ID"),
        name=plain(text(document, "Name"), MAX_WORDS),
        ready=ready and not draining,
        datacenter=text(document, "Datacenter"),
        pool=text(document, "NodePool") or "default",
        node_class=text(document, "NodeClass"),
        systems=frozenset(part.strip() for part in text(meta, "nix_system").split(",") if part.strip()),
        arch=text(attributes, "cpu.arch"),
        sandbox=text(meta, "nix_sandbox") == "true",
        modify_index=number(document, "ModifyIndex"),
    )
