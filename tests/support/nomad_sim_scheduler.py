"""The simulated Nomad's scheduler: where a job runs, why it does not, and what becomes of it when a node goes."""

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.nomad_sim_rows import SECOND, Allocation, Evaluation, Job, Json, Node, moment
from tests.support.nomad_sim_state import State

_TARGET = re.compile(r"\$\{(meta|attr)\.(.+)\}")
_ANNOTATIONS = [
    "Canary",
    "DestructiveUpdate",
    "Disconnect",
    "Ignore",
    "InPlaceUpdate",
    "Migrate",
    "Place",
    "Preemptions",
    "Reconnect",
    "RescheduleLater",
    "RescheduleNow",
    "Stop",
]


@dataclass
class Metrics:
    """What the scheduler saw while it looked for a place, as `FailedTGAllocs` tells it."""

    available: dict[str, int]
    pool: str
    evaluated: int = 0
    filtered: dict[str, int] = field(default_factory=dict)
    exhausted: dict[str, int] = field(default_factory=dict)
    asked: Json | None = None

    def document(self) -> Json:
        return {
            "AllocationTime": 50_000,
            "ClassExhausted": None,
            "ClassFiltered": None,
            "CoalescedFailures": 0,
            "ConstraintFiltered": self.filtered or None,
            "DimensionExhausted": self.exhausted or None,
            "NodePool": self.pool,
            "NodesAvailable": self.available,
            "NodesEvaluated": self.evaluated,
            "NodesExhausted": sum(self.exhausted.values()),
            "NodesFiltered": sum(self.filtered.values()),
            "NodesInPool": sum(self.available.values()),
            "QuotaExhausted": None,
            "ResourcesExhausted": self.asked if self.exhausted else None,
            "ScoreMetaData": None,
            "Scores": None,
        }


class Scheduler:
    """Works each evaluation off at once, under the state's lock, unless it is held."""

    def __init__(self, state: State, placed: Callable[[Allocation], None], wanted_stop: Callable[[Allocation], None]):
        self._state = state
        self._placed = placed
        self._wanted_stop = wanted_stop
        self.held = False
        """Evaluations stay pending, as on servers that are busy."""
        self.preempts = False

    def evaluate(self, job: Job, trigger: str, **words: Any) -> Evaluation:
        """A new evaluation, not committed."""
        given = {"JobModifyIndex": job.job_modify_index, **words}
        priority = job.spec["Priority"]
        made = Evaluation(
            id=self._state.new_id(),
            namespace=job.namespace,
            job_id=job.id,
            trigger=trigger,
            priority=priority,
            words=given,
        )
        self._state.evals[made.id] = made
        return made

    def work(self) -> None:
        """Work off what is pending and due."""
        while not self.held:
            due = [
                one for one in self._state.evals.values() if one.status == "pending" and "WaitUntil" not in one.words
            ]
            if not due:
                return
            self._process(min(due, key=lambda one: (one.create_index, one.id)))

    def unblock(self) -> None:
        """There may be room now: look again at what waits."""
        blocked = [one for one in self._state.evals.values() if one.status == "blocked"]
        for one in sorted(blocked, key=lambda one: (-one.priority, one.create_index)):
            one.status = "pending"
        self.work()

    def node_changed(self, node: Node) -> None:
        """A node went, came, or is drained: its jobs are looked at again."""
        affected = {
            one.job.id: one.job for one in self._state.allocs.values() if one.node_id == node.id and not one.ended
        }
        made = [self.evaluate(job, "node-update", NodeID=node.id) for job in affected.values()]
        if made:
            self._state.commit("NodeRegistration", made)
        self.work()
        self.unblock()

    def _process(self, evaluation: Evaluation) -> None:
        state = self._state
        evaluation.words["SnapshotIndex"] = state.index
        job = state.jobs.get((evaluation.namespace, evaluation.job_id))
        if job is None or job.parameterized:
            evaluation.status = "complete"
            state.commit("EvaluationUpdated", [evaluation])
            return
        counts = dict.fromkeys(_ANNOTATIONS, 0)
        touched, previous = self._reconcile(job, counts)
        blocked: Evaluation | None = None
        placed: Allocation | None = None
        if not job.stopped and not self._has_one(job):
            placed, metrics = self._place(job, evaluation, touched)
            counts["Place"] = 1
            if placed is None:
                blocked = self._block(job, evaluation, metrics)
            elif previous is not None:
                previous.next_id, placed.previous_id = placed.id, previous.id
        if placed is not None or touched:
            # An evaluation that places shows in the plan's own transaction.
            self._set_status(job)
            state.commit("PlanResult", [evaluation, *touched, *([placed] if placed else []), job])
            for one in touched:
                one.scheduled_index = state.index
        self._complete(evaluation, job, counts, blocked)
        if placed is not None:
            placed.scheduled_index = state.index
            self._placed(placed)
        for one in touched:
            if one is not placed and not one.ended:
                self._wanted_stop(one)

    def _complete(self, evaluation: Evaluation, job: Job, counts: Json, blocked: Evaluation | None) -> None:
        if blocked is evaluation:
            return
        group = job.group["Name"]
        evaluation.status = "complete"
        evaluation.words["PlanAnnotations"] = {"DesiredTGUpdates": {group: counts}, "PreemptedAllocs": None}
        evaluation.words["QueuedAllocations"] = {group: int(blocked is not None)}
        evaluation.words.pop("ClassEligibility", None)
        before = job.status
        self._set_status(job)
        self._state.commit("EvaluationUpdated", [evaluation, *([job] if job.status != before else [])])

    def _block(self, job: Job, evaluation: Evaluation, metrics: Metrics) -> Evaluation:
        failed = {job.group["Name"]: metrics.document()}
        evaluation.words["FailedTGAllocs"] = failed
        if evaluation.trigger == "queued-allocs":
            evaluation.status = "blocked"
            return evaluation
        words: Json = {"FailedTGAllocs": failed, "PreviousEval": evaluation.id, "SnapshotIndex": self._state.index}
        words["ClassEligibility"] = {"v1:1": bool(metrics.exhausted)}
        made = self.evaluate(job, "queued-allocs", StatusDescription="created to place remaining allocations", **words)
        made.status = "blocked"
        evaluation.words["BlockedEval"] = made.id
        self._state.commit("EvaluationUpdated", [made])
        return made

    def _reconcile(self, job: Job, counts: Json) -> tuple[list[Allocation], Allocation | None]:
        """What of a job changes, and the allocation that a new one replaces."""
        touched: list[Allocation] = []
        previous: Allocation | None = None
        for alloc in self._state.allocs_of(job.namespace, job.id):
            if alloc.desired_status != "run" or alloc.client_status in ("complete", "failed"):
                continue
            node = self._state.nodes[alloc.node_id]
            if job.stopped:
                alloc.desired_status, alloc.desired_description = "stop", "alloc not needed due to job update"
                counts["Stop"] += 1
            elif alloc.transition.get("Migrate"):
                alloc.desired_status, alloc.desired_description = "stop", "alloc is being migrated"
                counts["Migrate"] += 1
                previous = None if alloc.transition.get("MigrateDisablePlacement") else alloc
            elif node.status in ("down", "disconnected") and not self._disconnect(alloc, counts):
                continue
            elif node.status in ("down", "disconnected"):
                previous = alloc if alloc.client_status == "lost" else None
            else:
                continue
            touched.append(alloc)
        return touched, previous

    def _disconnect(self, alloc: Allocation, counts: Json) -> bool:
        """The node of an allocation is silent; whether that changes the allocation."""
        block = alloc.job.group["Disconnect"] or {}
        patience = block.get("LostAfter") or 0
        if alloc.client_status == "unknown":
            if self._state.clock.now() < alloc.modify_time + patience:
                return False
        elif patience:
            self._await(alloc, patience)
            counts["Disconnect"] += 1
            return True
        alloc.client_status = "lost"
        alloc.desired_status, alloc.desired_description = "stop", "alloc is lost since its node is down"
        counts["Stop"] += 1
        return True

    def _await(self, alloc: Allocation, patience: int) -> None:
        alloc.client_status = "unknown"
        alloc.client_description = "alloc is unknown since its node is disconnected"
        until = self._state.clock.now() + patience
        text = "created for delayed disconnect timeout"
        later = self.evaluate(alloc.job, "max-disconnect-timeout", StatusDescription=text, WaitUntil=moment(until))
        alloc.followup_id = later.id
        self._state.commit("EvaluationUpdated", [later])

        def due() -> None:
            with self._state.locked():
                if later.status == "pending" and alloc.client_status == "unknown":
                    later.words.pop("WaitUntil")
                    self.work()

        self._state.clock.after(patience + SECOND // 1000, due)

    def _has_one(self, job: Job) -> bool:
        """Whether the one allocation of a job is there, or was: what failed is not tried again without a reschedule."""
        return any(
            alloc.desired_status == "run" or alloc.transition.get("MigrateDisablePlacement")
            for alloc in self._state.allocs_of(job.namespace, job.id)
        )

    def _set_status(self, job: Job) -> None:
        allocs = self._state.allocs_of(job.namespace, job.id)
        waiting = ("pending",) if job.stopped else ("pending", "blocked")
        waits = any(one.status in waiting for one in self._state.evals_of(job.namespace, job.id))
        if job.parameterized:
            job.status = "dead" if job.stopped else "running"
        elif any(not one.ended and one.desired_status == "run" for one in allocs):
            job.status = "running"
        elif not waits and (job.stopped or allocs):
            job.status = "dead"
        else:
            job.status = "pending"

    def settle(self, job: Job) -> list[Job]:
        """The job, if an end of its allocation changes its status."""
        before = job.status
        self._set_status(job)
        return [job] if job.status != before else []

    def _place(self, job: Job, evaluation: Evaluation, touched: list[Allocation]) -> tuple[Allocation | None, Metrics]:
        nodes = [one for one in self._state.nodes.values() if one.takes_work and self._reaches(job, one)]
        available: dict[str, int] = {}
        for node in nodes:
            available[node.datacenter] = available.get(node.datacenter, 0) + 1
        asked = {task["Name"]: task["Resources"] for task in job.group["Tasks"]}
        metrics = Metrics(available, job.spec["NodePool"] or "default", asked=asked)
        best: Node | None = None
        for node in nodes:
            metrics.evaluated += 1
            if reason := _unfit(job, node):
                metrics.filtered[reason] = metrics.filtered.get(reason, 0) + 1
            elif lacks := self._lacks(job, node):
                metrics.exhausted[lacks] = metrics.exhausted.get(lacks, 0) + 1
            elif best is None or self._used(node, "MemoryMB") > self._used(best, "MemoryMB"):
                best = node
        victim: Allocation | None = None
        if best is None and self.preempts:
            victim = self._victim(job, nodes)
            best = self._state.nodes[victim.node_id] if victim else None
        if best is None:
            return None, metrics
        made = Allocation(
            id=self._state.new_id(),
            namespace=job.namespace,
            job=job,
            node_id=best.id,
            node_name=best.name,
            eval_id=evaluation.id,
            job_version=job.version,
            metrics={**metrics.document(), "ScoreMetaData": []},
        )
        self._state.allocs[made.id] = made
        if victim is not None:
            self._preempt(victim, made, touched)
        return made, metrics

    def _preempt(self, victim: Allocation, winner: Allocation, touched: list[Allocation]) -> None:
        victim.desired_status = "evict"
        victim.desired_description = f"Preempted by alloc ID {winner.id}"
        victim.preempted_by = winner.id
        touched.append(victim)
        self.evaluate(victim.job, "preemption")

    def _victim(self, job: Job, nodes: list[Node]) -> Allocation | None:
        """The least important allocation whose going makes room; Nomad preempts what is 10 below or less."""
        fitting = {node.id for node in nodes if not _unfit(job, node)}
        found = [
            one
            for one in self._state.allocs.values()
            if one.holds_room and one.node_id in fitting and one.job.spec["Priority"] <= job.spec["Priority"] - 10
        ]
        return min(found, key=lambda one: (one.job.spec["Priority"], one.create_index), default=None)

    def _reaches(self, job: Job, node: Node) -> bool:
        pool = job.spec["NodePool"] or "default"
        reached = any(fnmatch.fnmatch(node.datacenter, wanted) for wanted in job.spec["Datacenters"] or ["*"])
        return reached and pool in ("all", node.pool)

    def _lacks(self, job: Job, node: Node) -> str:
        asks = {key: sum(task["Resources"][key] for task in job.group["Tasks"]) for key in ("CPU", "MemoryMB")}
        if self._used(node, "CPU") + asks["CPU"] > node.cpu:
            return "cpu"
        return "memory" if self._used(node, "MemoryMB") + asks["MemoryMB"] > node.memory else ""

    def _used(self, node: Node, what: str) -> int:
        held = [one for one in self._state.allocs.values() if one.node_id == node.id and one.holds_room]
        return sum(int(task["Resources"][what]) for one in held for task in one.job.group["Tasks"])


def _unfit(job: Job, node: Node) -> str:
    """Why a node is none for this job, in the scheduler's words; empty when it is one."""
    group, tasks = job.group, job.group["Tasks"]
    if any(task["Driver"] not in node.drivers for task in tasks):
        return "missing drivers"
    volumes = (group["Volumes"] or {}).values()
    if any(one.get("Type") == "host" and one["Source"] not in node.volumes for one in volumes):
        return "missing compatible host volumes"
    for constraint in [c for part in (job.spec, group, *tasks) for c in part["Constraints"] or []]:
        if not _holds(constraint, node):
            target, value = constraint.get("LTarget", ""), constraint.get("RTarget", "")
            return f"{target} {constraint.get('Operand') or '='} {value}"
    return ""


def _holds(constraint: Json, node: Node) -> bool:
    left = _resolve(constraint.get("LTarget", ""), node)
    right = _resolve(constraint.get("RTarget", ""), node)
    match constraint.get("Operand") or "=":
        case "=" | "==" | "is":
            return left is not None and left == right
        case "!=" | "not":
            return left != right
        case "is_set":
            return left is not None
        case "is_not_set":
            return left is None
        case "regexp":
            return left is not None and right is not None and re.search(right, left) is not None
        case "set_contains" | "set_contains_any" as operand:
            wanted, there = ({one.strip() for one in (text or "").split(",")} for text in (right, left))
            return wanted <= there if operand == "set_contains" else bool(wanted & there)
        case other:
            raise AssertionError(f"the simulated Nomad does not know the operand {other}")


def _resolve(target: str, node: Node) -> str | None:
    if not target.startswith("${"):
        return target
    own = {
        "${node.class}": node.node_class,
        "${node.datacenter}": node.datacenter,
        "${node.pool}": node.pool,
        "${node.unique.id}": node.id,
        "${node.unique.name}": node.name,
    }
    if target in own:
        return own[target]
    found = _TARGET.fullmatch(target)
    values = {"meta": node.meta, "attr": node.attributes}.get(found[1], {}) if found else {}
    value = values.get(found[2]) if found else None
    return None if value is None else str(value)
