"""Transactions on both databases: whole or not at all, and every failure of the database as one kind of error."""

import sqlite3
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from albatros.db import session as module
from albatros.db.models import Base, Counter
from albatros.db.session import Database, connect, now
from albatros.errors import ConfigError, DatabaseUnavailableError
from tests.support.rows import add_build, add_repo


def names(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(Counter.name)))


def fail_halfway(database: Database, error: BaseException) -> None:
    with database.write() as session:
        session.add(Counter(name="half"))
        session.flush()
        raise error


def test_a_block_is_committed_at_its_end(database: Database) -> None:
    with database.write() as session:
        session.add(Counter(name="kept", value=1))
        session.flush()
        assert names(database) == set()
    assert names(database) == {"kept"}


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_block_that_raises_leaves_nothing(database: Database, error: BaseException) -> None:
    with pytest.raises(type(error)):
        fail_halfway(database, error)
    assert names(database) == set()


def test_reading_never_commits(database: Database) -> None:
    with database.read() as session:
        session.add(Counter(name="stray"))
        session.flush()
    assert names(database) == set()


def test_objects_can_be_used_after_their_transaction(database: Database) -> None:
    with database.write() as session:
        build = add_build(session, add_repo(session))
    assert (build.number, build.repo.full_name) == (1, "alba/hello")


def test_a_writer_waits_for_another_and_nobody_is_lost(database: Database) -> None:
    with database.write() as session:
        session.add(Counter(name="shared", value=0))

    def count() -> None:
        for _ in range(25):
            with database.write() as session:
                row = session.scalars(select(Counter).with_for_update()).one()
                row.value += 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert session.scalars(select(Counter.value)).one() == 100


def test_a_reader_does_not_wait_for_a_writer(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with database.write() as session:
        session.add(Counter(name="held"))
        session.flush()
        assert names(database) == set()


def test_references_are_checked(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(text("INSERT INTO repo_blobs (repo_id, digest) VALUES (1, 'sha256:00')"))


def test_more_work_than_connections_waits_or_says_so(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database.engine.pool, "_timeout", 0.05)
    taken = [database.engine.connect() for _ in range(2 * module.POOL_SIZE)]
    with pytest.raises(DatabaseUnavailableError, match="every connection to the database is in use"):
        names(database)
    for connection in taken:
        connection.close()
    assert names(database) == set()


def test_a_database_that_went_away_and_came_back(postgres_url: str) -> None:
    database = connect(postgres_url)
    Base.metadata.create_all(database.engine)
    kill = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = :name"
    )
    other = connect(postgres_url)

    def cut_off() -> None:
        with other.write() as session:
            session.execute(kill, {"name": other.engine.url.database})

    def use_it_when_it_is_cut_off() -> None:
        with database.write() as session:
            session.add(Counter(name="lost"))
            session.flush()
            cut_off()
            session.commit()

    with pytest.raises(DatabaseUnavailableError, match="work resumes"):
        use_it_when_it_is_cut_off()
    assert names(database) == set()
    database.dispose()
    other.dispose()


def test_a_locked_sqlite_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    database = connect(f"sqlite:///{tmp_path}/a.sqlite3")
    Base.metadata.create_all(database.engine)
    other = sqlite3.connect(tmp_path / "a.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailableError, match="locked by another writer"):
        fail_halfway(database, ValueError())
    other.rollback()
    with database.write() as session:
        session.add(Counter(name="later"))
    assert names(database) == {"later"}
    other.close()
    database.dispose()


def test_a_full_sqlite_says_so_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    database = connect(f"sqlite:///{tmp_path}/a.sqlite3")
    Base.metadata.create_all(database.engine)
    with database.read() as session:
        pages = session.scalar(text("PRAGMA page_count")) or 0

    def fill(limit: int) -> None:
        with database.write() as session:
            session.execute(text(f"PRAGMA max_page_count = {limit}"))
            for n in range(2000):
                session.add(Counter(name=f"{n:0200}", value=n))

    with pytest.raises(DatabaseUnavailableError, match="disk is full; free some space"):
        fill(pages + 2)
    assert names(database) == set()
    fill(1_000_000)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Counter)) == 2000
    database.dispose()


def test_nobody_else_reads_the_database(tmp_path: Path) -> None:
    database = connect(f"sqlite:///{tmp_path}/data/a.sqlite3")
    Base.metadata.create_all(database.engine)
    with database.write() as session:
        session.add(Counter(name="a"))
        files = list((tmp_path / "data").iterdir())
        assert len(files) == 3
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    database.dispose()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nothing", "database.url is no URL"),
        ("mysql://x", "mysql is not supported"),
        ("postgresql+asyncpg://x/y", "asyncpg is not supported"),
        ("sqlite://", "SQLite needs a file"),
        ("sqlite:///:memory:", "SQLite needs a file"),
        ("sqlite:////proc/nowhere/a.sqlite3", "cannot be made: .*; check server.data"),
    ],
)
def test_an_unusable_url_is_refused(url: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        connect(url)


def test_times_are_utc_without_a_zone() -> None:
    assert now().tzinfo is None
    assert abs(now() - datetime.now(UTC).replace(tzinfo=None)) < timedelta(minutes=1)
