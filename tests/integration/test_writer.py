"""Group commit on both databases: nothing is told before its commit, and one item's failure is nobody else's."""

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from albatros.db.models import Base, Counter, Token
from albatros.db.session import Database, connect, now
from albatros.db.signals import Signals, Topic
from albatros.db.writer import Writer
from albatros.errors import DatabaseUnavailableError
from tests.support.server_process import eventually


@pytest.fixture
def signals() -> Signals:
    return Signals()


@pytest.fixture
def writer(database: Database, signals: Signals) -> Iterator[Writer]:
    writer = Writer(database, signals)
    yield writer
    writer.close()


def make_token(name: str) -> Token:
    return Token(name=name, token_hash=name, scope="read", created_at=now())


def add_token(name: str, session: Session) -> None:
    session.add(make_token(name))


def names(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(Token.name).order_by(Token.name)))


class Gate:
    """Work that holds the writer until it is opened, so that what is submitted meanwhile is one batch."""

    def __init__(self, writer: Writer) -> None:
        self._entered, self._opened = threading.Event(), threading.Event()
        self._future = writer.submit(self._work)
        assert self._entered.wait(60)

    def _work(self, session: Session) -> None:
        self._entered.set()
        assert self._opened.wait(60)

    def open(self) -> None:
        self._opened.set()
        self._future.result(60)


def test_result_comes_after_the_commit(database: Database, writer: Writer) -> None:
    def work(session: Session) -> str:
        session.add(make_token("a"))
        return "made"

    seen: list[list[str]] = []
    future = writer.submit(work)
    future.add_done_callback(lambda _: seen.append(names(database)))
    assert future.result(60) == "made"
    writer.close()
    assert seen == [["a"]]


def test_a_failing_item_undoes_only_itself(database: Database, writer: Writer) -> None:
    def broken(session: Session) -> None:
        session.add(make_token("broken"))
        session.flush()
        raise ValueError("no")

    gate = Gate(writer)
    good = [writer.submit(partial(add_token, name)) for name in ("a", "b")]
    bad = writer.submit(broken)
    twice = writer.submit(lambda session: session.add(make_token("a")))
    last = writer.submit(lambda session: session.add(make_token("c")))
    gate.open()
    with pytest.raises(ValueError, match="no"):
        bad.result(60)
    with pytest.raises(IntegrityError):
        twice.result(60)
    for future in (*good, last):
        future.result(60)
    assert names(database) == ["a", "b", "c"]


def test_a_batch_is_one_transaction(postgres_url: str, signals: Signals) -> None:
    """PostgreSQL tells the id of a transaction, which SQLite has none of."""
    database = connect(postgres_url)
    writer = Writer(database, signals)
    gate = Gate(writer)
    query = text("SELECT pg_current_xact_id()::text")
    futures = [writer.submit(lambda session: session.scalar(query)) for _ in range(20)]
    gate.open()
    assert len({future.result(60) for future in futures}) == 1
    writer.close()
    database.dispose()


def test_parts_of_one_kind_are_written_together(database: Database, writer: Writer) -> None:
    calls: list[list[str]] = []

    def together(session: Session, parts: Sequence[str]) -> list[str]:
        calls.append(list(parts))
        session.add_all(make_token(part) for part in parts)
        return [part.upper() for part in parts]

    def alone(session: Session) -> str:
        raise AssertionError

    gate = Gate(writer)
    futures = [writer.submit_part(together, name, alone) for name in ("a", "b")]
    between = writer.submit(partial(add_token, "c"))
    gate.open()
    between.result(60)
    assert [future.result(60) for future in futures] == ["A", "B"]
    assert calls == [["a", "b"]]
    assert names(database) == ["a", "b", "c"]


def test_parts_that_fail_together_are_written_alone(database: Database, writer: Writer) -> None:
    """One part in the middle that cannot be written costs the others a second try, and nothing else."""

    def together(session: Session, parts: Sequence[str]) -> list[str]:
        session.add_all(make_token(part) for part in parts)
        session.flush()
        return list(parts)

    def alone(name: str, session: Session) -> str:
        session.add(make_token(name))
        return "alone"

    gate = Gate(writer)
    futures = [writer.submit_part(together, name, partial(alone, name)) for name in ("a", "b", "b", "c")]
    gate.open()
    outcomes = [future.exception(10) or future.result(60) for future in futures]
    assert outcomes[:2] == ["alone", "alone"]
    assert isinstance(outcomes[2], IntegrityError)
    assert outcomes[3] == "alone"
    assert names(database) == ["a", "b", "c"]


def test_a_failing_transaction_fails_its_whole_batch(database: Database, writer: Writer) -> None:
    def end_the_transaction(session: Session) -> None:
        session.connection().connection.cursor().execute("ROLLBACK")

    gate = Gate(writer)
    first = writer.submit(lambda session: session.add(make_token("a")))
    writer.submit(end_the_transaction)
    last = writer.submit(lambda session: session.add(make_token("b")))
    gate.open()
    for future in (first, last):
        with pytest.raises(DatabaseUnavailableError):
            future.result(60)
    assert names(database) == []
    writer.submit(lambda session: session.add(make_token("after"))).result(60)
    assert names(database) == ["after"]


def test_topics_are_notified_for_what_was_committed(writer: Writer, signals: Signals) -> None:
    def broken(session: Session) -> None:
        raise ValueError("no")

    writer.submit(lambda session: session.add(make_token("a")), Topic.SCHEDULER).result(60)
    failed = writer.submit(broken, Topic.REPORTER)
    with pytest.raises(ValueError, match="no"):
        failed.result(60)
    assert signals.seen(Topic.SCHEDULER) == 1
    assert signals.seen(Topic.REPORTER) == 0


def test_it_is_busy_until_everybody_is_answered(writer: Writer) -> None:
    assert not writer.is_busy()
    gate = Gate(writer)
    assert writer.is_busy()
    last = writer.submit(lambda session: None)
    gate.open()
    last.result(60)
    eventually(lambda: not writer.is_busy(), lambda: "the writer is still busy")


def test_a_full_queue_refuses_at_once(database: Database, signals: Signals) -> None:
    writer = Writer(database, signals, queued_items=2)
    gate = Gate(writer)
    for _ in range(2):
        writer.submit(lambda session: None)
    with pytest.raises(DatabaseUnavailableError, match="2 writes wait"):
        writer.submit(lambda session: None)
    gate.open()
    writer.close()


def test_close_commits_what_was_submitted(database: Database, signals: Signals) -> None:
    writer = Writer(database, signals, batch_items=3)
    gate = Gate(writer)
    for number in range(10):
        writer.submit(partial(add_token, f"t{number}"))
    gate.open()
    writer.close()
    assert len(names(database)) == 10
    with pytest.raises(DatabaseUnavailableError, match="shutting down"):
        writer.submit(lambda session: None)


def test_a_cancelled_item_is_left_out(database: Database, writer: Writer) -> None:
    gate = Gate(writer)
    future = writer.submit(lambda session: session.add(make_token("a")))
    assert future.cancel()
    gate.open()
    writer.close()
    assert names(database) == []


def test_counts_are_merged_and_kept(database: Database, writer: Writer) -> None:
    gate = Gate(writer)
    for _ in range(500):
        writer.count("refused")
    gate.open()
    writer.count("refused")
    writer.close()
    with database.read() as session:
        counter = session.get(Counter, "refused")
        assert counter is not None
        assert counter.value == 501


def test_items_that_deadlock_with_another_server_are_tried_again(postgres_url: str, signals: Signals) -> None:
    """Two writers lock two rows in opposite order: PostgreSQL ends one of them, which goes through the second time."""
    databases = [connect(postgres_url), connect(postgres_url)]
    Base.metadata.create_all(databases[0].engine)
    with databases[0].write() as session:
        session.add_all([make_token("a"), make_token("b")])
    writers = [Writer(database, signals) for database in databases]
    first_locks = threading.Barrier(2)
    runs: list[str] = []

    def update_both(order: tuple[str, str]) -> Callable[[Session], int]:
        def work(session: Session) -> int:
            runs.append(order[0])
            for place, name in enumerate(order):
                session.execute(text("UPDATE tokens SET scope = scope || 'x' WHERE name = :name"), {"name": name})
                if place == 0 and len(runs) <= 2:
                    first_locks.wait(60)
            return 1

        return work

    futures = [
        writer.submit(update_both(order)) for writer, order in zip(writers, [("a", "b"), ("b", "a")], strict=True)
    ]
    assert [future.result(60) for future in futures] == [1, 1]
    assert len(runs) >= 3, "the one that the database gave up was tried again"
    for writer in writers:
        writer.close()
    with databases[0].read() as session:
        assert set(session.scalars(select(Token.scope))) == {"readxx"}
    for database in databases:
        database.dispose()
