"""Jobs over HTTP, and their logs: whole, in part, while they grow, once they are sealed, and when they are gone."""

import httpx
from sqlalchemy import delete

from albatros.db import logs
from albatros.db.models import Attempt, LogPiece
from albatros.domain.references import Digest
from tests.support.api import Api


def log_path(api: Api) -> str:
    return f"/api/v1/jobs/{api.seeded.failed_job}/log"


def test_a_job_shows_its_build_its_tries_and_what_it_needs(api: Api) -> None:
    job = api.reader.get(f"/api/v1/jobs/{api.seeded.failed_job}").json()
    assert (job["state"], job["reason"], job["build"]["id"]) == ("failed", "build_failed", api.seeded.failed)
    assert [attempt["number"] for attempt in job["attempts"]] == [1]
    waiting = api.reader.get(f"/api/v1/builds/{api.seeded.running}").json()["edges"][0]
    assert api.reader.get(f"/api/v1/jobs/{waiting['job']}").json()["needs"] == [waiting["needs"]]


def test_a_log_is_the_same_text_as_rows_and_sealed(api: Api) -> None:
    as_rows = api.reader.get(log_path(api))
    assert as_rows.headers["content-type"] == "text/plain; charset=utf-8"
    assert as_rows.headers["x-albatros-attempt"] == "1"
    assert "etag" not in as_rows.headers
    attempt = api.reader.get(f"/api/v1/jobs/{api.seeded.failed_job}").json()["attempts"][0]["id"]
    logs.seal(api.context.database, api.store, attempt)
    sealed = api.reader.get(log_path(api))
    assert sealed.content == as_rows.content
    assert len(sealed.content) == int(sealed.headers["content-length"]) > 100
    known = api.reader.get(log_path(api), headers={"if-none-match": sealed.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")


def test_a_range_of_a_log_is_that_part_of_it(api: Api) -> None:
    whole = api.reader.get(log_path(api)).content
    size = len(whole)
    for wanted, start, stop in (
        ("bytes=0-9", 0, 10),
        ("bytes=10-", 10, size),
        ("bytes=-7", size - 7, size),
        ("bytes=5-999999", 5, size),
        ("bytes=-999999", 0, size),
    ):
        answer = api.reader.get(log_path(api), headers={"range": wanted})
        assert (answer.status_code, answer.content) == (206, whole[start:stop]), wanted
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"


def test_what_is_no_single_range_gets_the_whole_log(api: Api) -> None:
    whole = api.reader.get(log_path(api)).content
    for unread in ("bytes=9-3", "bytes=-", "bytes=a-b", "lines=0-5", "bytes=0-1,4-5", "bytes=0-" + "9" * 30):
        answer = api.reader.get(log_path(api), headers={"range": unread})
        assert (answer.status_code, answer.content) == (200, whole), unread


def test_a_range_behind_the_end_is_told_the_size(api: Api) -> None:
    size = len(api.reader.get(log_path(api)).content)
    answer = api.reader.get(log_path(api), headers={"range": f"bytes={size}-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{size}"


def test_a_head_request_tells_the_size_alone(api: Api) -> None:
    whole = api.reader.get(log_path(api)).content
    answer = api.reader.head(log_path(api))
    assert (answer.content, answer.headers["content-length"]) == (b"", str(len(whole)))


def test_each_attempt_has_its_own_log(api: Api) -> None:
    path = f"/api/v1/jobs/{api.seeded.running_job}/log"
    assert api.reader.get(path).headers["x-albatros-attempt"] == "2"
    assert api.reader.get(path, params={"attempt": 2}).content == api.reader.get(path).content
    assert api.reader.get(path, params={"attempt": 3}).status_code == 404


def test_the_log_of_a_job_that_has_not_begun_is_empty(api: Api) -> None:
    jobs = api.reader.get(f"/api/v1/builds/{api.seeded.running}").json()["jobs"]
    waiting = next(job["id"] for job in jobs if job["state"] == "waiting")
    answer = api.reader.get(f"/api/v1/jobs/{waiting}/log")
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_growing_log_gives_what_is_there_now(api: Api) -> None:
    path = f"/api/v1/jobs/{api.seeded.running_job}/log"
    before = api.reader.get(path).content
    append(api, b"one more line\n")
    since = api.reader.get(path, headers={"range": f"bytes={len(before)}-"})
    assert (since.status_code, since.content) == (206, b"one more line\n")


def append(api: Api, data: bytes) -> None:
    with api.context.database.write() as session:
        attempt = session.get_one(Attempt, api.seeded.running_attempt)
        logs.append(session, attempt.id, 1, attempt.log_bytes, data)


def test_a_log_that_was_taken_away_is_not_found(api: Api) -> None:
    attempt_id = api.reader.get(f"/api/v1/jobs/{api.seeded.failed_job}").json()["attempts"][0]["id"]
    with api.context.database.write() as session:
        session.execute(delete(LogPiece).where(LogPiece.attempt_id == attempt_id))
        session.get_one(Attempt, attempt_id).log_digest = Digest("sha256:" + "1" * 64)
    answer: httpx.Response = api.reader.get(log_path(api))
    assert answer.status_code == 404
    assert answer.json()["detail"]


PLACED: dict[str, object] = {
    "job": "alb-1",
    "state": "pending",
    "waits": "0 of 3 nodes have nix_system=aarch64-linux",
    "url": "https://nomad.example.org/ui/jobs/alb-1",
    "events": [{"at": "2026-11-24T20:22:56Z", "kind": "Driver Failure", "message": "<b>no such image</b>"}],
}


def test_where_an_attempt_is_stands_on_the_page_and_in_the_api(api: Api) -> None:
    with api.context.database.write() as session:
        attempt = session.get_one(Attempt, api.seeded.running_attempt)
        attempt.placement, job = PLACED, attempt.job_id
    attempts = api.reader.get(f"/api/v1/jobs/{job}").json()["attempts"]
    told = next(one["placement"] for one in attempts if one["id"] == api.seeded.running_attempt)
    assert told == {**PLACED, "allocation": "", "node": "", "description": ""}
    page = api.reader.get(f"/jobs/{job}").text
    assert "It waits for a place: 0 of 3 nodes have nix_system=aarch64-linux." in page
    assert '<a href="https://nomad.example.org/ui/jobs/alb-1" rel="noopener noreferrer">job</a>' in page
    assert "Driver Failure: &lt;b&gt;no such image&lt;/b&gt;" in page
