"""What sources were read as, on both databases: per Repo, and only while every layer is there to stay."""

from datetime import timedelta

import pytest
from sqlalchemy import delete, update

from albatros.db import blobs
from albatros.db.models import Blob as BlobRow
from albatros.db.session import Database, now
from albatros.db.sources import RepoSourceMemory
from albatros.domain.references import Blob, digest_of
from tests.support.rows import add_repo

SOURCE, HOW = digest_of(b"archive"), digest_of(b"how")
LAYERS = [Blob(digest_of(b"one"), 3), Blob(digest_of(b"two"), 3)]


@pytest.fixture
def repos(database: Database) -> tuple[int, int]:
    with database.write() as session:
        for layer in LAYERS:
            blobs.record(session, None, layer.digest, layer.size)
        return add_repo(session, "mine").id, add_repo(session, "other").id


def test_a_source_is_remembered_for_its_repo_and_way_of_reading(database: Database, repos: tuple[int, int]) -> None:
    mine, other = (RepoSourceMemory(database, repo) for repo in repos)
    assert mine.recall(SOURCE, HOW) is None
    mine.remember(SOURCE, HOW, "parts", LAYERS)
    assert mine.recall(SOURCE, HOW) == "parts"
    assert mine.recall(SOURCE, digest_of(b"another")) is None
    assert other.recall(SOURCE, HOW) is None, "nobody is told what another Repo has"
    mine.remember(SOURCE, HOW, "newer", LAYERS[:1])
    assert mine.recall(SOURCE, HOW) == "newer"


def test_whether_a_source_was_ever_read_is_known_for_its_repo(database: Database, repos: tuple[int, int]) -> None:
    mine, other = (RepoSourceMemory(database, repo) for repo in repos)
    assert not mine.knows(SOURCE)
    mine.remember(SOURCE, HOW, "parts", LAYERS)
    assert (mine.knows(SOURCE), mine.knows(LAYERS[0].digest), other.knows(SOURCE)) == (True, False, False)


def test_recalling_keeps_the_layers(database: Database, repos: tuple[int, int]) -> None:
    memory = RepoSourceMemory(database, repos[0])
    memory.remember(SOURCE, HOW, "parts", LAYERS)
    long_ago = now() - timedelta(days=30)
    with database.write() as session:
        session.execute(update(BlobRow).values(touched_at=long_ago))
    assert memory.recall(SOURCE, HOW) == "parts"
    with database.read() as session:
        assert all(session.get_one(BlobRow, layer.digest).touched_at > long_ago for layer in LAYERS)


def test_a_source_that_lost_a_layer_is_not_known(database: Database, repos: tuple[int, int]) -> None:
    memory = RepoSourceMemory(database, repos[0])
    memory.remember(SOURCE, HOW, "parts", LAYERS)
    with database.write() as session:
        session.execute(delete(BlobRow).where(BlobRow.digest == LAYERS[1].digest))
    assert memory.recall(SOURCE, HOW) is None
