"""Rows of blobs on both databases: known per Repo only, young after every touch."""

from datetime import timedelta

from sqlalchemy import func, select, update

from albatros.db import blobs
from albatros.db.models import Blob
from albatros.db.session import Database, now
from albatros.domain.references import digest_of
from tests.support.rows import add_repo

A, B, C = digest_of(b"a"), digest_of(b"b"), digest_of(b"c")
LONG_AGO = timedelta(days=9)


def age_everything(database: Database) -> None:
    with database.write() as session:
        session.execute(update(Blob).values(touched_at=now() - LONG_AGO))


def young(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(Blob.digest).where(Blob.touched_at > now() - LONG_AGO / 2)))


def test_a_repo_knows_its_own_blobs_only(database: Database) -> None:
    with database.write() as session:
        mine, other = add_repo(session, "mine").id, add_repo(session, "other").id
        blobs.record(session, mine, A, 1)
        blobs.record(session, other, B, 1)
        blobs.record(session, None, C, 1)
    with database.write() as session:
        assert blobs.known(session, mine, [A, B, C]) == {A}
        assert blobs.known(session, other, [A, B, C]) == {B}
        assert blobs.known(session, mine, []) == set()


def test_a_blob_that_two_repos_uploaded_is_one_row(database: Database) -> None:
    with database.write() as session:
        repos = [add_repo(session, name).id for name in ("mine", "other")]
        for repo in (*repos, *repos):
            blobs.record(session, repo, A, 1)
        assert session.scalar(select(func.count()).select_from(Blob)) == 1
        assert all(blobs.known(session, repo, [A]) == {A} for repo in repos)


def test_whoever_is_told_of_a_blob_keeps_it_young(database: Database) -> None:
    with database.write() as session:
        repo = add_repo(session).id
        for digest in (A, B, C):
            blobs.record(session, repo, digest, 1)
    age_everything(database)
    with database.write() as session:
        blobs.known(session, repo, [A])
    assert young(database) == {A}
    with database.write() as session:
        assert blobs.touch(session, [B, digest_of(b"absent")]) == {B}
    assert young(database) == {A, B}
    with database.write() as session:
        blobs.record(session, repo, C, 1)
    assert young(database) == {A, B, C}


def test_a_stranger_who_asks_keeps_nothing_young(database: Database) -> None:
    with database.write() as session:
        blobs.record(session, add_repo(session, "mine").id, A, 1)
        stranger = add_repo(session, "stranger").id
    age_everything(database)
    with database.write() as session:
        assert blobs.known(session, stranger, [A]) == set()
    assert young(database) == set()


def test_a_thousand_digests_are_asked_at_once(database: Database) -> None:
    digests = [digest_of(bytes([n // 256, n % 256])) for n in range(1000)]
    with database.write() as session:
        repo = add_repo(session).id
        for digest in digests[::2]:
            blobs.record(session, repo, digest, 2)
        assert blobs.known(session, repo, digests) == set(digests[::2])
