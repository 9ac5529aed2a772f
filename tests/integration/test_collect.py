"""The collector on both databases and real files: what goes, what stays, and what happens at the same time."""

import argparse
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from albatros.cli import gc as gc_command
from albatros.db import blobs, garbage, logs, migrate
from albatros.db.models import (
    Artifact,
    Attempt,
    Base,
    Blob,
    Build,
    CachedLayer,
    Delivery,
    Event,
    Image,
    ImageBlob,
    Job,
    LogPiece,
    Publication,
    ReadSource,
    RefHead,
    Repo,
    RepoBlob,
    StatusReport,
)
from albatros.db.session import Database, connect, now
from albatros.domain import references
from albatros.domain.references import Digest, digest_of
from albatros.domain.states import AttemptState, BuildState, PublicationState
from albatros.errors import NotFoundError
from albatros.flows.collect import CollectReport, collect
from albatros.settings import RetentionSettings
from albatros.store.base import BlobStore
from albatros.store.files import FileStore
from tests.support.rows import COMMIT, add_attempt, add_build, add_job, add_repo

DAYS = [timedelta(days=n) for n in range(400)]
SETTINGS = RetentionSettings(keep_builds=2)


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return FileStore(tmp_path / "blobs")


@pytest.fixture
def repo(database: Database) -> Repo:
    with database.write() as session:
        return add_repo(session)


def count(database: Database, table: type[Base]) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def build_ids(database: Database) -> list[int]:
    with database.read() as session:
        return list(session.scalars(select(Build.id).order_by(Build.id)))


def add_builds(
    database: Database, repo: Repo, *builds: tuple[int, BuildState], ref: str = "refs/heads/main"
) -> list[int]:
    """Builds of one ref, each (days ago, state)."""
    with database.write() as session:
        repo = session.get_one(Repo, repo.id)
        return [add_build(session, repo, state, ref=ref, at=now() - DAYS[days]).id for days, state in builds]


OK, BAD, OPEN = BuildState.SUCCEEDED, BuildState.FAILED, BuildState.PUBLISHING


def test_old_builds_go_and_the_last_ones_of_each_ref_stay(database: Database, store: BlobStore, repo: Repo) -> None:
    gone = add_builds(database, repo, (300, BAD), (200, OK))
    kept = add_builds(database, repo, (190, OK), (180, BAD), (170, BAD))
    kept += add_builds(database, repo, (350, BAD), ref="refs/heads/other")
    kept += add_builds(database, repo, (250, OPEN), (80, OK), (70, OK), (60, OK), ref="refs/heads/busy")
    assert collect(database, store, SETTINGS).builds == 2
    assert build_ids(database) == kept
    assert not set(gone) & set(kept)
    assert collect(database, store, SETTINGS) == CollectReport()


def test_builds_of_a_deleted_ref_all_go(database: Database, store: BlobStore, repo: Repo) -> None:
    add_builds(database, repo, (300, OK), (200, OK), ref="refs/heads/merged")
    young = add_builds(database, repo, (10, OK), ref="refs/heads/merged")
    with database.write() as session:
        head = RefHead(repo_id=repo.id, ref="refs/heads/merged", commit=None, sequence=9, updated_at=now())
        session.add(head)
    assert collect(database, store, SETTINGS).builds == 2
    assert build_ids(database) == young


def add_everything(session: Session, store: BlobStore, build: Build) -> None:
    """One row of each kind that belongs to a Build, as old as it."""
    job = add_job(session, build)
    attempt = add_attempt(session, job, AttemptState.SUCCEEDED)
    attempt.result = {"evaluation": None}
    session.add(LogPiece(attempt_id=attempt.id, seq=0, offset=0, data=b"log"))
    attempt.log_bytes = 3
    contents = [f"{kind} of build {build.id}".encode() for kind in ("artifact", "closure", "layer")]
    artifact, closure, layer = (store.put([content]) for content in contents)
    for blob in (artifact, closure, layer):
        blobs.record(session, build.repo_id, blob.digest, blob.size)
    session.add(
        Artifact(
            job_id=job.id,
            output="out",
            path="",
            kind="file",
            digest=artifact.digest,
            size=artifact.size,
            executable=False,
            store_path="/nix/store/x",
            nar_hash="",
            closure_digest=closure.digest,
            created_at=build.created_at,
        )
    )
    image = Image(
        build_id=build.id,
        name="hello",
        digest=layer.digest,
        size=layer.size,
        platforms=["linux/amd64"],
        created_at=build.created_at,
    )
    session.add(image)
    session.flush()
    session.add(ImageBlob(image_id=image.id, digest=layer.digest))
    session.add(
        Publication(
            image_id=image.id,
            registry_name="hub",
            name="hello",
            tag="main",
            required=True,
            state=PublicationState.PUBLISHED,
            next_try_at=build.created_at,
            created_at=build.created_at,
        )
    )
    session.add(Event(kind="build", repo_id=build.repo_id, build_id=build.id, data={}, created_at=build.created_at))
    session.add(
        StatusReport(
            repo_id=build.repo_id,
            commit=COMMIT,
            context=f"albatros/{build.id}",
            build_id=build.id,
            state=build.state,
            description="",
            target_path="",
            next_try_at=build.created_at,
        )
    )


def test_a_build_goes_with_everything_of_it(database: Database, store: BlobStore, repo: Repo) -> None:
    old, kept, again = add_builds(database, repo, (200, BAD), (199, OK), (198, OK))
    with database.write() as session:
        add_everything(session, store, session.get_one(Build, old))
        session.execute(update(Build).where(Build.id == again).values(rerun_of=old))
    assert collect(database, store, SETTINGS).builds == 1
    assert build_ids(database) == [kept, again]
    for table in (Job, Attempt, LogPiece, Artifact, Image, ImageBlob, Publication, Event, StatusReport):
        assert count(database, table) == 0, table.__name__
    with database.read() as session:
        assert session.get_one(Build, again).rerun_of is None


@pytest.mark.parametrize("state", [PublicationState.PENDING, PublicationState.PUSHING])
def test_what_still_publishes_stays_whole(
    database: Database, store: BlobStore, repo: Repo, state: PublicationState
) -> None:
    build, *_ = add_builds(database, repo, (200, BAD), (199, OK), (198, OK))
    with database.write() as session:
        add_everything(session, store, session.get_one(Build, build))
        session.execute(update(Publication).values(state=state))
    report = collect(database, store, SETTINGS)
    assert (report.builds, report.images) == (0, 0)
    assert count(database, ImageBlob) == 1


def test_old_logs_go_and_their_builds_stay(database: Database, store: BlobStore, repo: Repo) -> None:
    old, young, running = add_builds(database, repo, (31, OK), (29, OK), (31, OPEN))
    with database.write() as session:
        attempts = []
        for build in (old, young, running):
            attempt = add_attempt(session, add_job(session, session.get_one(Build, build)), AttemptState.SUCCEEDED)
            attempt.result = {"evaluation": None}
            session.add(LogPiece(attempt_id=attempt.id, seq=0, offset=0, data=b"log"))
            attempt.log_bytes = 3
            attempts.append(attempt.id)
    logs.seal(database, store, attempts[0])
    assert collect(database, store, SETTINGS).logs == 1
    with pytest.raises(NotFoundError, match=r"retention\.logs_days"):
        logs.read(database, store, attempts[0], 0, 10)
    for attempt_id in attempts[1:]:
        assert logs.read(database, store, attempt_id, 0, 10) == b"log"
    with database.read() as session:
        results = dict(session.execute(select(Attempt.id, Attempt.result)).all())
    assert results == {attempts[0]: None, attempts[1]: {"evaluation": None}, attempts[2]: {"evaluation": None}}
    assert collect(database, store, SETTINGS).logs == 0


def test_old_outputs_go_but_for_the_newest_and_the_newest_green_build(
    database: Database, store: BlobStore, repo: Repo
) -> None:
    old, green, newest = add_builds(database, repo, (60, OK), (50, OK), (40, BAD))
    with database.write() as session:
        for build in (old, green, newest):
            add_everything(session, store, session.get_one(Build, build))
    report = collect(database, store, SETTINGS)
    assert (report.builds, report.artifacts, report.images) == (0, 1, 1)
    with database.read() as session:
        jobs = select(Job.build_id).join(Artifact, Artifact.job_id == Job.id).order_by(Job.build_id)
        images = select(Image.build_id).join(ImageBlob, ImageBlob.image_id == Image.id).order_by(Image.build_id)
        assert session.scalars(jobs).all() == [green, newest]
        assert session.scalars(images).all() == [green, newest]
    assert count(database, Image) == 3


def test_bodies_of_old_deliveries_and_old_events_go(database: Database, store: BlobStore, repo: Repo) -> None:
    (build,) = add_builds(database, repo, (95, OK))
    with database.write() as session:
        for days in (100, 95, 31, 29):
            at = now() - DAYS[days]
            session.add(
                Delivery(forge="home", delivery_id=str(days), event="push", body=b"{}", reason="", received_at=at)
            )
        session.flush()
        of_build = session.scalar(select(Delivery.id).where(Delivery.delivery_id == "95"))
        session.execute(update(Build).where(Build.id == build).values(delivery_id=of_build))
        for days in (8, 6):
            at = now() - DAYS[days]
            session.add(Event(kind="build", repo_id=repo.id, build_id=build, data={}, created_at=at))
    report = collect(database, store, SETTINGS)
    assert (report.deliveries, report.events) == (3, 1)
    with database.read() as session:
        left = dict(session.execute(select(Delivery.delivery_id, Delivery.body)).all())
    assert left == {"95": None, "31": None, "29": b"{}"}
    assert count(database, Event) == 1


TOMORROW = timedelta(hours=25)


def keep(database: Database, store: BlobStore, repo: Repo, data: bytes) -> references.Blob:
    blob = store.put([data])
    with database.write() as session:
        blobs.record(session, repo.id, blob.digest, blob.size)
    return blob


def test_a_blob_that_nothing_needs_goes_after_its_grace(database: Database, store: BlobStore, repo: Repo) -> None:
    blob = keep(database, store, repo, b"unused")
    with database.write() as session:
        session.add(CachedLayer(repo_id=repo.id, diff_id="d", codec="gzip", digest=blob.digest, size=blob.size))
        session.add(ReadSource(repo_id=repo.id, digest=blob.digest, how="h", parts="{}", blobs=[]))
    assert collect(database, store, SETTINGS).blobs == 0
    report = collect(database, store, SETTINGS, now=now() + TOMORROW)
    assert (report.blobs, report.bytes) == (1, len(b"unused"))
    assert store.size(blob.digest) is None
    assert [count(database, table) for table in (Blob, RepoBlob, CachedLayer, ReadSource)] == [0, 0, 0, 0]


def test_a_blob_that_something_needs_stays(database: Database, store: BlobStore, repo: Repo) -> None:
    (build,) = add_builds(database, repo, (0, OK))
    with database.write() as session:
        add_everything(session, store, session.get_one(Build, build))
        attempt = session.scalars(select(Attempt.id)).one()
    logs.seal(database, store, attempt)
    layer = digest_of(f"layer of build {build}".encode())
    with database.write() as session:
        session.add(CachedLayer(repo_id=repo.id, diff_id="d", codec="gzip", digest=layer, size=1))
    assert collect(database, store, SETTINGS, now=now() + TOMORROW).blobs == 0
    assert len(list(store.list())) == 4
    assert count(database, CachedLayer) == 1


def test_a_blob_that_was_touched_stays(database: Database, store: BlobStore, repo: Repo) -> None:
    blob = keep(database, store, repo, b"asked for")
    with database.write() as session:
        session.execute(update(Blob).values(touched_at=now() - DAYS[9]))
        blobs.known(session, repo.id, [blob.digest])
    assert collect(database, store, SETTINGS).blobs == 0
    assert store.size(blob.digest) == blob.size


def test_bytes_that_never_got_a_row_go_after_their_grace(database: Database, store: BlobStore) -> None:
    store.put([b"upload that was killed"])
    assert collect(database, store, SETTINGS).blobs == 0
    assert collect(database, store, SETTINGS, now=now() + TOMORROW).blobs == 1
    assert list(store.list()) == []


def test_a_collector_killed_between_row_and_bytes_is_finished_by_the_next(
    database: Database, store: BlobStore, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = keep(database, store, repo, b"half collected")

    def killed(_digest: Digest, _before: datetime) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            collect(database, store, SETTINGS, now=now() + TOMORROW)
    assert count(database, Blob) == 0
    assert store.size(blob.digest) == blob.size
    assert collect(database, store, SETTINGS, now=now() + TOMORROW).blobs == 1
    assert store.size(blob.digest) is None


def test_an_upload_between_row_and_bytes_keeps_its_blob(
    database: Database, store: BlobStore, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes come again just after the collector took the row: they must not be deleted under the new row."""
    blob = keep(database, store, repo, b"popular")
    with database.write() as session:
        session.execute(update(Blob).values(touched_at=now() - DAYS[9]))
    later = now()
    delete = store.delete

    def uploaded_meanwhile(digest: Digest, _before: datetime) -> bool:
        keep(database, store, repo, b"popular")
        return delete(digest, later)

    monkeypatch.setattr(store, "delete", uploaded_meanwhile)
    assert collect(database, store, SETTINGS).blobs == 0
    assert store.size(blob.digest) == blob.size
    assert count(database, Blob) == 1


def test_a_blob_touched_between_look_and_deletion_stays(
    database: Database, store: BlobStore, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = keep(database, store, repo, b"wanted again")
    with database.write() as session:
        session.execute(update(Blob).values(touched_at=now() - DAYS[9]))
    look = garbage.unused_blobs

    def touched_meanwhile(session: Session, before: datetime, after: str, limit: int) -> list[str]:
        found = list(look(session, before, after, limit))
        session.rollback()
        with database.write() as other:
            blobs.touch(other, [blob.digest])
        return found

    monkeypatch.setattr(garbage, "unused_blobs", touched_meanwhile)
    assert collect(database, store, SETTINGS).blobs == 0
    assert count(database, Blob) == 1
    assert store.size(blob.digest) == blob.size


def test_two_collectors_take_each_thing_once(database: Database, store: BlobStore, repo: Repo) -> None:
    add_builds(database, repo, *[(200, BAD)] * 60)
    for n in range(60):
        keep(database, store, repo, b"%d" % n)
    reports: list[CollectReport] = []
    later = now() + TOMORROW
    threads = [
        threading.Thread(target=lambda: reports.append(collect(database, store, SETTINGS, now=later))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(report.builds for report in reports) == 58
    assert sum(report.blobs for report in reports) == 60
    assert list(store.list()) == []


def test_a_dry_run_says_the_same_and_does_nothing(database: Database, store: BlobStore, repo: Repo) -> None:
    old, *_ = add_builds(database, repo, (200, BAD), (60, OK), (50, OK), (40, BAD))
    with database.write() as session:
        for build in build_ids(database):
            add_everything(session, store, session.get_one(Build, build))
    keep(database, store, repo, b"unused")
    store.put([b"without a row"])
    later = now() + TOMORROW
    planned = collect(database, store, SETTINGS, dry_run=True, now=later)
    assert old in build_ids(database)
    assert len(list(store.list())) == 14
    assert planned.builds == 1
    assert planned.blobs > 2
    assert collect(database, store, SETTINGS, now=later) == planned


@contextmanager
def small_server(directory: Path) -> Iterator[tuple[Path, Database]]:
    config = directory / "albatros.toml"
    config.write_text(f'[server]\ndata = "{directory}"\n')
    url = f"sqlite:///{directory / 'albatros.sqlite3'}"
    migrate.prepare(url)
    database = connect(url)
    yield config, database
    database.dispose()


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], dry_run: bool) -> None:
    parser = argparse.ArgumentParser()
    gc_command.add_parser(parser.add_subparsers())
    with small_server(tmp_path) as (config, database):
        with database.write() as session:
            repo = add_repo(session)
        add_builds(database, repo, *[(200, BAD)] * 21)
        args = parser.parse_args(["gc", "--config", str(config), *(["--dry-run"] if dry_run else [])])
        assert args.func(args) == 0
        assert "builds\t1\n" in capsys.readouterr().out
        assert len(build_ids(database)) == (21 if dry_run else 20)
