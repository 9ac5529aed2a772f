"""What each endpoint of the simulated Nomad does. Calls are made with the state locked, but for the two streams."""

import base64
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.support.nomad_sim_filter import FilterError, parse_filter
from tests.support.nomad_sim_http import (
    Ask,
    RefusedError,
    Reply,
    blocking,
    by_index,
    by_name,
    event_stream,
    log_frames,
    page,
)
from tests.support.nomad_sim_rows import SECOND, Allocation, Job, Json, Node, canonical, moment

if TYPE_CHECKING:
    from tests.support.nomad_sim import NomadSim

MOST_PAYLOAD = 16384
MOST_VARIABLE = 65536
_ZERO = "0001-01-01T00:00:00Z"
_META = {"KnownLeader": False, "LastContact": 0, "NextToken": ""}


class Routes:
    """`answer` finds the route; each is a method of the name that the table gives it."""

    def __init__(self, sim: "NomadSim") -> None:
        self._sim = sim
        self._state = sim.state
        self._table: list[tuple[str, re.Pattern[str], Callable[..., Reply]]] = [
            (methods, re.compile(pattern), route)
            for methods, pattern, route in (
                ("POST PUT", r"/v1/jobs", self.register),
                ("GET", r"/v1/jobs", self.jobs),
                ("GET", r"/v1/job/(.+)/allocations", self.job_allocations),
                ("GET", r"/v1/job/(.+)/evaluations", self.job_evaluations),
                ("GET", r"/v1/job/(.+)/summary", self.job_summary),
                ("POST PUT", r"/v1/job/(.+)/dispatch", self.dispatch),
                ("GET", r"/v1/job/(.+)", self.job),
                ("DELETE", r"/v1/job/(.+)", self.deregister),
                ("GET", r"/v1/allocations", self.allocations),
                ("POST PUT", r"/v1/allocation/([^/]+)/stop", self.stop_allocation),
                ("GET", r"/v1/allocation/([^/]+)", self.allocation),
                ("POST PUT", r"/v1/client/allocation/([^/]+)/restart", self.restart_allocation),
                ("GET", r"/v1/evaluations", self.evaluations),
                ("GET", r"/v1/evaluation/([^/]+)", self.evaluation),
                ("GET", r"/v1/nodes", self.nodes),
                ("POST PUT", r"/v1/node/([^/]+)/drain", self.drain),
                ("POST PUT", r"/v1/node/([^/]+)/eligibility", self.eligibility),
                ("GET", r"/v1/node/([^/]+)", self.node),
                ("GET", r"/v1/vars", self.variables),
                ("GET", r"/v1/var/(.+)", self.variable),
                ("POST PUT", r"/v1/var/(.+)", self.put_variable),
                ("DELETE", r"/v1/var/(.+)", self.delete_variable),
                ("GET", r"/v1/acl/token/self", self.token_self),
                ("GET", r"/v1/status/leader", self.leader),
                ("GET", r"/v1/regions", lambda ask: Reply(value=["global"])),
                ("GET", r"/v1/namespaces", self.namespaces),
                ("GET", r"/v1/agent/health", lambda ask: Reply(value=_HEALTH)),
                ("POST PUT", r"/v1/system/gc", self.collect),
                ("POST PUT", r"/v1/operator/scheduler/configuration", self.configure),
            )
        ]

    def answer(self, ask: Ask) -> Reply:
        """The answer to a request. Raises RefusedError."""
        self._check_token(ask)
        if ask.query.get("region", "global") != "global":
            raise RefusedError(500, "No path to region")
        if ask.path == "/v1/event/stream":
            return Reply(stream=event_stream(self._sim, ask), headers={"Cache-Control": "no-cache"})
        if found := re.fullmatch(r"/v1/client/fs/logs/([^/]+)", ask.path):
            return self.logs(ask, found[1])
        with self._state.locked():
            for methods, pattern, route in self._table:
                found = pattern.fullmatch(ask.path)
                if found and ask.method in methods.split():
                    return route(ask, *found.groups())
        return Reply(404, "")

    def _check_token(self, ask: Ask) -> None:
        if not self._sim.tokens or ask.path.startswith(("/v1/acl/token/self", "/v1/status/")):
            return
        if ask.token and re.fullmatch(r"[0-9a-f-]{36}", ask.token) is None:
            raise RefusedError(403, "Permission denied")
        if ask.token not in self._sim.tokens:
            raise RefusedError(403, "Permission denied")

    # Jobs.

    def register(self, ask: Ask) -> Reply:
        given = (ask.body or {}).get("Job")
        if not given:
            raise RefusedError(400, "Job must be specified")
        if not given.get("ID"):
            raise RefusedError(400, "Job ID hasn't been provided")
        namespace = ask.query.get("namespace") or given.get("Namespace") or "default"
        known = self._state.jobs.get((namespace, given["ID"]))
        if fault := self._invalid(given, namespace):
            raise RefusedError(500, f"1 error occurred:\n\t* {fault}\n\n")
        if ask.body.get("EnforceIndex"):
            self._enforce(known, int(ask.body.get("JobModifyIndex") or 0))
        job = self._write(canonical(given, namespace), known)
        return self._registered(job, {"Warnings": ""})

    def _invalid(self, given: Json, namespace: str) -> str:
        if not given.get("TaskGroups"):
            return "Missing job task groups"
        if namespace not in self._sim.namespaces:
            return f'job "{given["ID"]}" is in nonexistent namespace "{namespace}"'
        pool = given.get("NodePool") or "default"
        if pool not in self._sim.node_pools:
            return f'job "{given["ID"]}" is in nonexistent node pool "{pool}"'
        return ""

    def _enforce(self, known: Job | None, index: int) -> None:
        there = known.job_modify_index if known else 0
        if index == 0 and known is not None:
            raise RefusedError(500, "Enforcing job modify index 0: job already exists")
        if index != 0 and known is None:
            raise RefusedError(500, f"Enforcing job modify index {index}: job does not exist")
        if index != there:
            text = f"Enforcing job modify index {index}: job exists with conflicting job modify index: {there}"
            raise RefusedError(500, text)

    def _write(self, spec: Json, known: Job | None) -> Job:
        """Commit a job with its evaluation."""
        job = known or Job(id=spec["ID"], namespace=spec["Namespace"], spec=spec)
        job.spec, job.stopped = spec, False
        job.version += known is not None
        job.job_modify_index = self._state.index + 1
        self._state.jobs[(job.namespace, job.id)] = job
        if job.parameterized:
            job.status = "running"
            self._state.commit("JobRegistered", [job])
            return job
        job.status = "pending"
        made = self._sim.scheduler.evaluate(job, "job-register")
        self._state.commit("JobRegistered", [job], [made])
        self._last = made
        self._sim.scheduler.work()
        return job

    def _registered(self, job: Job, more: Json) -> Reply:
        index, evaluated = job.job_modify_index, not job.parameterized
        words = {"EvalCreateIndex": index if evaluated else 0, "EvalID": self._last.id if evaluated else ""}
        return Reply(value={**words, "Index": index, "JobModifyIndex": index, **_META, **more}, index=index)

    def dispatch(self, ask: Ask, job_id: str) -> Reply:
        parent = self._state.jobs.get((ask.namespace, job_id))
        if parent is None:
            raise RefusedError(500, "parameterized job not found")
        rules = parent.spec["ParameterizedJob"]
        if not parent.parameterized:
            raise RefusedError(500, f'Specified job "{job_id}" is not a parameterized job')
        body = ask.body or {}
        payload, meta = base64.b64decode(body.get("Payload") or ""), body.get("Meta") or {}
        if fault := _undispatchable(rules, payload, meta):
            raise RefusedError(500, fault)
        token = ask.query.get("idempotency_token", "")
        for child in self._state.jobs.values():
            if token and child.spec["ParentID"] == job_id and child.spec["DispatchIdempotencyToken"] == token:
                return _dispatched(child, "", child.create_index, 0)
        prefix = f"{body['IdPrefixTemplate']}-" if body.get("IdPrefixTemplate") else ""
        seconds = self._sim.clock.now() // SECOND
        name = f"{job_id}/dispatch-{prefix}{seconds}-{self._state.new_id()[:8]}"
        spec = {
            **parent.spec,
            "ID": name,
            "Name": name,
            "ParentID": job_id,
            "Dispatched": True,
            "DispatchIdempotencyToken": token,
            "Meta": {**(parent.spec["Meta"] or {}), **meta},
            "Payload": body.get("Payload"),
            "Priority": body.get("Priority") or parent.spec["Priority"],
        }
        child = self._write(spec, None)
        return _dispatched(child, self._last.id, child.job_modify_index, child.job_modify_index)

    def jobs(self, ask: Ask) -> Reply:
        blocking(self._sim, ask, lambda: self._state.tables["jobs"])
        prefix = ask.query.get("prefix", "")
        found = [
            job.stub(self._state.summary_of(job), meta=ask.query.get("meta") == "true")
            for job in sorted(self._state.jobs.values(), key=lambda one: one.id)
            if job.id.startswith(prefix) and ask.namespace in ("*", job.namespace)
        ]
        return self._list(found, ask, "jobs")

    def job(self, ask: Ask, job_id: str) -> Reply:
        job = self._job(ask, job_id, lambda one: one.modify_index)
        return Reply(value=job.document(), index=job.modify_index, read=True)

    def job_summary(self, ask: Ask, job_id: str) -> Reply:
        job = self._job(ask, job_id, lambda one: one.modify_index)
        return Reply(value=self._state.summary_of(job), index=job.modify_index, read=True)

    def job_allocations(self, ask: Ask, job_id: str) -> Reply:
        def index() -> int:
            found = self._state.allocs_of(ask.namespace, job_id)
            return max((one.modify_index for one in found), default=self._state.tables["allocs"])

        blocking(self._sim, ask, index)
        found = self._state.allocs_of(ask.namespace, job_id)
        return Reply(value=[one.stub() for one in found], index=index(), read=True)

    def job_evaluations(self, ask: Ask, job_id: str) -> Reply:
        def index() -> int:
            found = self._state.evals_of(ask.namespace, job_id)
            return max((one.modify_index for one in found), default=self._state.tables["evals"])

        blocking(self._sim, ask, index)
        found = self._state.evals_of(ask.namespace, job_id)
        return Reply(value=[one.document() for one in found], index=index(), read=True)

    def deregister(self, ask: Ask, job_id: str) -> Reply:
        job = self._state.jobs.get((ask.namespace, job_id))
        words: Json = {"VolumeEvalID": "", "VolumeEvalIndex": 0, **_META}
        if job is None:
            nothing = {"EvalCreateIndex": 0, "EvalID": "", "Index": 0, "JobModifyIndex": 0}
            return Reply(value={**nothing, **words}, index=0)
        purge = ask.query.get("purge") == "true"
        job.stopped, job.version = True, job.version + 1
        made = self._sim.scheduler.evaluate(job, "job-deregister")
        made.kind = "service"
        job.job_modify_index = made.words["JobModifyIndex"] = self._state.index + 1
        index = self._state.commit("JobDeregistered", [job], [made])
        if purge:
            self._sim.forget(job)
        self._sim.scheduler.work()
        shown = {"EvalCreateIndex": index, "EvalID": made.id, "Index": index, "JobModifyIndex": index}
        return Reply(value={**shown, **words}, index=index)

    # Allocations and evaluations.

    def allocations(self, ask: Ask) -> Reply:
        blocking(self._sim, ask, lambda: self._state.tables["allocs"])
        states = ask.query.get("task_states", "true") != "false"
        prefix = ask.query.get("prefix", "")
        rows = sorted(self._state.allocs.values(), key=lambda one: (one.create_index, one.id))
        chosen = [one for one in rows if one.id.startswith(prefix) and ask.namespace in ("*", one.namespace)]
        return self._list([one.stub(task_states=states) for one in chosen], ask, "allocs")

    def allocation(self, ask: Ask, alloc_id: str) -> Reply:
        alloc = self._alloc(alloc_id)
        return Reply(
            value={**alloc.document(), "Job": {**alloc.job.document(), "Status": "pending"}},
            index=alloc.modify_index,
            read=True,
        )

    def stop_allocation(self, ask: Ask, alloc_id: str) -> Reply:
        alloc = self._alloc(alloc_id)
        alloc.transition = {"Migrate": True, "NoShutdownDelay": False, "Reschedule": False}
        made = self._sim.scheduler.evaluate(alloc.job, "alloc-stop")
        index = self._state.commit("AllocationUpdateDesiredStatus", [alloc, made])
        self._sim.scheduler.work()
        return Reply(value={"EvalID": made.id, "Index": index}, index=index)

    def restart_allocation(self, ask: Ask, alloc_id: str) -> Reply:
        alloc = self._alloc(alloc_id)
        client = self._sim.clients[alloc.node_id]
        run = client.runs.get(alloc_id)
        if run is None or run.task is None:
            raise RefusedError(500, "Task not running")
        client.restart(run)
        return Reply(value={"Index": 0})

    def evaluations(self, ask: Ask) -> Reply:
        rows = sorted(self._state.evals.values(), key=lambda one: (one.create_index, one.id))
        return self._list([one.document() for one in rows], ask, "evals")

    def evaluation(self, ask: Ask, eval_id: str) -> Reply:
        found = self._state.evals.get(eval_id)
        if found is None:
            raise RefusedError(404, "eval not found", self._state.tables["evals"], read=True)
        return Reply(value=found.document(), index=found.modify_index, read=True)

    def logs(self, ask: Ask, alloc_id: str) -> Reply:
        with self._state.locked():
            alloc = self._state.allocs.get(alloc_id)
            if alloc is None:
                raise RefusedError(404, f'Unknown allocation "{alloc_id}"')
            task, kind = ask.query.get("task", ""), ask.query.get("type", "")
            client = self._sim.clients[alloc.node_id]
            if not task:
                raise RefusedError(400, "must provide task name")
            if kind not in ("stdout", "stderr"):
                raise RefusedError(400, "must provide log type (stdout/stderr)")
            if not client.heard:
                raise RefusedError(404, "No path to node")
            run = client.runs.get(alloc_id)
            if run is None or task != run.spec["Name"]:
                raise RefusedError(400, f'unknown task name "{task}"')
            if run.state["StartedAt"] is None:
                raise RefusedError(404, f'task "{task}" not started yet. No logs available')
        name = f"alloc/logs/{task}.{kind}.0"
        path = run.directory.parent / name
        read = lambda: path.read_bytes() if path.exists() else b""  # noqa: E731 - one line where it is used
        if ask.query.get("follow") == "true":
            return Reply(stream=log_frames(self._sim, ask, read, name))
        return Reply(value=b"".join(log_frames(self._sim, ask, read, name)))

    # Nodes.

    def nodes(self, ask: Ask) -> Reply:
        blocking(self._sim, ask, lambda: self._state.tables["nodes"])
        wants = ask.query.get("resources") == "true"
        rows = sorted(self._state.nodes.values(), key=lambda one: one.id)
        return self._list([one.stub(resources=wants) for one in rows], ask, "nodes")

    def node(self, ask: Ask, node_id: str) -> Reply:
        node = self._node(node_id)
        return Reply(value=node.document(), index=node.modify_index, read=True)

    def drain(self, ask: Ask, node_id: str) -> Reply:
        node = self._node(node_id)
        spec = ask.body.get("DrainSpec")
        if spec is None:
            index = self._sim.end_drain(node, eligible=bool(ask.body.get("MarkEligible")))
            return Reply(
                value={"EvalCreateIndex": 0, "EvalIDs": None, "Index": index, "NodeModifyIndex": index}, index=index
            )
        started = moment(self._sim.clock.now() // SECOND * SECOND)
        node.last_drain = {
            "AccessorID": "token:acls-disabled",
            "Meta": ask.body.get("Meta"),
            "StartedAt": started,
            "Status": "draining",
            "UpdatedAt": started,
        }
        index = self._sim.begin_drain(node, int(spec.get("Deadline") or 0))
        return Reply(
            value={"EvalCreateIndex": 0, "EvalIDs": None, "Index": index, "NodeModifyIndex": index}, index=index
        )

    def eligibility(self, ask: Ask, node_id: str) -> Reply:
        node = self._node(node_id)
        node.eligible = ask.body["Eligibility"] == "eligible"
        index = self._state.commit("NodeEligibility", [node])
        self._sim.scheduler.unblock()
        return Reply(value={"EvalCreateIndex": 0, "EvalIDs": None, "Index": index, "NodeModifyIndex": 0}, index=index)

    # Variables.

    def variables(self, ask: Ask) -> Reply:
        prefix = ask.query.get("prefix", "")
        found = [
            {key: value for key, value in row.items() if key != "Items"}
            for (namespace, path), row in sorted(self._state.variables.items())
            if path.startswith(prefix) and ask.namespace in ("*", namespace)
        ]
        return self._list(found, ask, "variables")

    def variable(self, ask: Ask, path: str) -> Reply:
        found = self._state.variables.get((ask.namespace, path))
        if found is None:
            raise RefusedError(404, "variable not found", self._state.tables["variables"], read=True)
        return Reply(value=found, index=found["ModifyIndex"], read=True)

    def put_variable(self, ask: Ask, path: str) -> Reply:
        items = ask.body["Items"]
        if sum(len(key) + len(value) for key, value in items.items()) > MOST_VARIABLE:
            raise RefusedError(400, "RPC Error:: 400,variables are limited to 64KiB in total size", 0)
        known = self._state.variables.get((ask.namespace, path))
        self._compare(ask, known, path)
        index, now = self._state.commit_table("variables"), self._sim.clock.now()
        made = {
            "CreateIndex": known["CreateIndex"] if known else index,
            "CreateTime": known["CreateTime"] if known else now,
            "Items": items,
            "ModifyIndex": index,
            "ModifyTime": now,
            "Namespace": ask.namespace,
            "Path": path,
        }
        self._state.variables[(ask.namespace, path)] = made
        self._sim.variable_changed()
        return Reply(value=made, index=index)

    def delete_variable(self, ask: Ask, path: str) -> Reply:
        self._compare(ask, self._state.variables.get((ask.namespace, path)), path)
        self._state.variables.pop((ask.namespace, path), None)
        return Reply(204, index=self._state.commit_table("variables"))

    def _compare(self, ask: Ask, known: Json | None, path: str) -> None:
        """Compare and set: the index that the caller believes a variable to have, 0 for none."""
        if "cas" in ask.query and int(ask.query["cas"]) != (known["ModifyIndex"] if known else 0):
            nothing = {"CreateIndex": 0, "CreateTime": 0, "Items": {}, "ModifyIndex": 0, "ModifyTime": 0}
            held = known or {**nothing, "Namespace": ask.namespace, "Path": path}
            raise RefusedError(409, json.dumps(held), held["ModifyIndex"])

    # The cluster.

    def token_self(self, ask: Ask) -> Reply:
        token = self._sim.tokens.get(ask.token)
        name, policies = ("ACLs disabled token", None) if not self._sim.tokens else ("Anonymous Token", ["anonymous"])
        accessor = "acls-disabled" if not self._sim.tokens else "anonymous"
        shown: Json = {
            "AccessorID": accessor,
            "CreateIndex": 0,
            "CreateTime": _ZERO,
            "ExpirationTTL": "",
            "ExpirationTime": None,
            "Global": False,
            "Hash": None,
            "ModifyIndex": 0,
            "Name": name,
            "Policies": policies,
            "Roles": None,
            "SecretID": "",
            "Type": "client",
        }
        if token is not None:
            return Reply(value={**shown, **token, "SecretID": ask.token}, index=1, read=True)
        if ask.token and self._sim.tokens:
            raise RefusedError(403, "Permission denied")
        return Reply(value=shown, index=0, read=True)

    def leader(self, ask: Ask) -> Reply:
        return Reply(value="127.0.0.1:4647")

    def namespaces(self, ask: Ask) -> Reply:
        shown = [{"CreateIndex": 1, "ModifyIndex": 1, "Name": name} for name in sorted(self._sim.namespaces)]
        return Reply(value=shown, index=1, read=True)

    def collect(self, ask: Ask) -> Reply:
        self._sim.collect()
        return Reply()

    def configure(self, ask: Ask) -> Reply:
        self._sim.scheduler.preempts = bool((ask.body.get("PreemptionConfig") or {}).get("BatchSchedulerEnabled"))
        index = self._state.commit_table("jobs")
        return Reply(value={"Index": index, "Updated": True}, index=index)

    def _list(self, rows: list[Json], ask: Ask, table: str) -> Reply:
        if expression := ask.query.get("filter"):
            try:
                rows = [row for row in rows if parse_filter(expression)(row)]
            except FilterError as error:
                text = "failed to create result paginator: failed to read filter expression"
                raise RefusedError(400, f"{text}: {error}") from error
        reply = page(rows, ask, by_index if table in ("allocs", "evals") else by_name)
        reply.index = self._state.tables[table]
        return reply

    def _job(self, ask: Ask, job_id: str, index_of: Callable[[Job], int]) -> Job:
        def index() -> int:
            found = self._state.jobs.get((ask.namespace, job_id))
            return index_of(found) if found else self._state.tables["jobs"]

        blocking(self._sim, ask, index)
        job = self._state.jobs.get((ask.namespace, job_id))
        if job is None:
            raise RefusedError(404, "job not found", self._state.tables["jobs"], read=True)
        return job

    def _alloc(self, alloc_id: str) -> Allocation:
        if len(alloc_id) != 36:
            raise RefusedError(500, "alloc lookup failed: index error: UUID must be 36 characters")
        alloc = self._state.allocs.get(alloc_id)
        if alloc is None:
            raise RefusedError(404, "alloc not found", self._state.tables["allocs"], read=True)
        return alloc

    def _node(self, node_id: str) -> Node:
        node = self._state.nodes.get(node_id)
        if node is None:
            raise RefusedError(404, "node not found", self._state.tables["nodes"], read=True)
        return node


_HEALTH = {"client": {"message": "ok", "ok": True}, "server": {"message": "ok", "ok": True}}


def _undispatchable(rules: Json, payload: bytes, meta: dict[str, Any]) -> str:
    required, optional = rules["MetaRequired"] or [], rules["MetaOptional"] or []
    if len(payload) > MOST_PAYLOAD:
        return f"Payload exceeds maximum size; {len(payload)} > {MOST_PAYLOAD}"
    if unknown := [key for key in meta if key not in required and key not in optional]:
        return f"Dispatch request included unpermitted metadata keys: [{' '.join(unknown)}]"
    if missing := [key for key in required if key not in meta]:
        return f"Dispatch did not provide required meta keys: [{' '.join(missing)}]"
    return ""


def _dispatched(child: Job, evaluation: str, index: int, created: int) -> Reply:
    shown = {"DispatchedJobID": child.id, "EvalCreateIndex": created, "EvalID": evaluation}
    return Reply(value={**shown, "Index": index, "JobCreateIndex": child.create_index}, index=index)
