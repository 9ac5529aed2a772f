"""What runners call, over HTTP: every answer that docs/reference/runner-protocol.md promises."""

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from albatros.db.session import Database
from albatros.domain.references import Digest, digest_of
from albatros.domain.states import BuildState, JobState
from albatros.flows import plan
from albatros.flows.cancel import cancel
from tests.support.flows import output_of, package
from tests.support.runner_site import Site, problem, serve_runner
from tests.support.web import Bundle


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Iterator[Site]:
    with serve_runner(database, tmp_path) as served:
        yield served


@pytest.fixture
def claimed(site: Site) -> Site:
    assert site.claim().status_code == 200
    return site


PIECE = 64 << 10


def test_the_runner_itself_is_open_to_all(site: Site) -> None:
    answer = site.client.get("/runner/albatros-runner.pyz")
    assert (answer.status_code, answer.content) == (200, Bundle().content)
    assert answer.headers["etag"] == f'"{Bundle().digest}"'


def test_claiming(site: Site) -> None:
    answer = site.claim()
    assert answer.status_code == 200
    order = answer.json()
    assert (order["protocol"], order["attempt"], order["kind"]) == (1, site.runner.attempt_id, "evaluation")
    assert site.claim().json() == order
    problem(site.claim(nonce="f" * 32), 409, "another runner")
    problem(site.claim(protocol=2), 426, "the runner speaks protocol 2, this server 1")
    problem(site.post("claim", {"protocol": 1, "nonce": "f" * 32}, "nobody"), 401, "belongs to no attempt")
    site.end()
    problem(site.claim(), 410, "closed (lost)")


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Basic eDp5"])
def test_without_a_token_nothing_is_heard(site: Site, authorization: str | None) -> None:
    header = {} if authorization is None else {"Authorization": authorization}
    calls: dict[tuple[str, str], dict[str, str]] = {
        ("POST", "claim"): {},
        ("POST", "heartbeat"): {},
        ("POST", "blobs/query"): {},
        ("POST", "result"): {},
        ("PUT", "log/0?offset=0"): {"X-Albatros-Nonce": site.runner.nonce},
        ("PUT", f"blobs/{digest_of(b'')}"): {"X-Albatros-Nonce": site.runner.nonce},
    }
    for (method, path), more in calls.items():
        answer = site.client.request(method, f"/runner/v1/{path}", content=b"{}", headers={**header, **more})
        problem(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("nonce", [None, 3, "", "f" * 31, "F" * 32, "f" * 33, "f" * 32 + "\n", ["f" * 32]])
def test_a_nonce_is_32_digits(site: Site, nonce: object) -> None:
    problem(site.claim(nonce=nonce), 400, "32 lower-case hexadecimal digits")
    problem(site.post("heartbeat", {"nonce": nonce}), 400)
    problem(site.post("result", {"nonce": nonce}), 400)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "not an object"),
        (b'"x"', "not an object"),
        (b"\xff\xfe", "not JSON"),
        (b'{"nonce": NaN}', "NaN is no JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a": ' + b"[" * 7000, "not JSON"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "more than 16 levels"),
    ],
)
def test_a_body_that_is_no_object_is_refused(site: Site, body: bytes, says: str) -> None:
    headers = {"Authorization": f"Bearer {site.runner.token}"}
    for call in ("claim", "heartbeat", "blobs/query", "result"):
        problem(site.client.post(f"/runner/v1/{call}", content=body, headers=headers), 400, says)


def test_bodies_have_limits_of_their_own(claimed: Site) -> None:
    long = {"nonce": claimed.runner.nonce, "x": "x" * (20 << 10)}
    problem(claimed.post("heartbeat", long), 413)
    problem(claimed.claim(host="x" * (20 << 10)), 413)
    problem(claimed.post("blobs/query", long | {"x": "x" * (300 << 10)}), 413)
    problem(claimed.post("result", long | {"x": "x" * (17 << 20)}), 413)


def test_a_large_body_is_taken_from_nobody_unknown(site: Site) -> None:
    """The refusal comes before the body: nothing but its first bytes is ever sent here."""
    head = (
        "POST /runner/v1/result HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer nobody\r\nContent-Length: 16000000\r\n\r\n"
    )
    with socket.create_connection(site.address, timeout=60) as connection:
        connection.sendall(head.encode() + b"{")
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_heartbeats(claimed: Site) -> None:
    beat = {"nonce": claimed.runner.nonce}
    assert claimed.post("heartbeat", beat).json() == {"lease_seconds": 30, "stop": None}
    problem(claimed.post("heartbeat", {"nonce": "f" * 32}), 409, "not claimed by this runner")
    cancel(claimed.world.database, claimed.world.signals, claimed.build, by="me")
    assert claimed.post("heartbeat", beat).json() == {"lease_seconds": 30, "stop": "cancelled"}
    claimed.end()
    problem(claimed.post("heartbeat", beat), 410, "end at once")


def test_a_log_is_sent_in_pieces(claimed: Site) -> None:
    assert claimed.log(0, 0, b"one\n").status_code == 204
    assert claimed.log(1, 4, b"two\n").status_code == 204
    assert claimed.log(0, 0, b"one\n").status_code == 204, "a piece that is there already"
    assert problem(claimed.log(4, 100, b"x"), 409, "send piece 2 first")["expected"] == 2
    problem(claimed.log(2, 9, b"x"), 400, "ends at byte 8")
    assert claimed.whole_log() == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("log/0?offset=0", PIECE, 204),
        ("log/0?offset=0", PIECE + 1, 413),
        ("log/0?offset=0", 0, 400),
        ("log/-1?offset=0", 1, 400),
        ("log/0?offset=-1", 1, 400),
        ("log/0?offset=200000", 1, 413),
        (f"log/0?offset={10**40}", 1, 413),
        (f"log/{10**40}?offset=0", 1, 413),
        ("log/100000000?offset=0", 1, 413),
        ("log/0", 1, 400),
        ("log/x?offset=0", 1, 400),
        ("log/0?offset=x", 1, 400),
    ],
)
def test_a_piece_that_cannot_be_is_refused(claimed: Site, path: str, size: int, status: int) -> None:
    answer = claimed.put(path, b"x" * size)
    if status == 204:
        assert answer.status_code == 204
        return
    problem(answer, status)
    assert claimed.whole_log() == b""


def test_a_log_ends_with_its_attempt(claimed: Site) -> None:
    claimed.log(0, 0, b"one\n")
    problem(claimed.put("log/1?offset=4", b"x", nonce="f" * 32), 409)
    claimed.end()
    problem(claimed.log(1, 4, b"late"), 410)
    assert claimed.whole_log() == b"one\n"


def test_a_nonce_is_needed_beside_the_token(claimed: Site) -> None:
    headers = {"Authorization": f"Bearer {claimed.runner.token}"}
    problem(claimed.client.put("/runner/v1/log/0?offset=0", content=b"x", headers=headers), 400, "x-albatros-nonce")
    problem(claimed.put(f"blobs/{digest_of(b'x')}", b"x", nonce="f" * 32), 409)
    assert claimed.store.blobs == {}


def test_results(claimed: Site) -> None:
    evaluation = {"config": None, "commit_time": 1, "attributes": [package("hello")]}
    problem(claimed.result(outcome="fine"), 400, "outcome must be")
    problem(claimed.result(outcome="failed", reason="bored"), 400, "reason must be")
    assert claimed.result(evaluation=evaluation).json() == {}
    assert claimed.result(evaluation=evaluation).status_code == 200, "the same again"
    problem(claimed.result(evaluation=None), 410)
    problem(claimed.post("result", {"nonce": "f" * 32, "outcome": "succeeded"}), 409)
    assert claimed.world.jobs(claimed.build)["evaluation"].state is JobState.SUCCEEDED


def test_a_result_after_the_end_is_gone(claimed: Site) -> None:
    claimed.end()
    problem(claimed.result(outcome="failed", reason="timeout"), 410, "closed (lost)")


def test_a_build_over_http(claimed: Site) -> None:
    claimed.result(evaluation={"config": None, "commit_time": 1, "attributes": [package("hello")]})
    plan.plan_due(claimed.world.database, claimed.world.signals, claimed.world.settings.limits)
    site = replace(claimed, runner=claimed.world.dispatch_one())
    order = site.claim().json()
    assert order["build"]["attribute"] == "packages.x86_64-linux.hello"
    digest = site.upload(b"the output").json()["digest"]
    site.log(0, 0, b"building\n")
    file = {"path": "", "kind": "file", "digest": digest, "size": 999, "executable": False}
    assert site.result(outputs=[output_of([file])], nix_version="2.8.0", log_pieces=1, log_bytes=9).status_code == 200
    (artifact,) = site.world.artifacts(site.build)
    assert artifact.size == 10, "counted here, whatever the runner says"
    with site.world.store.open(Digest(artifact.digest)) as stored:
        assert stored.read() == b"the output"
    site.world.finish()
    assert site.world.state(site.build) is BuildState.SUCCEEDED


def test_hostile_text_is_kept_out_of_the_database(claimed: Site) -> None:
    message = json.loads('"\\u0000 \\ud800 \\u001b[31m"')
    body = {"nonce": claimed.runner.nonce, "outcome": "failed", "reason": "build_failed", "message": message}
    answer = claimed.client.post(
        "/runner/v1/result",
        content=json.dumps(body | {"nix_version": message}),
        headers={"Authorization": f"Bearer {claimed.runner.token}"},
    )
    assert answer.status_code == 200, answer.text
    assert claimed.world.jobs(claimed.build)["evaluation"].message == "\ufffd \ufffd "
