"""The scenarios whose exchanges tests/fixtures/nomad-2.0.6 holds; each takes a fresh Nomad of one or two clients."""

from typing import Any
from urllib.parse import quote

from tests.support.nomad_exchanges import Talk, job

SECOND = 1_000_000_000
DAY = 24 * 3600 * SECOND
NOBODY = "11111111-1111-1111-1111-111111111111"
WAITS = {"Disconnect": {"LostAfter": DAY, "Replace": False, "Reconcile": "keep_original"}}


def ends_of_jobs(talk: Talk) -> None:
    """A job that ends well, one that fails, one that cannot start, one that is stopped, one that takes too long."""
    talk.repeat("deregister-missing")
    talk.repeat("register-ok")
    talk.repeat("job-missing")
    talk.repeat("register-repeated")
    alloc = talk.until_state("alb-ok", "complete")[0]["ID"]
    talk.repeat("allocations-complete")
    talk.until(lambda: bool(talk.repeat("job-dead")["Status"] == "dead"))
    talk.repeat("logs-plain", alloc=alloc)
    talk.repeat("logs-frames", alloc=alloc)
    for name, told, allocations in (
        ("register-fail", "alb-fail", "allocations-failed-exit-7"),
        ("register-driver-failure", "alb-nocmd", "allocations-driver-failure"),
    ):
        talk.repeat(name)
        talk.until_state(told, "failed")
        talk.repeat(allocations)
    talk.repeat("register-sleep")
    talk.until_ready("alb-stop")
    talk.repeat("deregister")
    talk.until_state("alb-stop", "complete")
    talk.repeat("allocations-stopped")
    talk.repeat("register-max-run-duration")
    talk.until_state("alb-max", "complete")
    talk.repeat("allocations-max-run-duration")
    talk.repeat("nodes")
    talk.repeat("jobs-prefix")
    talk.repeat("purge")
    talk.keep("job-purged", "GET", "/v1/job/alb-ok")
    talk.keep("allocations-purged", "GET", "/v1/job/alb-ok/allocations?all=true")
    talk.keep("allocation-purged", "GET", f"/v1/allocation/{alloc}")


def _wait_for_block(talk: Talk, name: str) -> None:
    talk.until(lambda: _waits(talk, name))


def no_place(talk: Talk) -> None:
    """Jobs that nobody can run, and those that are refused."""
    for name, told, answer in (
        ("register-no-capacity", "alb-big", "evaluations-no-capacity"),
        ("register-filtered", "alb-arm", "evaluations-filtered"),
    ):
        talk.repeat(name)
        _wait_for_block(talk, told)
        talk.repeat(answer)
    talk.repeat("job-pending")
    talk.keep("register-unknown-driver", "POST", "/v1/jobs", job("alb-driver", task={"Driver": "nope"}))
    talk.until(lambda: _waits(talk, "alb-driver"))
    talk.keep("evaluations-missing-driver", "GET", "/v1/job/alb-driver/evaluations")
    for name, path, body in (
        ("register-nothing", "/v1/jobs", {}),
        ("register-nameless", "/v1/jobs", {"Job": {"Name": "x"}}),
        ("register-no-group", "/v1/jobs", {"Job": {"ID": "x"}}),
        ("register-unknown-pool", "/v1/jobs", job("x", NodePool="nope")),
        ("register-unknown-namespace", "/v1/jobs?namespace=nope", job("x")),
        ("register-unknown-region", "/v1/jobs?region=nope", job("x")),
        ("register-conflict", "/v1/jobs", {**job("alb-big"), "JobModifyIndex": 1}),
        ("register-index-of-nothing", "/v1/jobs", {**job("x"), "JobModifyIndex": 5}),
    ):
        talk.keep(name, "POST", path, body)


def no_place_of_two(talk: Talk) -> None:
    """Two nodes that are alike: the second is not asked again."""
    constraint = {"LTarget": "${meta.nix_system}", "RTarget": "aarch64-linux", "Operand": "="}
    talk.say("POST", "/v1/jobs", job("alb-arm", Constraints=[constraint]))
    talk.until(lambda: _waits(talk, "alb-arm"))
    talk.keep("evaluations-filtered-two-nodes", "GET", "/v1/job/alb-arm/evaluations")


def dispatches(talk: Talk) -> None:
    """A parameterized job."""
    talk.keep("dispatch-missing-job", "POST", "/v1/job/none/dispatch", {})
    for name in ("register-parameterized", "dispatch"):
        talk.repeat(name)
    child = talk.kept["dispatch"].response["body"]["DispatchedJobID"]
    for name in ("dispatch-repeated", "dispatch-missing-meta", "dispatch-payload-too-large", "dispatch-unknown-meta"):
        talk.repeat(name)
    assert talk.kept["dispatch-repeated"].response["body"]["DispatchedJobID"] == child
    alloc = talk.until_state(quote(child, safe=""), "complete")[0]["ID"]
    log = f"/v1/client/fs/logs/{alloc}?task=executor&type=stdout&plain=true"
    talk.keep("logs-dispatched", "GET", log)


def lookups(talk: Talk) -> None:
    """What is not there, what is asked wrongly, and lists in pages."""
    for name, path in (
        ("allocation-missing", f"/v1/allocation/{NOBODY}"),
        ("allocation-no-id", "/v1/allocation/zz"),
        ("evaluation-missing", f"/v1/evaluation/{NOBODY}"),
        ("node-missing", f"/v1/node/{NOBODY}"),
        ("logs-missing", f"/v1/client/fs/logs/{NOBODY}?task=executor&type=stdout"),
        ("allocations-of-nothing", "/v1/job/none/allocations?all=true"),
        ("evaluations-of-nothing", "/v1/job/none/evaluations"),
        ("summary-of-nothing", "/v1/job/none/summary"),
        ("allocations-bad-page", "/v1/allocations?per_page=x"),
        ("jobs-unknown-namespace", "/v1/jobs?namespace=nope"),
        ("token-self-without-acl", "/v1/acl/token/self"),
    ):
        talk.keep(name, "GET", path)
    for number, script in enumerate(("echo one", "sleep 300"), start=1):
        talk.say("POST", "/v1/jobs", job(f"alb-{number}", script))
    talk.until_state("alb-1", "complete")
    alloc = talk.until_state("alb-2", "running")[0]["ID"]
    first = talk.keep("allocations-first-page", "GET", "/v1/allocations?per_page=1&task_states=false")
    assert len(first) == 1
    pattern = quote('JobID matches "^alb-"')
    talk.keep("allocations-filtered", "GET", f"/v1/allocations?task_states=false&filter={pattern}")
    talk.keep("jobs-with-meta", "GET", "/v1/jobs?prefix=alb-&meta=true&filter=" + quote('Status != "dead"'))
    talk.keep("jobs-first-page", "GET", "/v1/jobs?per_page=1")
    talk.keep("evaluations-first-page", "GET", "/v1/evaluations?per_page=1&filter=" + quote('Status == "complete"'))
    talk.keep("allocation-running", "GET", f"/v1/allocation/{alloc}")
    talk.keep("job-running", "GET", "/v1/job/alb-2")
    for name, query in (
        ("logs-unknown-task", "task=none&type=stdout"),
        ("logs-no-task", "type=stdout"),
        ("logs-unknown-type", "task=executor&type=nope"),
    ):
        talk.keep(name, "GET", f"/v1/client/fs/logs/{alloc}?{query}")
    talk.keep("blocking-query-timed-out", "GET", "/v1/job/alb-2/allocations?index=1000000&wait=100ms")


def variables(talk: Talk) -> None:
    """Nomad Variables, compare and set, and a template that waits for one."""
    path = "/v1/var/nomad/jobs/alb-a"

    def put(token: str) -> dict[str, Any]:
        return {"Path": "nomad/jobs/alb-a", "Items": {"token": token}}

    talk.keep("variable-missing", "GET", path)
    talk.keep("variable-put", "PUT", f"{path}?cas=0", put("t1"))
    talk.keep("variable-conflict", "PUT", f"{path}?cas=0", put("t2"))
    talk.keep("variable", "GET", path)
    talk.keep("variables", "GET", "/v1/vars?prefix=nomad/jobs/")
    talk.keep("variable-delete", "DELETE", path)
    talk.keep("variable-delete-missing", "DELETE", path)
    large = {"Path": "nomad/jobs/alb-a", "Items": {"token": "x" * 70000}}
    talk.say("PUT", path, large)
    template = {
        "EmbeddedTmpl": '{{ with nomadVar "nomad/jobs/alb-tpl" }}{{ .token }}{{ end }}',
        "DestPath": "secrets/token",
        "ChangeMode": "noop",
        "Perms": "0600",
    }
    script = "cat ${NOMAD_SECRETS_DIR}/token"
    talk.say("POST", "/v1/jobs", job("alb-tpl", script, task={"Templates": [template]}))
    talk.until(lambda: "Template" in _kinds(talk, "alb-tpl"))
    talk.keep("allocations-template-waits", "GET", "/v1/job/alb-tpl/allocations?all=true")
    talk.say("PUT", "/v1/var/nomad/jobs/alb-tpl", {"Path": "nomad/jobs/alb-tpl", "Items": {"token": "s3cret"}})
    alloc = talk.until_state("alb-tpl", "complete")[0]["ID"]
    talk.keep("allocations-template-rendered", "GET", "/v1/job/alb-tpl/allocations?all=true")
    log = f"/v1/client/fs/logs/{alloc}?task=executor&type=stdout&plain=true"
    talk.keep("logs-template", "GET", log)


def by_hand(talk: Talk) -> None:
    """An operator restarts an allocation, stops it, and collects what is dead."""
    talk.say("POST", "/v1/jobs", job("alb-hand", "trap '' INT; sleep 300"))
    alloc = talk.until_state("alb-hand", "running")[0]["ID"]
    talk.keep("allocation-restart", "PUT", f"/v1/client/allocation/{alloc}/restart", {})
    talk.until(lambda: _kinds(talk, "alb-hand").count("Started") == 2)
    talk.until_state("alb-hand", "running")
    talk.keep("allocations-restarted", "GET", "/v1/job/alb-hand/allocations?all=true")
    talk.say("DELETE", "/v1/job/alb-hand")
    talk.until_state("alb-hand", "complete")
    talk.until(lambda: bool(talk.say("GET", "/v1/job/alb-hand").response["body"]["Status"] == "dead"))
    talk.keep("collect", "PUT", "/v1/system/gc")
    talk.until(lambda: talk.say("GET", "/v1/job/alb-hand").response["status"] == 404)
    talk.keep("job-collected", "GET", "/v1/job/alb-hand")
    talk.keep("allocations-collected", "GET", "/v1/job/alb-hand/allocations?all=true")


def lost_node(talk: Talk) -> None:
    """A client goes: an allocation without patience is replaced, one with patience is unknown, and comes back."""
    talk.say("POST", "/v1/jobs", job("alb-lost", "sleep 300"))
    alloc = talk.until_state("alb-lost", "running")[0]
    here = {"LTarget": "${node.unique.name}", "RTarget": alloc["NodeName"], "Operand": "="}
    talk.say("POST", "/v1/jobs", job("alb-waits", "sleep 300", group=WAITS, Constraints=[here]))
    talk.until_state("alb-waits", "running")
    talk.world.lose(alloc["NodeName"])
    talk.until_state("alb-lost", "lost", "running")
    talk.until_state("alb-waits", "unknown")
    lost = talk.keep("allocation-lost", "GET", f"/v1/allocation/{alloc['ID']}")
    assert lost["NextAllocation"] in {one["ID"] for one in talk.allocs("alb-lost")}
    talk.keep("allocations-unknown", "GET", "/v1/job/alb-waits/allocations?all=true")
    log = f"/v1/client/fs/logs/{talk.allocs('alb-waits')[0]['ID']}?task=executor&type=stdout"
    talk.until(lambda: talk.say("GET", log).response["status"] == 404)
    talk.keep("logs-no-path", "GET", log)
    talk.world.bring_back(alloc["NodeName"])
    talk.until(lambda: "Reconnected" in _kinds(talk, "alb-waits"))
    talk.until_state("alb-waits", "running")
    talk.keep("allocations-reconnected", "GET", "/v1/job/alb-waits/allocations?all=true")
    talk.until_state("alb-lost", "complete", "running")
    assert talk.say("GET", f"/v1/allocation/{alloc['ID']}").response["body"]["DesiredStatus"] == "stop"
    talk.world.reboot(alloc["NodeName"])
    talk.until(lambda: _kinds(talk, "alb-waits").count("Started") == 2)
    talk.until_state("alb-waits", "running")
    talk.keep("allocations-rebooted", "GET", "/v1/job/alb-waits/allocations?all=true")


def drained_node(talk: Talk) -> None:
    """A drain waits for a batch job, stops it at the deadline, and does not place it again."""
    talk.say("POST", "/v1/jobs", job("alb-drain", "sleep 300"))
    node = talk.until_state("alb-drain", "running")[0]["NodeID"]
    drain = {"DrainSpec": {"Deadline": SECOND, "IgnoreSystemJobs": False}, "Meta": {"why": "test"}}
    talk.keep("node-drain", "PUT", f"/v1/node/{node}/drain", drain)
    talk.until_state("alb-drain", "complete")
    talk.keep("allocations-drained", "GET", "/v1/job/alb-drain/allocations?all=true")
    talk.until(lambda: not talk.say("GET", f"/v1/node/{node}").response["body"]["Drain"])
    talk.keep("node-drained", "GET", f"/v1/node/{node}")
    eligible = {"DrainSpec": None, "MarkEligible": True}
    talk.say("PUT", f"/v1/node/{node}/drain", eligible)
    for word in ("ineligible", "eligible"):
        talk.say("PUT", f"/v1/node/{node}/eligibility", {"Eligibility": word})
    talk.keep("node", "GET", f"/v1/node/{node}")
    assert len(talk.allocs("alb-drain")) == 1


def preemption(talk: Talk) -> None:
    """An important job takes the place of another."""
    both = {"BatchSchedulerEnabled": True, "SystemSchedulerEnabled": True}
    talk.keep("scheduler-configuration", "PUT", "/v1/operator/scheduler/configuration", {"PreemptionConfig": both})
    (node,) = talk.say("GET", "/v1/nodes?resources=true").response["body"]
    most = {"Resources": {"CPU": 50, "MemoryMB": node["NodeResources"]["Memory"]["MemoryMB"] * 8 // 10}}
    talk.say("POST", "/v1/jobs", job("alb-low", "exec sleep 300", task=most, Priority=20))
    alloc = talk.until_state("alb-low", "running")[0]["ID"]
    talk.say("POST", "/v1/jobs", job("alb-high", "sleep 300", task=most, Priority=80))
    talk.until_state("alb-high", "running")
    talk.until_state("alb-low", "complete")
    told = talk.say("GET", f"/v1/allocation/{alloc}").response["body"]
    assert told["DesiredStatus"] == "evict"
    assert told["PreemptedByAllocation"] == talk.allocs("alb-high")[0]["ID"]
    assert told["DesiredDescription"] == f"Preempted by alloc ID {talk.allocs('alb-high')[0]['ID']}"
    talk.until(lambda: _waits(talk, "alb-low"))


def acls(talk: Talk) -> None:
    """With ACLs, and the management token, none, one that is none, and one that nobody has."""
    for name, token in (("management", None), ("anonymous", ""), ("unknown", NOBODY)):
        talk.keep(f"token-self-{name}", "GET", "/v1/acl/token/self", token=token)
        talk.keep(f"jobs-{name}", "GET", "/v1/jobs", token=token)
        talk.keep(f"register-{name}", "POST", "/v1/jobs", job("alb-acl"), token=token)


ONE_NODE = (ends_of_jobs, no_place, dispatches, lookups, variables, by_hand, preemption)
TWO_NODES = (no_place_of_two, lost_node, drained_node)


def _waits(talk: Talk, name: str) -> bool:
    told = talk.say("GET", f"/v1/job/{name}/evaluations").response["body"]
    done = any(one["Status"] == "complete" and "BlockedEval" in one for one in told)
    return done and any(one["Status"] == "blocked" for one in told)


def _kinds(talk: Talk, name: str) -> list[str]:
    states = (talk.allocs(name) or [{}])[0].get("TaskStates") or {}
    return [event["Type"] for state in states.values() for event in state["Events"]]
