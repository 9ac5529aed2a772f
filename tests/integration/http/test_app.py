"""The whole application: what is listed, what is open, what stands around every answer, and what hostile input gets."""

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import BaseRoute

from albatros.http.app import create_app
from tests.support.api import Api

OPEN = {"/webhooks/{forge}", "/healthz", "/readyz", "/metrics", "/badges/{forge}/{owner}/{name}.svg"}
"""Answered without a token; webhooks have their signature."""
WORDS = {"forge": "home", "owner": "alba", "name": "hello", "id": "1"}


def listed(api: Api) -> list[tuple[str, str]]:
    paths = api.anybody.get("/api/v1/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, item in paths.items() for method in item]


def routes(app: FastAPI) -> set[tuple[str, str]]:
    """Every route that is part of the API, however deep its router is included."""
    found: set[tuple[str, str]] = set()
    waiting: list[BaseRoute] = list(app.routes)
    while waiting:
        route = waiting.pop()
        waiting += getattr(getattr(route, "original_router", None), "routes", [])
        # The document has no converters: an owner of several parts is `{owner}` there too.
        path = getattr(route, "path", "").replace(":path}", "}")
        if path.startswith("/api/v1/") and getattr(route, "name", "") != "openapi":
            found |= {(method, path) for method in getattr(route, "methods", None) or () if method != "HEAD"}
    return found


def test_openapi_lists_every_route(api: Api) -> None:
    found = routes(create_app(api.context))
    assert len(found) > 15
    assert found - set(listed(api)) == set()


def test_every_endpoint_but_the_open_ones_refuses_who_sends_no_token(api: Api) -> None:
    answers = {
        (method, path): api.anybody.request(method, path.format(**WORDS), json={"ref": "main"})
        for method, path in listed(api)
        if path not in OPEN
    }
    assert len(answers) > 15
    assert {call: answer.status_code for call, answer in answers.items() if answer.status_code != 401} == {}
    assert all(answer.headers["www-authenticate"].startswith("Bearer") for answer in answers.values())


def test_every_change_refuses_a_token_that_may_only_read(api: Api) -> None:
    changes = [(method, path) for method, path in listed(api) if method != "GET" and path not in OPEN]
    assert len(changes) > 6
    for method, path in changes:
        assert api.reader.request(method, path.format(**WORDS), json={"ref": "main"}).status_code in {400, 403}
        assert api.reader.request(method, path.format(**WORDS), json=_body(path)).status_code == 403


def _body(path: str) -> dict[str, str]:
    return {"ref": "main"} if path.endswith("/builds") else {"forge": "home", "owner": "alba", "name": "hello"}


def test_no_answer_is_a_page_that_another_site_can_use(api: Api) -> None:
    for path in ("/api/v1/builds", "/api/v1/openapi.json", "/metrics", "/no/such/path"):
        headers = api.reader.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    assert api.anybody.get("/docs").status_code == 404


def test_what_is_not_there_is_a_problem(api: Api) -> None:
    for method, path, status in (
        ("GET", "/api/v1/nothing", 404),
        ("DELETE", "/api/v1/builds", 405),
        ("GET", "/api/v1/builds/1/cancel", 405),
    ):
        answer = api.reader.request(method, path)
        assert (answer.status_code, is_problem(answer)) == (status, True), path


HOSTILE = [
    "/api/v1/builds?cursor=!!!!",
    "/api/v1/builds?cursor=YnVpbGRzOi0x",
    "/api/v1/builds?cursor=cmVwb3M6MQ",
    "/api/v1/builds?cursor=" + "A" * 5000,
    "/api/v1/builds?cursor=%00",
    "/api/v1/builds?cursor=%C3%A4",
    "/api/v1/builds?limit=101",
    "/api/v1/builds?limit=0",
    "/api/v1/builds?limit=-5",
    "/api/v1/builds?limit=1e9",
    "/api/v1/builds?limit=99999999999999999999999",
    "/api/v1/builds?status=broken",
    "/api/v1/builds?repo=%00/x",
    "/api/v1/builds?repo=a/b//d",
    "/api/v1/builds?repo=a",
    "/api/v1/builds?branch=a%00b",
    "/api/v1/builds?branch=a..b",
    "/api/v1/builds/0",
    "/api/v1/builds/-1",
    "/api/v1/builds/x",
    "/api/v1/builds/9223372036854775808",
    "/api/v1/builds/99999999999999999999999999",
    "/api/v1/builds/9223372036854775807",
    "/api/v1/jobs/9223372036854775808/log",
    "/api/v1/jobs/1/log?attempt=0",
    "/api/v1/jobs/1/log?attempt=99999999999999999999",
    "/api/v1/jobs/1/log/live?offset=-1",
    "/api/v1/artifacts?build=%27",
    "/api/v1/artifacts?job=9223372036854775808",
    "/api/v1/artifacts/9223372036854775808/content",
    "/api/v1/images?build=x",
    "/api/v1/repos/%00/a/b",
    "/api/v1/repos/home/a%00/b",
    "/api/v1/repos/home/../b",
    "/api/v1/repos?repo=%F0%9F%90%A6/b",
    "/api/v1/deliveries?forge=%00",
    "/api/v1/deliveries?forge=Home",
    "/api/v1/events?build=x",
    "/api/v1/events?repo=%00/x",
    "/badges/home/a%00/b.svg",
    "/badges/home/alba/hello.svg?branch=%07",
]


def test_hostile_paths_and_queries_are_the_callers_fault(api: Api) -> None:
    answers = {path: api.admin.get(path) for path in HOSTILE}
    assert {path: answer.text for path, answer in answers.items() if not 400 <= answer.status_code < 500} == {}
    assert all(is_problem(answer) for answer in answers.values())


HOSTILE_BODIES = [
    b"{",
    b"[]",
    b'"x"',
    b"\xff\xfe",
    b'{"ref": 5}',
    b'{"ref": ""}',
    b'{"ref": "main", "more": 1}',
    b'{"ref": "' + b"a" * 2000 + b'"}',
    b'{"ref": "\\u0000"}',
    b'{"ref": "\\ud800"}',
    b"[" * 20000,
    b'{"ref": NaN}',
]


def test_hostile_bodies_are_the_callers_fault(api: Api) -> None:
    path, headers = "/api/v1/repos/home/alba/hello/builds", {"content-type": "application/json"}
    answers = {body: api.writer.post(path, content=body, headers=headers) for body in HOSTILE_BODIES}
    assert {body: answer.text for body, answer in answers.items() if not 400 <= answer.status_code < 500} == {}
    assert all(is_problem(answer) for answer in answers.values())


def test_a_hostile_last_event_id_is_the_callers_fault(api: Api) -> None:
    for path in ("/api/v1/events", "/api/v1/jobs/1/log/live"):
        for value in ("x", "1:", ":1", "1:1:1", "-1", "9" * 40, "1:" + "9" * 40, "%00"):
            answer = api.reader.get(path, headers={"last-event-id": value})
            assert (answer.status_code, is_problem(answer)) == (400, True), (path, value)


def test_a_body_over_the_limit_is_refused_announced_or_not(api: Api) -> None:
    path, large = "/api/v1/repos/home/alba/hello/builds", b" " * (65 << 10)
    headers = {"content-type": "application/json"}
    for content in (large, iter([large[:40000], large[40000:]])):
        answer = api.writer.post(path, content=content, headers=headers)
        assert answer.status_code == 413
        assert is_problem(answer)


def test_what_nobody_expected_is_told_without_details(
    api: Api, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(digest: str) -> int:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(api.store, "size", explode)
    artifact = api.reader.get("/api/v1/artifacts").json()["items"][0]["id"]
    answer = api.reader.get(f"/api/v1/artifacts/{artifact}/content")
    assert answer.status_code == 500
    assert is_problem(answer)
    assert "secret" not in answer.text
    assert "a secret detail" in caplog.text


def test_what_is_away_is_503_and_says_when_to_come_back(api: Api) -> None:
    artifact = api.reader.get("/api/v1/artifacts").json()["items"][0]["id"]
    api.store.broken = True
    answer = api.reader.get(f"/api/v1/artifacts/{artifact}/content")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert is_problem(answer)


def is_problem(answer: httpx.Response) -> bool:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"].startswith("urn:albatros:problem:")
    assert body["title"]
    assert body["detail"]
    return bool(body["status"] == answer.status_code)
