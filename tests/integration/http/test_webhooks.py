"""POST /webhooks/{forge} over real HTTP, with deliveries recorded from a real Gitea."""

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import func, select

from albatros.db.models import Base, Build, Counter, Delivery
from albatros.db.session import Database
from albatros.db.signals import Signals
from albatros.db.writer import Writer
from albatros.forges.gitea import GiteaForge
from albatros.http import webhooks
from albatros.http.app import create_app
from albatros.http.deps import AppContext
from albatros.http.serving import WebServer, bind
from albatros.settings import ForgeKind, ForgeSettings, LimitSettings, Settings
from tests.support.forge_worlds import sign
from tests.support.recorded import recorded as file_of
from tests.support.stores import MemoryStore
from tests.support.web import Bundle

LIMIT = 2_000_000
NOT_SENT = {"host", "content-length", "accept-encoding"}


def recorded(name: str) -> tuple[dict[str, str], bytes]:
    headers, body = file_of(ForgeKind.GITEA, name)
    return {key: value for key, value in headers.items() if key.lower() not in NOT_SENT}, body


@dataclass(frozen=True)
class Server:
    """A running server with one forge, `recorded`, which lets every repo of alba build."""

    context: AppContext
    client: httpx.Client
    address: str


@pytest.fixture
def server(database: Database, tmp_path: Path) -> Iterator[Server]:
    forge = ForgeSettings(
        name="recorded",
        kind=ForgeKind.GITEA,
        url="http://127.0.0.1:1",
        webhook_secret=SecretStr("s3cret"),
        repos=("alba/*",),
    )
    settings = Settings(forges=(forge,), limits=LimitSettings(webhook_bytes=LIMIT))
    signals = Signals()
    writer = Writer(database, signals)
    forges = {"recorded": GiteaForge(forge)}
    context = AppContext(settings, database, MemoryStore(), forges, writer, signals, Bundle(), "0.0.0")
    sock = bind("127.0.0.1:0")
    address = f"127.0.0.1:{sock.getsockname()[1]}"
    web = WebServer(create_app(context), sock)
    web.start()
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=60) as client:
            yield Server(context, client, address)
    finally:
        web.stop()
        writer.close()


def post(server: Server, headers: dict[str, str], body: bytes, path: str = "/webhooks/recorded") -> httpx.Response:
    return server.client.post(path, content=body, headers=headers)


def count(database: Database, table: type[Base]) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_a_recorded_push_is_committed_before_the_202(server: Server, database: Database) -> None:
    headers, body = recorded("push")
    answer = post(server, headers, body)
    assert answer.status_code == 202
    value = answer.json()
    assert value["delivery"] == "94a7fec3-b31e-4da9-986a-05998ddb339a"
    assert value["reason"] == ""
    with database.read() as session:
        build = session.get_one(Build, value["builds"][0])
        assert (build.ref, build.commit) == ("refs/heads/feat", "2c30b63d8c7f9c3ae69965cc687aa4b054d4bec9")
        assert (build.author, build.title) == ("alba", "add b")
        delivery = session.scalars(select(Delivery).where(Delivery.delivery_id == value["delivery"])).one()
        assert delivery.body == body
    again = post(server, headers, body)
    assert (again.status_code, again.json()) == (200, value)


@pytest.mark.parametrize(
    ("name", "reason"), [("create", "push that comes with it"), ("pull_request", "could not be asked")]
)
def test_recorded_events_that_build_nothing(server: Server, database: Database, name: str, reason: str) -> None:
    builds = count(database, Build)
    answer = post(server, *recorded(name))
    assert answer.status_code == 202
    assert answer.json()["builds"] == []
    assert reason in answer.json()["reason"]
    assert count(database, Build) == builds


def test_a_wrong_signature_is_401_and_only_counted(server: Server, database: Database) -> None:
    headers, body = recorded("push")
    deliveries = count(database, Delivery)
    wrong = [{**headers, "X-Gitea-Signature": sign(body + b" ")}, {**headers, "X-Gitea-Signature": ""}]
    wrong.append({name: value for name, value in headers.items() if name != "X-Gitea-Signature"})
    for sent in wrong:
        answer = post(server, sent, body)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert "s3cret" not in answer.text
    server.context.writer.close()
    assert count(database, Delivery) == deliveries
    with database.read() as session:
        assert session.get_one(Counter, "webhooks_refused.recorded").value == 3


def test_unknown_forge_is_404(server: Server) -> None:
    headers, body = recorded("push")
    answer = post(server, headers, body, "/webhooks/nothing")
    assert answer.status_code == 404
    assert "[[forges]]" in answer.json()["detail"]


def test_a_form_is_400_and_says_what_to_set(server: Server) -> None:
    headers, body = recorded("push")
    answer = post(server, {**headers, "Content-Type": "application/x-www-form-urlencoded"}, body)
    assert answer.status_code == 400
    assert "application/json" in answer.json()["detail"]


def test_signed_garbage_is_400_and_writes_nothing(server: Server, database: Database) -> None:
    headers, _ = recorded("push")
    deliveries = count(database, Delivery)
    for body in (b"{", b"[]", b"\xff", json.dumps({"ref": "refs/heads/x", "repository": None}).encode()):
        answer = post(server, {**headers, "X-Gitea-Signature": sign(body)}, body)
        assert answer.status_code == 400
    assert count(database, Delivery) == deliveries


def test_a_body_over_the_limit_is_413(server: Server) -> None:
    headers, _ = recorded("push")
    assert post(server, headers, b" " * (LIMIT + 1)).status_code == 413

    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 100_000

    answer = server.client.post("/webhooks/recorded", content=endless(), headers=headers)
    assert answer.status_code == 413
    assert "webhook_bytes" in answer.json()["detail"]


def test_an_announced_length_is_refused_before_the_body(server: Server) -> None:
    connection = http.client.HTTPConnection(server.address, timeout=60)
    connection.putrequest("POST", "/webhooks/recorded")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(LIMIT + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_only_a_few_large_bodies_are_held_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "LARGE_BODIES", 0)
    headers, body = recorded("push")
    large = b'{"padding": "' + b"x" * webhooks.LARGE_BYTES + b'"}'
    answer = post(server, {**headers, "X-Gitea-Signature": sign(large)}, large)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert post(server, headers, body).status_code == 202


def test_a_writer_that_takes_nothing_more_is_503(server: Server) -> None:
    server.context.writer.close()
    answer = post(server, *recorded("push"))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


def test_the_address_picks_a_flavor(server: Server, database: Database) -> None:
    headers, body = recorded("push")
    answers = [post(server, headers, body, f"/webhooks/recorded{query}") for query in ("", "?flavor=nightly", "?x=1")]
    assert [answer.status_code for answer in answers] == [202, 202, 200]
    with database.read() as session:
        assert list(session.scalars(select(Build.flavor).order_by(Build.id))) == ["", "nightly"]


@pytest.mark.parametrize("flavor", ["Nightly", "a/b", "..", "x" * 33, "%00", "-x", "a%0Ab", "a&flavor=b"])
def test_a_flavor_that_is_none_is_refused_before_anything_is_read(
    server: Server, database: Database, flavor: str
) -> None:
    headers, body = recorded("push")
    assert post(server, headers, body, f"/webhooks/recorded?flavor={flavor}").status_code == 400
    assert count(database, Build) == count(database, Delivery) == 0
