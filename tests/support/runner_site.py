"""A real server with one started runner, which the test is."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx

from albatros import __version__
from albatros.db import logs
from albatros.db.session import Database
from albatros.db.writer import Writer
from albatros.domain.references import digest_of
from albatros.domain.states import AttemptState, Reason
from albatros.flows import settle
from albatros.forges.base import ForgeAdapter
from albatros.http.app import create_app
from albatros.http.deps import AppContext
from albatros.http.serving import WebServer, bind
from tests.support.flows import Runner, World, settings_of
from tests.support.stores import MemoryStore
from tests.support.web import Bundle

LIMITS = {"output_bytes": 1 << 20, "log_bytes": 100_000, "lease_seconds": 30}


@dataclass
class Site:
    """A server with one started runner."""

    world: World
    build: int
    runner: Runner
    address: tuple[str, int]
    client: httpx.Client
    context: AppContext

    @property
    def store(self) -> MemoryStore:
        return cast("MemoryStore", self.world.store)

    def post(self, call: str, body: object, token: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token or self.runner.token}"}
        return self.client.post(f"/runner/v1/{call}", json=body, headers=headers)

    def claim(self, **changes: object) -> httpx.Response:
        body: dict[str, object] = {
            "protocol": 1,
            "nonce": self.runner.nonce,
            "host": "a-host",
            "pid": 1,
            "allocation": None,
        }
        return self.post("claim", body | changes)

    def put(self, path: str, data: "bytes | Iterator[bytes]", nonce: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.runner.token}", "X-Albatros-Nonce": nonce or self.runner.nonce}
        return self.client.put(f"/runner/v1/{path}", content=data, headers=headers)

    def log(self, seq: int, offset: int, data: bytes) -> httpx.Response:
        return self.put(f"log/{seq}?offset={offset}", data)

    def upload(self, data: bytes, digest: str = "") -> httpx.Response:
        return self.put(f"blobs/{digest or digest_of(data)}", data)

    def query(self, *blobs: object) -> httpx.Response:
        return self.post("blobs/query", {"nonce": self.runner.nonce, "blobs": list(blobs)})

    def result(self, **changes: object) -> httpx.Response:
        body: dict[str, object] = {
            "nonce": self.runner.nonce,
            "outcome": "succeeded",
            "reason": None,
            "message": "",
            "outputs": [],
        }
        return self.post("result", body | changes)

    def whole_log(self) -> bytes:
        return b"".join(logs.stream(self.world.database, self.world.store, self.runner.attempt_id))

    def end(self, state: AttemptState = AttemptState.LOST) -> None:
        world = self.world
        settle.close_attempt(
            world.database,
            world.signals,
            world.settings.limits,
            self.runner.attempt_id,
            state,
            Reason.NODE_LOST,
            "gone",
        )


@contextmanager
def serve_runner(database: Database, data: Path, **changes: object) -> Iterator[Site]:
    """Answer calls until the block ends; `changes` are to the settings."""
    world = World(database, settings_of(data, limits=LIMITS, **changes))
    sock = bind("127.0.0.1:0")
    address = sock.getsockname()
    writer = Writer(database, world.signals)
    forges = cast("dict[str, ForgeAdapter]", {"home": world.forge})
    context = AppContext(world.settings, database, world.store, forges, writer, world.signals, Bundle(), __version__)
    server = WebServer(create_app(context), sock)
    server.start()
    build = world.build()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{address[1]}", timeout=60) as client:
            yield Site(world, build, world.dispatch_one(), address, client, context)
    finally:
        server.stop()
        writer.close()


def problem(answer: httpx.Response, status: int, says: str = "") -> dict[str, object]:
    """Check that an answer is a problem of this status, and give it back."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, object] = answer.json()
    assert found["status"] == status
    assert says in str(found["detail"])
    return found
