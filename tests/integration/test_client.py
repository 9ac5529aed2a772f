"""The client against a real server: the same words on both sides, problems as errors, streams over a restart."""

import threading
from typing import get_type_hints

import pytest
from pydantic import BaseModel
from sqlalchemy import func, select

from albatros.client import Client, types
from albatros.db import logs
from albatros.db.models import Attempt, Job, LogPiece
from albatros.db.session import now
from albatros.db.signals import Topic
from albatros.domain.access import Scope
from albatros.domain.states import AttemptState, JobState
from albatros.errors import (
    BadInputError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    StoreError,
    UnauthorizedError,
    UnreachableError,
)
from albatros.http import schemas
from albatros.http.app import create_app
from albatros.http.serving import WebServer, bind
from tests.support.api import Api
from tests.support.forges import MemoryForge

COMMIT = "0123456789abcdef0123456789abcdef01234567"

PAIRS: list[tuple[type[BaseModel], type]] = [
    (schemas.RepoName, types.RepoName),
    (schemas.RepoOut, types.Repo),
    (schemas.BuildSummary, types.Build),
    (schemas.BuildDetail, types.BuildDetail),
    (schemas.JobSummary, types.Job),
    (schemas.JobDetail, types.JobDetail),
    (schemas.AttemptOut, types.Attempt),
    (schemas.PlacementOut, types.Placement),
    (schemas.PlacementEventOut, types.PlacementEvent),
    (schemas.ArtifactOut, types.Artifact),
    (schemas.ImageOut, types.Image),
    (schemas.PublicationOut, types.Publication),
    (schemas.StatusOut, types.Status),
    (schemas.EdgeOut, types.Edge),
]


@pytest.mark.parametrize(("schema", "mirror"), PAIRS, ids=lambda kind: kind.__name__)
def test_the_client_knows_every_field_that_the_server_sends(schema: type[BaseModel], mirror: type) -> None:
    assert set(get_type_hints(mirror)) == set(schema.model_fields)


def client(api: Api, scope: Scope = Scope.WRITE) -> Client:
    return Client(api.url, api.tokens[scope])


def test_reading(api: Api) -> None:
    with client(api, Scope.READ) as calls:
        builds = calls.builds(limit=1000)
        assert [build["id"] for build in builds] == [
            one["id"] for one in api.reader.get("/api/v1/builds?limit=100").json()["items"]
        ]
        assert len(calls.builds(limit=3)) == 3
        assert [one["id"] for one in calls.builds(status="running", repo="alba/hello")] == [api.seeded.running]
        assert len(calls.build(api.seeded.published)["images"][0]["publications"]) == 4
        assert calls.job(api.seeded.failed_job)["reason"] == "build_failed"
        assert (
            b"".join(calls.log(api.seeded.failed_job))
            == api.reader.get(f"/api/v1/jobs/{api.seeded.failed_job}/log").content
        )
        assert calls.repo("alba/hello") == calls.repo("home/alba/hello")
        assert len(calls.repos()) == 4
        [artifact] = calls.artifacts(job=calls.artifacts(build=api.seeded.published)[0]["job_id"])
        assert calls.artifact(artifact["id"]) == artifact


def test_changing(api: Api) -> None:
    forge = MemoryForge()
    forge.add("alba/hello", main=COMMIT)
    api.forges["home"] = forge
    with client(api) as calls:
        assert calls.trigger("alba/hello", "main")["commit"] == COMMIT
        assert calls.trigger("alba/hello", "main", "nightly")["flavor"] == "nightly"
        with pytest.raises(BadInputError, match="is no flavor"):
            calls.trigger("alba/hello", "main", "Nightly")
        assert calls.cancel(api.seeded.running)["state"] == "cancelled"
        assert calls.rerun(api.seeded.failed)["rerun_of"] == api.seeded.failed
    with client(api, Scope.ADMIN) as calls:
        assert calls.add_repo("home/alba/hello") == calls.add_repo("https://git.example.org/alba/hello")


def test_a_problem_is_raised_as_the_error_that_it_names(api: Api) -> None:
    with client(api) as calls:
        with pytest.raises(NotFoundError, match="no build 999999"):
            calls.build(999999)
        with pytest.raises(BadInputError):
            calls.builds(branch="a..b")
        with pytest.raises(ConflictError):
            calls.cancel(api.seeded.failed)
        with pytest.raises(ForbiddenError, match="a-write-token"):
            calls.add_repo("home/alba/hello")
        with pytest.raises(NotFoundError, match="FORGE/alba/none"):
            calls.trigger("alba/none", "main")
        artifact = calls.artifacts()[0]["id"]
        api.store.broken = True
        with pytest.raises(StoreError):
            list(calls.download(artifact))
    with Client(api.url) as calls, pytest.raises(UnauthorizedError):
        calls.builds()


def test_who_is_no_server_is_named(api: Api) -> None:
    api.server.stop()
    for address in (api.url, "localhost", "http://127.0.0.1:1", "http://[", "ftp://127.0.0.1"):
        with Client(address) as calls, pytest.raises(UnreachableError, match="does not answer"):
            calls.builds()
    for address in ("http://host:port", "http://\0"):
        with pytest.raises(BadInputError, match="no server's address"):
            Client(address)


def test_a_log_is_followed_over_a_restart_of_the_server(api: Api) -> None:
    """Nothing is said twice, and nothing is left out."""
    before = api.reader.get(f"/api/v1/jobs/{api.seeded.running_job}/log").text
    found: list[str] = []
    got_first = threading.Event()

    def follow() -> None:
        with client(api, Scope.READ) as calls:
            for text in calls.follow_log(api.seeded.running_job):
                found.append(text)
                if "".join(found).endswith("before the restart\n"):
                    got_first.set()

    thread = threading.Thread(target=follow)
    thread.start()
    write(api, b"before the restart\n")
    assert got_first.wait(60)
    api.server.stop()
    write(api, b"while it was down\n")
    again = WebServer(create_app(api.context), bind(api.url.removeprefix("http://")))
    again.start()
    try:
        write(api, b"after the restart\n")
        finish(api)
        thread.join(60)
    finally:
        again.stop()
    assert not thread.is_alive()
    assert "".join(found) == before + "before the restart\nwhile it was down\nafter the restart\n"


def write(api: Api, data: bytes) -> None:
    with api.context.database.write() as session:
        attempt = session.get_one(Attempt, api.seeded.running_attempt)
        seq = session.scalar(select(func.count()).where(LogPiece.attempt_id == attempt.id)) or 0
        logs.append(session, attempt.id, seq, attempt.log_bytes, data)
    api.context.signals.notify(Topic.WATCHERS)


def finish(api: Api) -> None:
    with api.context.database.write() as session:
        attempt = session.get_one(Attempt, api.seeded.running_attempt)
        attempt.state, attempt.ended_at = AttemptState.SUCCEEDED, now()
        job = session.get_one(Job, api.seeded.running_job)
        job.state, job.ended_at = JobState.SUCCEEDED, now()
    api.context.signals.notify(Topic.WATCHERS)
