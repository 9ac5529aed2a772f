"""The cache of layers on both databases: per Repo, and never a blob that is about to go."""

from datetime import timedelta

import pytest
from sqlalchemy import delete, update

from albatros.db import blobs
from albatros.db.layers import RepoLayerCache
from albatros.db.models import Blob as BlobRow
from albatros.db.session import Database, now
from albatros.domain.references import Blob, digest_of
from tests.support.rows import add_repo

LAYER, PACKED = digest_of(b"layer"), Blob(digest_of(b"packed"), 6)
CODEC = "gzip:4"


@pytest.fixture
def repos(database: Database) -> tuple[int, int]:
    with database.write() as session:
        blobs.record(session, None, PACKED.digest, PACKED.size)
        return add_repo(session, "mine").id, add_repo(session, "other").id


def test_a_layer_is_remembered_for_its_repo_and_codec(database: Database, repos: tuple[int, int]) -> None:
    mine, other = (RepoLayerCache(database, repo) for repo in repos)
    assert mine.lookup(LAYER, CODEC) is None
    mine.store(LAYER, CODEC, PACKED)
    assert mine.lookup(LAYER, CODEC) == PACKED
    assert mine.lookup(LAYER, "zstd:3") is None
    assert other.lookup(LAYER, CODEC) is None, "nobody is told what another Repo has"


def test_what_is_stored_again_is_replaced(database: Database, repos: tuple[int, int]) -> None:
    cache = RepoLayerCache(database, repos[0])
    cache.store(LAYER, CODEC, Blob(digest_of(b"older"), 5))
    assert cache.lookup(LAYER, CODEC) is None, "its blob has no row"
    cache.store(LAYER, CODEC, PACKED)
    assert cache.lookup(LAYER, CODEC) == PACKED


def test_looking_keeps_the_blob(database: Database, repos: tuple[int, int]) -> None:
    cache = RepoLayerCache(database, repos[0])
    cache.store(LAYER, CODEC, PACKED)
    long_ago = now() - timedelta(days=30)
    with database.write() as session:
        session.execute(update(BlobRow).values(touched_at=long_ago))
    assert cache.lookup(LAYER, CODEC) == PACKED
    with database.read() as session:
        assert session.get_one(BlobRow, PACKED.digest).touched_at > long_ago


def test_a_blob_whose_row_is_gone_is_not_counted_on(database: Database, repos: tuple[int, int]) -> None:
    cache = RepoLayerCache(database, repos[0])
    cache.store(LAYER, CODEC, PACKED)
    with database.write() as session:
        session.execute(delete(BlobRow))
    assert cache.lookup(LAYER, CODEC) is None
