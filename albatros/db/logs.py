"""Logs of Attempts: numbered pieces as rows while the runner writes, one blob in the store once it has ended.

Pieces of an Attempt have no gaps in number or offset. A reader sees the whole log at any time: the blob is written
first, then one transaction names it and takes the rows away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from albatros.db import blobs
from albatros.db.models import Attempt, LogPiece
from albatros.db.session import Database
from albatros.domain.references import Blob, Digest
from albatros.domain.states import OPEN_ATTEMPTS, AttemptState
from albatros.errors import BadInputError, ConflictError, GoneError, LogGapError, NotFoundError, TooLargeError

PIECE_BYTES = 64 << 10
"""Largest piece."""
READ_BYTES = 1 << 20
"""Most bytes that one `read` gives."""


class LogStore(Protocol):
    """What sealing needs of the blob store."""

    def put(self, chunks: Iterable[bytes]) -> Blob:
        """Keep a blob."""
        ...

    def open(self, digest: Digest) -> AbstractContextManager[BinaryIO]:
        """Read a blob. Raises NotFoundError."""
        ...


def append(session: Session, attempt_id: str, seq: int, offset: int, data: bytes) -> None:
    """Add piece number `seq`, which begins at byte `offset` of the log; a piece that is there already is ignored.

    Raises LogGapError when an earlier piece is missing, BadInputError when it does not begin where the log ends,
    TooLargeError over PIECE_BYTES, GoneError when the Attempt is closed, NotFoundError.
    """
    if len(data) > PIECE_BYTES:
        raise TooLargeError(f"log piece {seq} has {len(data)} bytes; send at most {PIECE_BYTES} in one")
    state, end = _attempt(session, attempt_id, lock=True)
    if state not in OPEN_ATTEMPTS:
        raise GoneError(f"attempt {attempt_id} is closed ({state}); its log takes no more")
    last = session.scalar(select(func.max(LogPiece.seq)).where(LogPiece.attempt_id == attempt_id))
    expected = 0 if last is None else last + 1
    if seq < expected:
        return
    if seq > expected:
        raise LogGapError(expected, f"log piece {seq} of attempt {attempt_id} came early; send piece {expected} first")
    if offset != end:
        raise BadInputError(f"log piece {seq} says it begins at byte {offset}, but the log ends at byte {end}")
    session.add(LogPiece(attempt_id=attempt_id, seq=seq, offset=offset, data=data))
    session.execute(update(Attempt).where(Attempt.id == attempt_id).values(log_bytes=end + len(data)))


def append_next(session: Session, attempt_id: str, data: bytes) -> None:
    """Add to the end of a log, in as many pieces as it takes.

    Raises GoneError when the Attempt is closed, NotFoundError.
    """
    _, end = _attempt(session, attempt_id, lock=True)
    last = session.scalar(select(func.max(LogPiece.seq)).where(LogPiece.attempt_id == attempt_id))
    first = 0 if last is None else last + 1
    for number, start in enumerate(range(0, len(data), PIECE_BYTES)):
        append(session, attempt_id, first + number, end + start, data[start : start + PIECE_BYTES])


def read(database: Database, store: LogStore, attempt_id: str, start: int, length: int) -> bytes:
    """Bytes of a log from `start` on: fewer than `length` at its end or after READ_BYTES, none behind its end.

    Raises NotFoundError when there is no such Attempt or its log was taken away by the retention, StoreError.
    """
    stop = start + min(length, READ_BYTES)
    with database.read() as session:
        # In this order: when no blob is named after the rows were read, none of them had been taken away before.
        _, end = _attempt(session, attempt_id)
        data = _from_rows(session, attempt_id, start, stop)
        digest = _sealed_digest(session, attempt_id)
    if digest is None:
        if start < min(end, stop) and not data:
            raise NotFoundError(f"the log of attempt {attempt_id} is older than retention.logs_days and was taken away")
        return data
    with store.open(digest) as file:
        file.seek(start)
        return file.read(stop - start)


def stream(database: Database, store: LogStore, attempt_id: str, start: int = 0) -> Iterator[bytes]:
    """A log from byte `start` to its present end, in pieces of at most READ_BYTES. Raises as `read`."""
    while data := read(database, store, attempt_id, start, READ_BYTES):
        yield data
        start += len(data)


def tail(database: Database, store: LogStore, attempt_id: str, lines: int, max_bytes: int = PIECE_BYTES) -> bytes:
    """The last `lines` lines of a log, or what of them fits into `max_bytes`. Raises as `read`."""
    with database.read() as session:
        _, end = _attempt(session, attempt_id)
    data = read(database, store, attempt_id, max(0, end - max_bytes), max_bytes)
    body = data.removesuffix(b"\n").rsplit(b"\n", lines)
    return data if len(body) <= lines else data[len(body[0]) + 1 :]


def seal(database: Database, store: LogStore, attempt_id: str) -> None:
    """Make one blob of a closed Attempt's log; nothing happens when it has one or there is no log.

    Raises ConflictError while the Attempt is open, NotFoundError, StoreError.
    """
    with database.read() as session:
        state, size = _attempt(session, attempt_id)
        if state in OPEN_ATTEMPTS:
            raise ConflictError(f"attempt {attempt_id} is {state}; its log can be sealed once it has ended")
        if size == 0 or _sealed_digest(session, attempt_id) is not None:
            return
    blob = store.put(stream(database, store, attempt_id))
    with database.write() as session:
        _attempt(session, attempt_id, lock=True)
        if _sealed_digest(session, attempt_id) is not None:
            return
        blobs.record(session, None, blob.digest, blob.size)
        session.execute(update(Attempt).where(Attempt.id == attempt_id).values(log_digest=blob.digest))
        session.execute(delete(LogPiece).where(LogPiece.attempt_id == attempt_id))


def seal_finished(database: Database, store: LogStore, limit: int = 100) -> int:
    """Seal the logs of up to `limit` closed Attempts that are still rows; how many there were. Raises StoreError."""
    closed = (
        select(LogPiece.attempt_id)
        .join(Attempt, Attempt.id == LogPiece.attempt_id)
        .where(Attempt.state.not_in(OPEN_ATTEMPTS), LogPiece.seq == 0)
        .limit(limit)
    )
    with database.read() as session:
        attempts = session.scalars(closed).all()
    for attempt_id in attempts:
        seal(database, store, attempt_id)
    return len(attempts)


def _attempt(session: Session, attempt_id: str, *, lock: bool = False) -> tuple[AttemptState, int]:
    """State of an Attempt and length of its log in bytes."""
    statement = select(Attempt.state, Attempt.log_bytes).where(Attempt.id == attempt_id)
    row = session.execute(statement.with_for_update() if lock else statement).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no attempt {attempt_id}")
    return row[0], row[1]


def _sealed_digest(session: Session, attempt_id: str) -> Digest | None:
    digest = session.scalar(select(Attempt.log_digest).where(Attempt.id == attempt_id))
    return None if digest is None else Digest(digest)


def _from_rows(session: Session, attempt_id: str, start: int, stop: int) -> bytes:
    of_attempt = LogPiece.attempt_id == attempt_id
    before = select(LogPiece.seq).where(of_attempt, LogPiece.offset <= start)
    first = session.scalar(before.order_by(LogPiece.seq.desc()).limit(1))
    if first is None:
        return b""
    pieces = select(LogPiece.offset, LogPiece.data).where(of_attempt, LogPiece.seq >= first, LogPiece.offset < stop)
    rows = session.execute(pieces.order_by(LogPiece.seq))
    return b"".join(data[max(0, start - offset) : stop - offset] for offset, data in rows)
