"""Logs on both databases: pieces in order, readers at any moment, sealing that may be killed anywhere."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from albatros.db import logs
from albatros.db.models import Attempt, Blob, LogPiece, RepoBlob
from albatros.db.session import Database
from albatros.domain import references
from albatros.domain.references import digest_of
from albatros.domain.states import AttemptState
from albatros.errors import (
    BadInputError,
    ConflictError,
    GoneError,
    LogGapError,
    NotFoundError,
    StoreFullError,
    TooLargeError,
)
from albatros.store.base import BlobStore
from albatros.store.files import FileStore
from tests.support.rows import add_attempt, add_build, add_job, add_repo
from tests.support.stores import MemoryStore


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return FileStore(tmp_path / "blobs")


@pytest.fixture
def attempt(database: Database) -> str:
    with database.write() as session:
        job = add_job(session, add_build(session, add_repo(session)))
        return add_attempt(session, job).id


def write(database: Database, attempt: str, *pieces: bytes) -> bytes:
    with database.write() as session:
        at = session.scalar(select(Attempt.log_bytes).where(Attempt.id == attempt)) or 0
        first = session.scalar(select(func.count()).select_from(LogPiece).where(LogPiece.attempt_id == attempt)) or 0
        for seq, piece in enumerate(pieces, start=first):
            logs.append(session, attempt, seq, at, piece)
            at += len(piece)
    return b"".join(pieces)


def close(database: Database, attempt: str, state: AttemptState = AttemptState.SUCCEEDED) -> None:
    with database.write() as session:
        session.execute(update(Attempt).where(Attempt.id == attempt).values(state=state))


def rows(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(LogPiece)) or 0


def whole(database: Database, store: BlobStore, attempt: str) -> bytes:
    return b"".join(logs.stream(database, store, attempt))


def test_pieces_are_one_log(database: Database, store: BlobStore, attempt: str) -> None:
    text = write(database, attempt, b"one\n", b"two\n", b"thr", b"ee\n")
    assert whole(database, store, attempt) == text
    with database.read() as session:
        assert session.scalar(select(Attempt.log_bytes)) == len(text)


def test_a_piece_that_is_there_already_changes_nothing(database: Database, store: BlobStore, attempt: str) -> None:
    text = write(database, attempt, b"one\n", b"two\n")
    with database.write() as session:
        logs.append(session, attempt, 0, 0, b"other")
        logs.append(session, attempt, 1, 4, b"two\n")
    assert whole(database, store, attempt) == text


def test_an_empty_first_piece_is_a_piece(database: Database, store: BlobStore, attempt: str) -> None:
    assert whole(database, store, attempt) == b""
    write(database, attempt, b"", b"one\n")
    assert whole(database, store, attempt) == b"one\n"


@pytest.mark.parametrize("before", [(), (b"one\n", b"two\n")])
def test_a_gap_tells_what_is_missing(database: Database, attempt: str, before: tuple[bytes, ...]) -> None:
    write(database, attempt, *before)
    with pytest.raises(LogGapError, match=f"send piece {len(before)} first") as caught, database.write() as session:
        logs.append(session, attempt, len(before) + 1, 100, b"early")
    assert caught.value.expected == len(before)
    assert rows(database) == len(before)


def test_what_does_not_fit_is_refused(database: Database, attempt: str) -> None:
    write(database, attempt, b"one\n")
    with database.write() as session:
        with pytest.raises(BadInputError, match="ends at byte 4"):
            logs.append(session, attempt, 1, 5, b"two\n")
        with pytest.raises(TooLargeError, match="65536"):
            logs.append(session, attempt, 1, 4, b"x" * 65_537)
        with pytest.raises(NotFoundError, match="no attempt nobody"):
            logs.append(session, "nobody", 0, 0, b"")
    close(database, attempt, AttemptState.LOST)
    with database.write() as session, pytest.raises(GoneError, match="closed \\(lost\\)"):
        logs.append(session, attempt, 1, 4, b"late")
    assert rows(database) == 1


@pytest.mark.parametrize("sealed", [False, True])
def test_any_part_can_be_read(database: Database, store: BlobStore, attempt: str, sealed: bool) -> None:
    text = write(database, attempt, *(os.urandom(n) for n in (1, 10, 100, 1000, 0, 3)))
    if sealed:
        close(database, attempt)
        logs.seal(database, store, attempt)
    for start in (0, 1, 2, 10, 11, 12, 500, 1110, 1111, 1113):
        for length in (0, 1, 9, 10, 100, 5000):
            assert logs.read(database, store, attempt, start, length) == text[start : start + length]
    assert logs.read(database, store, attempt, len(text), 10) == b""
    assert logs.read(database, store, attempt, len(text) + 5, 10) == b""
    assert b"".join(logs.stream(database, store, attempt, 1000)) == text[1000:]


def test_one_read_is_bounded(database: Database, store: BlobStore, attempt: str) -> None:
    text = write(database, attempt, *[os.urandom(60_000)] * 30)
    assert logs.read(database, store, attempt, 0, 1 << 40) == text[: logs.READ_BYTES]
    assert whole(database, store, attempt) == text
    close(database, attempt)
    logs.seal(database, store, attempt)
    assert logs.read(database, store, attempt, 0, 1 << 40) == text[: logs.READ_BYTES]
    assert whole(database, store, attempt) == text


def test_the_tail_is_the_last_lines(database: Database, store: BlobStore, attempt: str) -> None:
    assert logs.tail(database, store, attempt, 3) == b""
    write(database, attempt, b"one\ntw", b"o\nthree\n", b"four\nfive\n")
    assert logs.tail(database, store, attempt, 2) == b"four\nfive\n"
    assert logs.tail(database, store, attempt, 4) == b"two\nthree\nfour\nfive\n"
    assert logs.tail(database, store, attempt, 50) == b"one\ntwo\nthree\nfour\nfive\n"
    assert logs.tail(database, store, attempt, 50, max_bytes=12) == b"e\nfour\nfive\n"
    write(database, attempt, b"no end")
    assert logs.tail(database, store, attempt, 2) == b"five\nno end"


def test_sealing_makes_one_blob_and_takes_the_rows_away(database: Database, store: BlobStore, attempt: str) -> None:
    text = write(database, attempt, b"one\n", b"two\n")
    close(database, attempt)
    logs.seal(database, store, attempt)
    assert rows(database) == 0
    assert whole(database, store, attempt) == text
    with database.read() as session:
        digest = session.scalar(select(Attempt.log_digest))
        assert digest == digest_of(text)
        assert session.scalars(select(Blob.digest)).all() == [digest]
        assert session.scalars(select(RepoBlob.digest)).all() == [], "no runner may be told of a log's digest"
    logs.seal(database, store, attempt)
    assert whole(database, store, attempt) == text


def test_an_open_log_is_not_sealed(database: Database, store: BlobStore, attempt: str) -> None:
    text = write(database, attempt, b"one\n")
    with pytest.raises(ConflictError, match="claimed"):
        logs.seal(database, store, attempt)
    assert logs.seal_finished(database, store) == 0
    assert whole(database, store, attempt) == text


def test_a_log_without_a_line_is_sealed_as_nothing(database: Database, store: BlobStore, attempt: str) -> None:
    close(database, attempt)
    logs.seal(database, store, attempt)
    assert whole(database, store, attempt) == b""
    assert list(store.list()) == []


def test_finished_logs_are_sealed_together(database: Database, store: BlobStore, attempt: str) -> None:
    with database.write() as session:
        job = session.get_one(Attempt, attempt).job
        close_one = update(Attempt).where(Attempt.id == attempt).values(state=AttemptState.FAILED)
        session.execute(close_one)
        running = add_attempt(session, job).id
    with database.write() as session:
        session.add(LogPiece(attempt_id=attempt, seq=0, offset=0, data=b"first"))
        session.execute(update(Attempt).where(Attempt.id == attempt).values(log_bytes=5))
    write(database, running, b"second")
    assert logs.seal_finished(database, store) == 1
    assert whole(database, store, attempt) == b"first"
    assert rows(database) == 1
    assert logs.seal_finished(database, store) == 0


class Interrupted(MemoryStore):
    """Runs `meanwhile` after the blob was kept, before sealing goes on."""

    def put(self, chunks: Iterable[bytes]) -> references.Blob:
        blob = super().put(chunks)
        self.meanwhile()
        return blob

    def meanwhile(self) -> None:
        raise KeyboardInterrupt


def test_a_seal_killed_after_the_blob_leaves_a_readable_log(database: Database, attempt: str) -> None:
    text = write(database, attempt, b"one\n", b"two\n")
    close(database, attempt)
    store = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        logs.seal(database, store, attempt)
    assert whole(database, store, attempt) == text
    assert rows(database) == 2
    healed = MemoryStore(blobs=store.blobs)
    assert logs.seal_finished(database, healed) == 1
    assert rows(database) == 0
    assert whole(database, healed, attempt) == text


def test_a_full_store_leaves_the_rows(database: Database, attempt: str) -> None:
    text = write(database, attempt, b"one\n")
    close(database, attempt)
    with pytest.raises(StoreFullError):
        logs.seal_finished(database, MemoryStore(capacity=2))
    assert whole(database, MemoryStore(), attempt) == text


def test_two_servers_may_seal_at_once(database: Database, attempt: str) -> None:
    text = write(database, attempt, b"one\n")
    close(database, attempt)

    class Second(Interrupted):
        def meanwhile(self) -> None:
            logs.seal(database, MemoryStore(blobs=self.blobs), attempt)

    store = Second()
    logs.seal(database, store, attempt)
    assert whole(database, store, attempt) == text
    assert rows(database) == 0


def test_a_log_sealed_between_two_reads_has_no_hole(database: Database, attempt: str) -> None:
    text = write(database, attempt, *[os.urandom(60_000)] * 20)
    close(database, attempt)
    store = MemoryStore()
    stream = logs.stream(database, store, attempt)
    first = next(stream)
    logs.seal(database, store, attempt)
    assert first + b"".join(stream) == text


def test_a_log_that_was_taken_away_says_so(database: Database, store: BlobStore, attempt: str) -> None:
    write(database, attempt, b"one\n")
    close(database, attempt)
    logs.seal(database, store, attempt)
    with database.write() as session:
        session.execute(update(Attempt).values(log_digest=None))
    with pytest.raises(NotFoundError, match=r"retention\.logs_days"):
        logs.read(database, store, attempt, 0, 10)
    with pytest.raises(NotFoundError, match="no attempt nobody"):
        logs.read(database, store, "nobody", 0, 10)
