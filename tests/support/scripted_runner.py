"""Runners for the simulated Nomad that speak the runner's protocol over HTTP, and do what a test says in no time.

Each evaluation finds one package, and each build of that gives one file. What they were given to do is written down:
the order of an Attempt is for one of them alone.
"""

import io
import json
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from albatros.domain.references import digest_of
from albatros.runner.failure import LeaseLostError
from albatros.runner.protocol import Server
from tests.support.flakes import AMD64, IMAGE_CONFIG, elf
from tests.support.flows import output_of, package
from tests.support.nomad_sim_tasks import TaskContext

LOST = 3
PATIENCE = 60


@dataclass(frozen=True, slots=True)
class Given:
    """An order: of which Attempt, to which allocation, under which nonce."""

    attempt: str
    allocation: str
    nonce: str
    kind: str


@dataclass
class ScriptedRunners:
    """`function` is the task; runners wait before each step that has a closed gate: `claim`, `work` or `result`."""

    given: list[Given] = field(default_factory=list)
    reported: list[Given] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    """Steps at whose gates somebody stood."""
    gates: dict[str, threading.Event] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def close_gate(self, step: str) -> threading.Event:
        """Let runners wait before this step of a build until the event is set."""
        self.gates[step] = threading.Event()
        return self.gates[step]

    def function(self, context: TaskContext) -> int:
        """One runner, from its claim to its result."""
        environment = context.environment
        token = Path(environment["ALBATROS_TOKEN_FILE"]).read_text()
        server = Server(environment["ALBATROS_URL"], token, uuid.uuid4().hex, allowance=PATIENCE)
        # Nomad's word to end also ends the tries to reach a server, which would outlast the test.
        server.lost = context.stop
        try:
            return self._run(context, server)
        except LeaseLostError as lost:
            context.log("stderr", f"{lost}\n".encode())
            return LOST
        finally:
            server.hang_up()

    def _run(self, context: TaskContext, server: Server) -> int:
        allocation = context.environment["NOMAD_ALLOC_ID"]
        self._pass(context, server, "claim", claimed=False)
        order = server.claim("a-node", 1, allocation)
        got = Given(str(order["attempt"]), allocation, server.nonce, str(order["kind"]))
        with self.lock:
            self.given.append(got)
        if got.kind == "build":
            self._pass(context, server, "work", claimed=True)
        data = json.dumps([got.attempt, got.allocation]).encode()
        report = self._evaluated() if got.kind == "evaluation" else self._built(server, order)
        pieces = server.put_log(0, 0, data)
        if got.kind == "build":
            self._pass(context, server, "result", claimed=True)
        server.result({**report, "log_pieces": pieces, "log_bytes": len(data)})
        with self.lock:
            self.reported.append(got)
        return 0

    def _pass(self, context: TaskContext, server: Server, step: str, *, claimed: bool) -> None:
        gate = self.gates.get(step)
        if gate is None:
            return
        with self.lock:
            self.waiting.append(step)
        while not gate.wait(0.3):
            if context.stop.is_set():
                raise LeaseLostError("Nomad ends it.")
            if claimed:
                server.heartbeat()

    def _evaluated(self) -> dict[str, object]:
        evaluation = {"config": IMAGE_CONFIG, "commit_time": 1_700_000_000, "attributes": [package("hello")]}
        return {**_SUCCEEDED, "evaluation": evaluation, "outputs": []}

    def _built(self, server: Server, order: dict[str, object]) -> dict[str, object]:
        build = cast("dict[str, list[str]]", order["build"])
        data = elf(AMD64, "hello")
        digest = digest_of(data)
        if server.missing_blobs([(digest, len(data))]):
            server.put_blob(digest, _Bytes(data))
        files = [
            {
                "path": path,
                "kind": "binary" if path else "file",
                "digest": digest,
                "size": len(data),
                "executable": True,
            }
            for path in build["binaries"] or [""]
        ]
        return {**_SUCCEEDED, "evaluation": None, "outputs": [output_of(files)]}


_SUCCEEDED: dict[str, object] = {"outcome": "succeeded", "reason": None, "message": "", "nix_version": "2.0"}


class _Bytes:
    """A body in memory."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    def open(self) -> BinaryIO:
        return io.BytesIO(self._data)
