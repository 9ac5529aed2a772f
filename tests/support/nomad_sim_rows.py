"""What the simulated Nomad keeps, and how each looks in an answer: jobs, evaluations, allocations, nodes.

The shapes are the recorded ones of tests/fixtures/nomad-2.0.6, whose job is the skeleton that a registered one fills.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Json = dict[str, Any]
FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "nomad-2.0.6"
SECOND = 1_000_000_000
"""Durations are nanoseconds, as in Nomad's JSON."""
TERMINAL = frozenset({"complete", "failed", "lost"})
_SKELETON: Json = json.loads((FIXTURES / "job-dead.json").read_text())["response"]["body"]
_DAY = 24 * 3600 * SECOND
_RESTART: Json = {"Attempts": 3, "Delay": 15 * SECOND, "Interval": _DAY, "Mode": "fail", "RenderTemplates": False}
_EVENT_TEXTS = [
    "DisplayMessage",
    "DownloadError",
    "DriverError",
    "DriverMessage",
    "FailedSibling",
    "GenericSource",
    "KillError",
    "KillReason",
    "Message",
    "RestartReason",
    "SetupError",
    "TaskSignal",
    "TaskSignalReason",
    "ValidationError",
    "VaultError",
]


@dataclass(eq=False, kw_only=True)
class Row:
    """A row of Nomad's state store: the indexes of the transactions that made and last changed it."""

    id: str
    namespace: str = "default"
    create_index: int = 0
    modify_index: int = 0
    create_time: int = 0
    modify_time: int = 0

    topic = ""
    table = ""

    def touch(self, index: int, now: int) -> None:
        """It is part of the transaction `index`."""
        self.create_index, self.create_time = self.create_index or index, self.create_time or now
        self.modify_index, self.modify_time = index, now

    def filter_keys(self) -> list[str] | None:
        """What else than its id an event of it is found by."""
        return None

    def document(self) -> Json:
        """It as its own endpoint and the event stream show it."""
        raise NotImplementedError


@dataclass(eq=False, kw_only=True)
class Job(Row):
    """A job: its specification as Nomad completed it, and what became of it."""

    spec: Json
    status: str = "pending"
    stopped: bool = False
    version: int = 0
    job_modify_index: int = 0
    topic = "Job"
    table = "jobs"

    @property
    def group(self) -> Json:
        """Its first task group: the simulated Nomad places one allocation of that."""
        group: Json = self.spec["TaskGroups"][0]
        return group

    @property
    def parameterized(self) -> bool:
        return bool(self.spec["ParameterizedJob"]) and not self.spec["Dispatched"]

    def document(self) -> Json:
        return {
            **self.spec,
            "CreateIndex": self.create_index,
            "ModifyIndex": self.modify_index,
            "JobModifyIndex": self.job_modify_index,
            "Status": self.status,
            "Stop": self.stopped,
            "Version": self.version,
            "SubmitTime": self.create_time,
        }

    def stub(self, summary: Json, *, meta: bool) -> Json:
        """It in a list of jobs, with its meta if asked."""
        shown = self.document()
        same = [
            "CreateIndex",
            "Datacenters",
            "ID",
            "JobModifyIndex",
            "ModifyIndex",
            "Multiregion",
            "Name",
            "Namespace",
            "NodePool",
            "ParentID",
            "Priority",
            "Status",
            "StatusDescription",
            "Stop",
            "SubmitTime",
            "Type",
        ]
        flags = {"ParameterizedJob": self.parameterized, "Periodic": False}
        more = {"Meta": shown["Meta"]} if meta else {}
        return {**{key: shown[key] for key in same}, **flags, **more, "JobSummary": summary}


@dataclass(eq=False, kw_only=True)
class Evaluation(Row):
    """One look of the scheduler at a job."""

    job_id: str
    trigger: str
    priority: int = 50
    kind: str = "batch"
    status: str = "pending"
    words: Json = field(default_factory=dict)
    """Fields that only some have, as the answer names them; empty ones are left out."""
    topic = "Evaluation"
    table = "evals"

    def filter_keys(self) -> list[str]:
        return [self.job_id, ""]

    def document(self) -> Json:
        shown = {
            "CreateIndex": self.create_index,
            "CreateTime": self.create_time,
            "ID": self.id,
            "JobID": self.job_id,
            "ModifyIndex": self.modify_index,
            "ModifyTime": self.modify_time,
            "Namespace": self.namespace,
            "Priority": self.priority,
            "Status": self.status,
            "TriggeredBy": self.trigger,
            "Type": self.kind,
        }
        return {**shown, **{key: value for key, value in self.words.items() if value}}


@dataclass(eq=False, kw_only=True)
class Allocation(Row):
    """A placement of a job's group on a node."""

    job: Job
    node_id: str
    node_name: str
    eval_id: str
    metrics: Json
    client_status: str = "pending"
    client_description: str = ""
    desired_status: str = "run"
    desired_description: str = ""
    transition: Json = field(default_factory=dict)
    next_id: str = ""
    previous_id: str = ""
    followup_id: str = ""
    preempted_by: str = ""
    tasks: Json = field(default_factory=dict)
    scheduled_index: int = 0
    job_version: int = 0
    topic = "Allocation"
    table = "allocs"

    @property
    def name(self) -> str:
        return f"{self.job.id}.{self.job.group['Name']}[0]"

    @property
    def ended(self) -> bool:
        """Whether the client is done with it, or Nomad gave it up."""
        return self.client_status in TERMINAL

    @property
    def holds_room(self) -> bool:
        """Whether it counts against its node's capacity."""
        return not self.ended and self.desired_status == "run"

    def filter_keys(self) -> list[str]:
        return [self.job.id, ""]

    def document(self) -> Json:
        """As an event shows it: what is empty is left out."""
        tasks = {task["Name"]: task["Resources"] for task in self.job.group["Tasks"]}
        disk = self.job.group["EphemeralDisk"]["SizeMB"]
        shown = {
            **self._shared(),
            "AllocModifyIndex": self.scheduled_index,
            "AllocatedResources": _allocated(tasks, disk),
            "Metrics": self.metrics,
            "Resources": _resources(
                sum(one["CPU"] for one in tasks.values()), sum(one["MemoryMB"] for one in tasks.values()), disk
            ),
            "SharedResources": _resources(0, 0, disk),
            "SigningKeyID": "00000000-0000-4000-8000-000000000000",
            "TaskResources": tasks,
            "TaskStates": self.tasks,
            "PreviousAllocation": self.previous_id,
        }
        if self.tasks:
            shown["NetworkStatus"] = {"Address": "", "AddressIPv6": "", "DNS": None, "InterfaceName": ""}
        if self.transition:
            shown["DesiredTransition"] = self._transition()
        return {key: value for key, value in shown.items() if value not in ("", {})}

    def stub(self, *, task_states: bool = True) -> Json:
        """It in a list of allocations."""
        return {
            **self._shared(),
            "DeploymentStatus": None,
            "DesiredTransition": self._transition(),
            "JobType": self.job.spec["Type"],
            "JobVersion": self.job_version,
            "PreemptedAllocations": None,
            "RescheduleTracker": None,
            "TaskStates": (self.tasks or None) if task_states else None,
        }

    def _shared(self) -> Json:
        return {
            "ClientDescription": self.client_description,
            "ClientStatus": self.client_status,
            "CreateIndex": self.create_index,
            "CreateTime": self.create_time,
            "DesiredDescription": self.desired_description,
            "DesiredStatus": self.desired_status,
            "EvalID": self.eval_id,
            "FollowupEvalID": self.followup_id,
            "ID": self.id,
            "JobID": self.job.id,
            "ModifyIndex": self.modify_index,
            "ModifyTime": self.modify_time,
            "Name": self.name,
            "Namespace": self.namespace,
            "NextAllocation": self.next_id,
            "NodeID": self.node_id,
            "NodeName": self.node_name,
            "PreemptedByAllocation": self.preempted_by,
            "TaskGroup": self.job.group["Name"],
        }

    def _transition(self) -> Json:
        names = ("ForceReschedule", "Migrate", "MigrateDisablePlacement", "NoShutdownDelay", "Reschedule")
        return {**dict.fromkeys(names), **self.transition}


@dataclass(eq=False, kw_only=True)
class Node(Row):
    """A client as the servers know it."""

    name: str
    meta: Json
    attributes: Json
    cpu: int
    memory: int
    node_class: str = ""
    pool: str = "default"
    datacenter: str = "dc1"
    drivers: frozenset[str] = frozenset({"raw_exec"})
    volumes: frozenset[str] = frozenset()
    status: str = "ready"
    eligible: bool = True
    drain: Json | None = None
    last_drain: Json | None = None
    topic = "Node"
    table = "nodes"

    @property
    def takes_work(self) -> bool:
        return self.status == "ready" and self.eligible and self.drain is None

    def document(self) -> Json:
        return {
            **self._shared(),
            "Attributes": {**self.attributes, **{f"driver.{name}": "1" for name in sorted(self.drivers)}},
            "CSIControllerPlugins": {},
            "CSINodePlugins": {},
            "CgroupParent": "nomad.slice",
            "ComputedClass": "v1:1",
            "DrainStrategy": self.drain,
            "Events": [],
            "GCVolumesOnNodeGC": False,
            "HTTPAddr": "127.0.0.1:4646",
            "HostNetworks": {},
            "IdentitySigningKeyID": "00000000-0000-4000-8000-000000000000",
            "LastAllocUpdateIndex": 0,
            "LastMissedHeartbeatIndex": 0,
            "Links": {},
            "Meta": self.meta,
            "NodeMaxAllocs": 0,
            "NodeResources": self._resources(),
            "ReservedResources": self._reserved(),
            "SecretID": "",
            "StatusUpdatedAt": self.modify_time // SECOND,
            "TLSEnabled": False,
        }

    def stub(self, *, resources: bool) -> Json:
        """It in a list of nodes."""
        more = {"NodeResources": self._resources(), "ReservedResources": self._reserved()} if resources else {}
        return {**self._shared(), **more, "Address": "127.0.0.1", "Version": "2.0.6-dev"}

    def _shared(self) -> Json:
        return {
            "CreateIndex": self.create_index,
            "Datacenter": self.datacenter,
            "Drain": self.drain is not None,
            "Drivers": {name: _driver(name, self.create_time) for name in sorted(self.drivers)},
            "HostVolumes": {name: {"Name": name, "Path": f"/{name}", "ReadOnly": False} for name in self.volumes},
            "ID": self.id,
            "LastDrain": self.last_drain,
            "ModifyIndex": self.modify_index,
            "Name": self.name,
            "NodeClass": self.node_class,
            "NodePool": self.pool,
            "SchedulingEligibility": "eligible" if self.eligible and self.drain is None else "ineligible",
            "Status": self.status,
            "StatusDescription": "",
        }

    def _resources(self) -> Json:
        return {
            "Cpu": {"CpuShares": self.cpu, "ReservableCpuCores": [0, 1], "TotalCpuCores": 2},
            "Devices": None,
            "Disk": {"DiskMB": 100_000},
            "MaxDynamicPort": 32000,
            "Memory": {"MemoryMB": self.memory},
            "MinDynamicPort": 20000,
            "Networks": [],
            "NodeNetworks": [],
            "Processors": {"Topology": {}},
        }

    def _reserved(self) -> Json:
        return {
            "Cpu": {"CpuShares": 0, "ReservedCpuCores": None},
            "Disk": {"DiskMB": 0},
            "Memory": {"MemoryMB": 0},
            "Networks": {"ReservedHostPorts": ""},
        }


def canonical(given: Mapping[str, Any], namespace: str) -> Json:
    """A job's specification with everything that it did not say filled in, as Nomad does at registration."""
    spec = _fill(_SKELETON, {**given, "Namespace": given.get("Namespace") or namespace})
    spec["Name"] = given.get("Name") or spec["ID"]
    spec["Meta"] = given.get("Meta")
    spec["TaskGroups"] = [_group(group) for group in given["TaskGroups"]]
    if given.get("ParameterizedJob"):
        optional = {"Payload": "", "MetaRequired": None, "MetaOptional": None}
        spec["ParameterizedJob"] = {**optional, **given["ParameterizedJob"]}
    return spec


def _group(given: Mapping[str, Any]) -> Json:
    group = _fill(_SKELETON["TaskGroups"][0], given)
    attempts = {"Attempts": 1, "Delay": 5 * SECOND, "DelayFunction": "constant", "Interval": _DAY}
    reschedule = {**attempts, "MaxDelay": 0, "Unlimited": False}
    group["ReschedulePolicy"] = {**reschedule, **(given.get("ReschedulePolicy") or {})}
    group["RestartPolicy"] = {**_RESTART, **(given.get("RestartPolicy") or {})}
    group["Tasks"] = [_task(task, group["RestartPolicy"]) for task in given["Tasks"]]
    return group


def _task(given: Mapping[str, Any], restart: Json) -> Json:
    task = _fill(_SKELETON["TaskGroups"][0]["Tasks"][0], given)
    task["Resources"] = _fill(_SKELETON["TaskGroups"][0]["Tasks"][0]["Resources"], given.get("Resources") or {})
    task["KillTimeout"] = given.get("KillTimeout") or 5 * SECOND
    task["RestartPolicy"] = restart
    return task


def _fill(skeleton: Json, given: Mapping[str, Any]) -> Json:
    return copy.deepcopy({key: given.get(key, value) for key, value in skeleton.items()})


def task_event(kind: str, now: int, **given: Any) -> Json:
    """An event of a task; `DisplayMessage` is what people are shown."""
    empty = {"Details": {}, "DiskLimit": 0, "ExitCode": 0, "FailsTask": False, "KillTimeout": 0, "Signal": 0}
    return {**empty, **dict.fromkeys(_EVENT_TEXTS, ""), "StartDelay": 0, "Time": now, "Type": kind, **given}


def task_state() -> Json:
    """A task that no client has seen."""
    never = {"FinishedAt": None, "LastRestart": None, "StartedAt": None}
    return {"Events": [], "Failed": False, **never, "Paused": "", "Restarts": 0, "State": "pending"}


def moment(now: int) -> str:
    """Nanoseconds of the epoch as Nomad writes times."""
    whole = datetime.fromtimestamp(now // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{now % SECOND:09d}".rstrip("0").rstrip(".") + "Z"


def _allocated(tasks: Json, disk: int) -> Json:
    def one(asked: Json) -> Json:
        memory = {"MemoryMB": asked["MemoryMB"], "MemoryMaxMB": 0}
        return {
            "Cpu": {"CpuShares": asked["CPU"], "ReservedCores": None},
            "Devices": None,
            "Memory": memory,
            "Networks": None,
        }

    return {
        "Shared": {"DiskMB": disk, "Networks": None, "Ports": None},
        "TaskLifecycles": dict.fromkeys(tasks),
        "Tasks": {name: one(asked) for name, asked in tasks.items()},
    }


def _resources(cpu: int, memory: int, disk: int) -> Json:
    nothing = {"Cores": 0, "Devices": None, "IOPS": 0, "NUMA": None, "Networks": None, "SecretsMB": 0}
    return {**nothing, "CPU": cpu, "DiskMB": disk, "MemoryMB": memory, "MemoryMaxMB": memory}


def _driver(name: str, now: int) -> Json:
    healthy = {"Detected": True, "HealthDescription": "Healthy", "Healthy": True}
    return {"Attributes": {f"driver.{name}": "true"}, **healthy, "UpdateTime": moment(now)}
