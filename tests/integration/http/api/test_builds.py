"""Builds over HTTP: pages and filters, one with everything, and the calls that change something."""

import pytest
from sqlalchemy import select, update

from albatros.db.models import Build, Event, Job
from albatros.domain.access import Scope
from albatros.domain.states import BuildState, JobState, Trigger
from albatros.forges.base import Permission
from tests.support.api import Api
from tests.support.forges import MemoryForge
from tests.support.people import token_of
from tests.support.waiting import HEAD, waiting_build


def test_pages_hold_every_build_once_newest_first(api: Api) -> None:
    whole = api.reader.get("/api/v1/builds", params={"limit": 100}).json()
    assert whole["next"] is None
    ids = [build["id"] for build in whole["items"]]
    assert ids == sorted(ids, reverse=True)
    page = api.reader.get("/api/v1/builds", params={"limit": 4}).json()
    paged = [build["id"] for build in page["items"]]
    while page["next"] is not None:
        assert len(page["items"]) == 4
        page = api.reader.get("/api/v1/builds", params={"limit": 4, "cursor": page["next"]}).json()
        paged += [build["id"] for build in page["items"]]
    assert paged == ids


def test_filters_narrow(api: Api) -> None:
    def ids(**query: str) -> set[int]:
        return {build["id"] for build in api.reader.get("/api/v1/builds", params=query).json()["items"]}

    everything = ids()
    assert ids(repo="alba/hello") == ids(repo="home/alba/hello") < everything
    assert ids(repo="other/alba/hello") == ids(repo="alba/none") == ids(branch="none") == set()
    assert ids(branch="main") == ids(branch="refs/heads/main") < everything
    assert ids(branch="refs/tags/v1.4.0") == {api.seeded.retrying}
    assert ids(status="running") == {api.seeded.running}
    assert ids(repo="alba/driftnote", branch="tides", status="failed") == {api.seeded.failed}


def test_one_build_shows_everything_of_it(api: Api) -> None:
    build = api.reader.get(f"/api/v1/builds/{api.seeded.published}").json()
    assert (build["state"], build["repo"]) == ("succeeded", {"forge": "home", "owner": "alba", "name": "hello"})
    assert build["created_at"].endswith("Z")
    assert [job["kind"] for job in build["jobs"]] == ["evaluation", *["build"] * 4]
    [image] = build["images"]
    assert len(image["platforms"]) == 4
    assert {one["state"] for one in image["publications"]} == {"published"}
    assert {one["registry"] for one in image["publications"]} == {"hub", "static"}
    assert {one["next_try_at"] for one in image["publications"]} == {None}
    assert len(build["artifacts"]) == 4
    assert [(one["context"], one["delivered"]) for one in build["statuses"]] == [("albatros", True)]
    assert build["truncated"] is False


def test_the_edges_are_between_jobs_of_the_build(api: Api) -> None:
    build = api.reader.get(f"/api/v1/builds/{api.seeded.running}").json()
    ids = {job["id"] for job in build["jobs"]}
    assert len(build["edges"]) == 1
    assert all(edge["job"] in ids and edge["needs"] in ids for edge in build["edges"])


def test_cancel_ends_an_open_build_and_says_by_whom(api: Api) -> None:
    path = f"/api/v1/builds/{api.seeded.running}/cancel"
    answer = api.writer.post(path)
    assert answer.status_code == 200
    assert (answer.json()["state"], answer.json()["reason"]) == ("cancelled", "cancelled")
    assert "a-write-token" in answer.json()["message"]
    again = api.writer.post(path)
    assert again.status_code == 409
    with api.context.database.read() as session:
        kinds = session.scalars(select(Event.kind).where(Event.build_id == api.seeded.running)).all()
        open_jobs = session.scalars(
            select(Job.id).where(Job.build_id == api.seeded.running, Job.state == JobState.QUEUED)
        ).all()
    assert "build.cancelled" in kinds
    assert open_jobs == []
    assert api.writer.post("/api/v1/builds/999999/cancel").status_code == 404


def test_rerun_makes_a_new_build_of_the_same_commit(api: Api) -> None:
    answer = api.writer.post(f"/api/v1/builds/{api.seeded.failed}/rerun")
    assert answer.status_code == 201
    old = api.reader.get(f"/api/v1/builds/{api.seeded.failed}").json()
    new = answer.json()
    assert (new["commit"], new["ref"], new["trigger"], new["rerun_of"]) == (
        old["commit"],
        old["ref"],
        "rerun",
        old["id"],
    )
    assert new["state"] == "queued"
    assert api.writer.post(f"/api/v1/builds/{api.seeded.running}/rerun").status_code == 409
    assert api.writer.post("/api/v1/builds/999999/rerun").status_code == 404


@pytest.fixture
def forge() -> MemoryForge:
    forge = MemoryForge()
    forge.add("alba/hello", main=HEAD)
    forge.add("stranger/thing", main=HEAD)
    return forge


def test_a_merge_result_says_what_is_merged_into_what(api: Api, forge: MemoryForge) -> None:
    build = waiting_build(api, forge)
    shown = api.reader.get(f"/api/v1/builds/{build}").json()
    assert (shown["merge_into"], shown["base_commit"]) == (None, None)
    with api.context.database.write() as session:
        merged = {"ref": "refs/pull/7/merge", "merge_into": "refs/heads/release/2", "base_commit": "b" * 40}
        session.execute(update(Build).where(Build.id == build).values(merged))
    shown = api.reader.get(f"/api/v1/builds/{build}").json()
    assert (shown["merge_into"], shown["base_commit"]) == ("refs/heads/release/2", "b" * 40)
    page = api.admin.get(f"/builds/{build}", headers={"Accept": "text/html"}).text
    assert "release/2 at bbbbbbb" in page
    assert "merge result" in page


def test_approve_lets_a_build_run_once(api: Api, forge: MemoryForge) -> None:
    build = waiting_build(api, forge)
    shown = api.reader.get(f"/api/v1/builds/{build}").json()
    assert (shown["state"], shown["pull"], shown["from_fork"]) == ("waiting_approval", 7, True)
    assert api.reader.post(f"/api/v1/builds/{build}/approve").status_code == 403
    answer = api.writer.post(f"/api/v1/builds/{build}/approve")
    assert (answer.status_code, answer.json()["state"]) == (200, "queued")
    assert answer.json()["approved_by"]
    assert api.writer.post(f"/api/v1/builds/{build}/approve").status_code == 409
    assert api.writer.post("/api/v1/builds/999999/approve").status_code == 404


def test_a_persons_right_to_approve_is_asked_of_the_forge_at_that_moment(api: Api, forge: MemoryForge) -> None:
    build = waiting_build(api, forge)
    api.people.given["alba/hello", "alba"] = Permission.WRITE
    header = {"Authorization": f"Bearer {token_of(api.context.database, 'alba', Scope.WRITE)}"}
    assert api.reader.post(f"/api/v1/builds/{build}/cancel", headers=header).status_code == 200
    build = waiting_build(api, forge)
    api.people.given["alba/hello", "alba"] = Permission.READ
    assert api.reader.post(f"/api/v1/builds/{build}/approve", headers=header).status_code == 403
    assert api.reader.get(f"/api/v1/builds/{build}").json()["state"] == "waiting_approval"


def test_trigger_builds_the_head_that_the_forge_names(api: Api, forge: MemoryForge) -> None:
    api.forges["home"] = forge
    answer = api.writer.post("/api/v1/repos/home/alba/hello/builds", json={"ref": "main"})
    assert answer.status_code == 201
    with api.context.database.read() as session:
        build = session.get_one(Build, answer.json()["id"])
    assert (build.commit, build.ref, build.trigger) == (HEAD, "refs/heads/main", Trigger.API)
    assert build.state is BuildState.QUEUED


def test_trigger_refuses_what_cannot_or_may_not_be_built(api: Api, forge: MemoryForge) -> None:
    api.forges["home"] = forge
    for path, ref, status in (
        ("home/alba/hello", "none", 404),
        ("home/alba/none", "main", 404),
        ("none/alba/hello", "main", 404),
        ("home/stranger/thing", "main", 403),
    ):
        answer = api.writer.post(f"/api/v1/repos/{path}/builds", json={"ref": ref})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), path
