"""The recorded exchanges with a real Nomad: who repeats them, and what has to be the same each time.

A scenario does to a Nomad, simulated or real, what was done when its exchanges were recorded; each has a name, which is
its file's in tests/fixtures/nomad-2.0.6.
"""

import base64
import http.client
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "nomad-2.0.6"
PATIENCE = 180
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
_DISPATCHED = re.compile(r"dispatch-\d+-[0-9a-f]{8}")
_COUNTERS = re.compile(r"(Index|Time|StatusUpdatedAt)$")
_ELSEWHERE = frozenset(
    {
        "Attributes",
        "CPU",
        "ClassEligibility",
        "Description",
        "Drivers",
        "Events of the node",
        "HTTPAddr",
        "Hash",
        "HostNetworks",
        "Meta of the node",
        "NodeName",
        "NodeResources",
        "ScoreMetaData",
        "Version",
    }
)
"""What tells of the machine, or of how a scheduler thought: only whether it is there is compared."""


class World(Protocol):
    """A Nomad, and what can be done to it."""

    @property
    def url(self) -> str: ...

    @property
    def token(self) -> str: ...

    def lose(self, name: str) -> None:
        """The client's agent dies; its tasks run on."""
        ...

    def bring_back(self, name: str) -> None:
        """The agent that died starts again."""
        ...

    def reboot(self, name: str) -> None:
        """The client's machine starts anew."""
        ...


@dataclass(frozen=True)
class Exchange:
    """One request and its answer, as a fixture has them."""

    request: Mapping[str, Any]
    response: Mapping[str, Any]


@dataclass
class Talk:
    """Says things to a Nomad and keeps what it answered under the fixture's name."""

    world: World
    kept: dict[str, Exchange] = field(default_factory=dict)

    def say(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Exchange:
        """One request."""
        connection = http.client.HTTPConnection(self.world.url.removeprefix("http://"), timeout=PATIENCE)
        text = None if body is None else json.dumps(body)
        try:
            connection.request(method, path, text, {"X-Nomad-Token": self.world.token if token is None else token})
            answer = connection.getresponse()
            data = answer.read().decode()
        finally:
            connection.close()
        headers = {name: value for name, value in answer.getheaders() if name.startswith("X-Nomad")}
        try:
            told = json.loads(data)
        except ValueError:
            told = data
        request = {"method": method, "path": path, "body": body}
        return Exchange(request, {"status": answer.status, "headers": headers, "body": told})

    def keep(self, name: str, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        """One request whose exchange has a name; what it was answered."""
        self.kept[name] = self.say(method, path, body, token=token)
        return self.kept[name].response["body"]

    def repeat(self, name: str, **names: str) -> Any:
        """A recorded request again; `names` fill in ids that are others each time."""
        request = recorded(name).request
        path, body = str(request["path"]), request["body"]
        if "alloc" in names:
            path = _UUID.sub(names["alloc"], path)
        if isinstance(body, dict) and str(body.get("Payload", "")).startswith("("):
            body = {**body, "Payload": base64.b64encode(bytes(17000)).decode()}
        return self.keep(name, str(request["method"]), path, body)

    def allocs(self, job: str) -> list[dict[str, Any]]:
        """A job's allocations."""
        found: list[dict[str, Any]] = self.say("GET", f"/v1/job/{job}/allocations?all=true").response["body"]
        return found

    def until(self, check: Callable[[], bool]) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + PATIENCE
        while not check():
            assert time.monotonic() < deadline, "it did not come to be"
            time.sleep(0.02)

    def until_state(self, job: str, *states: str) -> list[dict[str, Any]]:
        """Wait until a job's allocations are in these states, oldest first; those allocations."""
        self.until(lambda: [one["ClientStatus"] for one in self._oldest(job)] == list(states))
        return self._oldest(job)

    def until_ready(self, job: str) -> None:
        """Wait until a job's task says `ready`: before that it ends otherwise when it is told to."""
        alloc = self.until_state(job, "running")[0]["ID"]
        log = f"/v1/client/fs/logs/{alloc}?task=executor&type=stdout&plain=true"
        self.until(lambda: "ready" in str(self.say("GET", log).response["body"]))

    def _oldest(self, job: str) -> list[dict[str, Any]]:
        return sorted(self.allocs(job), key=lambda one: int(one["CreateIndex"]))


def recorded(name: str) -> Exchange:
    """A fixture."""
    told = json.loads((FIXTURES / f"{name}.json").read_text())
    return Exchange(told["request"], told["response"])


def write(name: str, exchange: Exchange) -> None:
    """Make a fixture."""
    told = {"request": exchange.request, "response": exchange.response}
    (FIXTURES / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n")


def job(name: str, script: str = "true", *, task: Any = None, group: Any = None, **top: Any) -> dict[str, Any]:
    """What registers a batch job of one task, as an executor would."""
    own = {
        "Name": "executor",
        "Driver": "raw_exec",
        "Config": {"command": "/bin/sh", "args": ["-c", script]},
        "Resources": {"CPU": 50, "MemoryMB": 32},
        "KillTimeout": 5_000_000_000,
        **(task or {}),
    }
    never = {"Attempts": 0, "Mode": "fail"}, {"Attempts": 0, "Unlimited": False}
    one = {"Name": "runner", "Count": 1, "RestartPolicy": never[0], "ReschedulePolicy": never[1], "Tasks": [own]}
    given = {"ID": name, "Name": name, "Type": "batch", "Datacenters": ["*"], "Meta": {"attempt": name}}
    return {
        "Job": {**given, "TaskGroups": [{**one, **(group or {})}], **top},
        "EnforceIndex": True,
        "JobModifyIndex": 0,
    }


def shape(value: Any, key: str = "") -> Any:
    """What must be the same each time: ids, times and counters are only there or not, and 0 is not."""
    if key in _ELSEWHERE:
        return value is not None
    if isinstance(value, dict):
        return {name: shape(one, name) for name, one in value.items()}
    if isinstance(value, list):
        rows = value
        if value and isinstance(value[0], dict) and "CreateIndex" in value[0]:
            # Evaluations come by their ids, which are others each time.
            rows = sorted(value, key=lambda row: int(row["CreateIndex"]))
        return [shape(one) for one in rows]
    if isinstance(value, int) and not isinstance(value, bool) and _COUNTERS.search(key):
        return "0" if value == 0 else "a number"
    if isinstance(value, str):
        if key == "X-Nomad-Index":
            return "0" if value == "0" else "a number"
        text = _UUID.sub("UUID", _MOMENT.sub("TIME", _DISPATCHED.sub("dispatch-ID", value)))
        return re.sub(r"\d+\.UUID", "N.UUID", re.sub(r"index: \d+$", "index: N", text))
    return value
