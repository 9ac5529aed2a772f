"""Live streams on a real server: in order, resumable, bounded, and over when the server goes down."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest

from albatros.db import logs, people, tokens
from albatros.db.events import emit
from albatros.db.models import Attempt, Build, Job, LogPiece
from albatros.db.session import now
from albatros.db.signals import Topic
from albatros.domain.access import Scope, new_token
from albatros.domain.states import AttemptState, JobState
from albatros.forges.base import Permission
from albatros.http import hub, live
from tests.support.api import Api
from tests.support.people import cookie_of


@dataclass(frozen=True)
class Event:
    id: str
    kind: str
    data: dict[str, object]


@contextmanager
def stream(client: httpx.Client, path: str, **headers: str) -> Iterator[Iterator[Event]]:
    with client.stream("GET", path, headers=headers, timeout=60) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield read(answer.iter_lines())


def read(lines: Iterator[str]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield Event(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
            fields = {}
        else:
            fields = {}


def happen(api: Api, build_id: int, *kinds: str) -> None:
    for kind in kinds:
        with api.context.database.write() as session:
            emit(session, session.get_one(Build, build_id), kind, number=1)
        api.context.signals.notify(Topic.WATCHERS)


def kinds(events: Iterator[Event], count: int) -> list[str]:
    return [next(events).kind for _ in range(count)]


def test_events_arrive_in_order_from_the_moment_of_the_call(api: Api) -> None:
    happen(api, api.seeded.running, "build.before")
    with stream(api.reader, "/api/v1/events") as events:
        happen(api, api.seeded.running, *(f"build.{number}" for number in range(20)))
        found = [next(events) for _ in range(20)]
    assert [event.kind for event in found] == [f"build.{number}" for number in range(20)]
    assert found[0].data["build"] == api.seeded.running
    assert found[0].data["repo"] == {"forge": "home", "owner": "alba", "name": "hello"}
    assert found[0].data["data"] == {"number": 1}


def test_a_stream_is_taken_up_after_the_last_event_seen(api: Api) -> None:
    with stream(api.reader, "/api/v1/events") as events:
        happen(api, api.seeded.running, "build.a", "build.b")
        seen = next(events)
    happen(api, api.seeded.running, "build.c")
    with stream(api.reader, "/api/v1/events", **{"last-event-id": seen.id}) as events:
        assert kinds(events, 2) == ["build.b", "build.c"]
        happen(api, api.seeded.running, "build.d")
        assert kinds(events, 1) == ["build.d"]
    with stream(api.reader, "/api/v1/events", **{"last-event-id": "0"}) as events:
        assert kinds(events, 4) == ["build.a", "build.b", "build.c", "build.d"]


def test_events_narrow_to_a_repo_or_a_build(api: Api) -> None:
    happen(api, api.seeded.running, "build.hello")
    happen(api, api.seeded.failed, "build.driftnote")
    for query, kind in (
        (f"build={api.seeded.failed}", "build.driftnote"),
        ("repo=alba/driftnote", "build.driftnote"),
        ("repo=home/alba/hello", "build.hello"),
    ):
        with stream(api.reader, f"/api/v1/events?{query}", **{"last-event-id": "0"}) as events:
            assert kinds(events, 1) == [kind]


def test_nobody_hears_of_a_private_repo(public_api: Api) -> None:
    happen(public_api, public_api.seeded.private, "build.secret")
    happen(public_api, public_api.seeded.running, "build.open")
    with stream(public_api.anybody, "/api/v1/events", **{"last-event-id": "0"}) as events:
        assert kinds(events, 1) == ["build.open"]
    with stream(public_api.reader, "/api/v1/events", **{"last-event-id": "0"}) as events:
        assert kinds(events, 2) == ["build.secret", "build.open"]


def test_more_events_than_are_kept_in_memory_all_arrive(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "BATCH", 7)
    monkeypatch.setattr(hub, "KEPT_EVENTS", 10)
    with stream(api.reader, "/api/v1/events") as events:
        names = [f"build.{number}" for number in range(40)]
        with api.context.database.write() as session:
            build = session.get_one(Build, api.seeded.running)
            for name in names:
                emit(session, build, name)
        api.context.signals.notify(Topic.WATCHERS)
        assert kinds(events, 40) == names


def log_of(api: Api) -> str:
    return f"/api/v1/jobs/{api.seeded.running_job}/log"


def write(api: Api, *pieces: bytes) -> None:
    for data in pieces:
        with api.context.database.write() as session:
            attempt = session.get_one(Attempt, newest(api))
            seq = 1 if attempt.log_bytes else 0
            while session.get(LogPiece, (attempt.id, seq)) is not None:
                seq += 1
            logs.append(session, attempt.id, seq, attempt.log_bytes, data)
        api.context.signals.notify(Topic.WATCHERS)


def newest(api: Api) -> str:
    attempts = api.reader.get(f"/api/v1/jobs/{api.seeded.running_job}").json()["attempts"]
    return str(attempts[0]["id"])


def end(api: Api) -> None:
    with api.context.database.write() as session:
        attempt = session.get_one(Attempt, newest(api))
        attempt.state, attempt.ended_at = AttemptState.SUCCEEDED, now()
        job = session.get_one(Job, api.seeded.running_job)
        job.state, job.ended_at = JobState.SUCCEEDED, now()
    api.context.signals.notify(Topic.WATCHERS)


def text_of(events: Iterator[Event], length: int) -> tuple[str, str]:
    """Text until at least `length` bytes came, and the id to go on from."""
    text, last = "", ""
    while len(text.encode()) < length:
        event = next(events)
        assert event.kind == "log"
        assert event.data["offset"] == len(text.encode())
        text, last = text + str(event.data["text"]), event.id
    return text, last


def test_a_log_is_followed_from_its_beginning_to_its_end(api: Api) -> None:
    before = api.reader.get(log_of(api)).text
    with stream(api.reader, log_of(api) + "/live") as events:
        assert text_of(events, len(before.encode()))[0] == before
        write(api, b"first\n")
        assert next(events).data["text"] == "first\n"
        write(api, b"second\n")
        end(api)
        assert next(events).data["text"] == "second\n"
        last = next(events)
        assert list(events) == []
    assert last.kind == "end"
    assert last.data == {"job": api.seeded.running_job, "state": "succeeded", "reason": None}


def test_a_log_is_taken_up_at_the_byte_where_it_broke_off(api: Api) -> None:
    size = len(api.reader.get(log_of(api)).content)
    with stream(api.reader, log_of(api) + "/live") as events:
        _, last = text_of(events, size)
    assert last == f"2:{size}"
    write(api, b"while nobody listened\n")
    with stream(api.reader, log_of(api) + "/live", **{"last-event-id": last}) as events:
        assert next(events).data["text"] == "while nobody listened\n"
    with stream(api.reader, log_of(api) + f"/live?attempt=2&offset={size}") as events:
        assert next(events).data["text"] == "while nobody listened\n"


def test_a_character_is_never_cut_in_two(api: Api) -> None:
    size = len(api.reader.get(log_of(api)).content)
    bird = "🐦".encode()
    with stream(api.reader, log_of(api) + f"/live?attempt=2&offset={size}") as events:
        write(api, b"a" + bird[:2])
        first = next(events)
        write(api, bird[2:] + b"b\xff")
        second = next(events)
        end(api)
        rest = [event.data["text"] for event in events if event.kind == "log"]
    assert first.data["text"] == "a"
    assert str(second.data["text"]) + "".join(map(str, rest)) == "🐦b\ufffd"


def test_the_next_attempt_follows_on_the_one_that_was_lost(api: Api) -> None:
    with api.context.database.write() as session:
        old = session.get_one(Attempt, api.seeded.running_attempt)
        old.state, old.ended_at = AttemptState.LOST, now()
        session.flush()
        session.add(
            Attempt(
                id="next",
                job_id=old.job_id,
                number=old.number + 1,
                state=AttemptState.CLAIMED,
                token_hash="next",
                executor="local",
                log_bytes=0,
                created_at=now(),
            )
        )
    with stream(api.reader, log_of(api) + "/live?attempt=2") as events:
        write(api, b"once more\n")
        found = next(event for event in events if event.data["attempt"] == 3)
        end(api)
        assert [event.kind for event in events] == ["end"]
    assert (found.data["text"], found.data["offset"]) == ("once more\n", 0)


def test_the_log_of_a_job_that_never_ran_ends_at_once(api: Api) -> None:
    api.writer.post(f"/api/v1/builds/{api.seeded.running}/cancel")
    jobs = api.reader.get(f"/api/v1/builds/{api.seeded.running}").json()["jobs"]
    job = next(job["id"] for job in jobs if job["state"] == "cancelled" and job["started_at"] is None)
    with stream(api.reader, f"/api/v1/jobs/{job}/log/live") as events:
        assert [(event.kind, event.data["state"]) for event in events] == [("end", "cancelled")]


def test_more_streams_than_there_is_room_for_are_told_to_come_back(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MAX_STREAMS", 1)
    with stream(api.reader, "/api/v1/events", **{"last-event-id": "0"}) as events:
        happen(api, api.seeded.running, "build.a")
        assert kinds(events, 1) == ["build.a"]
        answer = api.reader.get("/api/v1/events")
        assert answer.status_code == 503
        assert "retry-after" in answer.headers


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams look at their callers again each time that they wake."""
    monkeypatch.setattr(live, "RECHECK_SECONDS", 0)


@pytest.mark.usefixtures("watched")
def test_a_stream_ends_when_its_token_is_revoked(api: Api) -> None:
    token = new_token()
    with api.context.database.write() as session:
        tokens.create(session, "listener", token, Scope.READ, None)
    listener, path = api.with_token(token), log_of(api) + "/live"
    with stream(listener, "/api/v1/events") as events, stream(listener, path) as lines:
        happen(api, api.seeded.running, "build.a")
        assert kinds(events, 1) == ["build.a"]
        assert next(lines).kind == "log"
        with api.context.database.write() as session:
            tokens.revoke(session, "listener")
        write(api, b"not for those who went\n")
        happen(api, api.seeded.running, "build.b")
        assert list(events) == list(lines) == []


@pytest.mark.usefixtures("watched")
def test_a_stream_ends_with_the_session_of_who_listens(api: Api) -> None:
    api.people.given["alba/keys", "ines"] = Permission.READ
    cookies = cookie_of(api.context, "ines")
    browser = api.clients.enter_context(httpx.Client(base_url=api.url, cookies=cookies, timeout=60))
    with stream(browser, "/api/v1/events") as events:
        happen(api, api.seeded.private, "build.a")
        assert kinds(events, 1) == ["build.a"]
        with api.context.database.write() as session:
            people.logged_in(session, "home", "another-id", "ines")
        happen(api, api.seeded.private, "build.b")
        assert list(events) == []


@pytest.mark.usefixtures("watched")
def test_the_stream_of_a_log_ends_when_its_repo_becomes_private(public_api: Api) -> None:
    with stream(public_api.anybody, log_of(public_api) + "/live") as lines:
        assert next(lines).kind == "log"
        with public_api.context.database.write() as session:
            session.get_one(Build, public_api.seeded.running).repo.private = True
        write(public_api, b"a secret\n")
        assert list(lines) == []


def live_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "live"}


def test_streams_cost_one_thread_and_none_when_there_are_none(api: Api) -> None:
    of_other_tests = live_threads()
    with stream(api.reader, "/api/v1/events") as one, stream(api.reader, "/api/v1/events") as two:
        happen(api, api.seeded.running, "build.a")
        assert kinds(one, 1) == kinds(two, 1) == ["build.a"]
        [live] = live_threads() - of_other_tests
    live.join(60)
    assert not live.is_alive()


def test_a_server_that_goes_down_ends_its_streams_in_order(api: Api) -> None:
    with stream(api.reader, "/api/v1/events", **{"last-event-id": "0"}) as events:
        happen(api, api.seeded.running, "build.a")
        assert kinds(events, 1) == ["build.a"]
        api.server.stop()
        assert list(events) == []
