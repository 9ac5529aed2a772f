"""Engines and transactions. Times in the database are UTC and come from the server's clock through `now()`.

SQLite runs in WAL mode with foreign keys on and takes its write lock at the start of a writing transaction, so that
two writers wait for one another instead of failing in the middle.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from albatros.errors import ConfigError, DatabaseUnavailableError

if TYPE_CHECKING:
    import psycopg

BUSY_SECONDS = 10
POOL_SIZE = 8
LOCKED = f"the database is locked by another writer for more than {BUSY_SECONDS} s; the work is tried again"


def now() -> datetime:
    """The current time, UTC, naive as both databases store it."""
    return datetime.now(UTC).replace(tzinfo=None)


class Database:
    """One database, and the only way to a transaction on it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._turn = threading.Lock()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: committed at the end of the block, rolled back when it raises.

        Raises DatabaseUnavailableError when the database is locked, full or unreachable.
        """
        with self._own_turn(), self._session() as session:
            if self.is_sqlite:
                session.connection(execution_options={"sqlite_begin": "IMMEDIATE"})
            yield session
            session.commit()

    @contextmanager
    def _own_turn(self) -> Iterator[None]:
        """Threads of one process take turns on SQLite: its own lock is polled, with pauses of up to 100 ms."""
        if not self.is_sqlite:
            yield
            return
        if not self._turn.acquire(timeout=BUSY_SECONDS):
            raise DatabaseUnavailableError(LOCKED)
        try:
            yield
        finally:
            self._turn.release()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that is never committed."""
        with self._session() as session:
            yield session

    @contextmanager
    def _session(self) -> Iterator[Session]:
        session = Session(self.engine, expire_on_commit=False)
        try:
            yield session
        except (OperationalError, InterfaceError) as error:
            session.rollback()
            raise DatabaseUnavailableError(_explain(error)) from error
        except PoolTimeoutError as error:
            session.rollback()
            raise DatabaseUnavailableError(
                "every connection to the database is in use; the work is tried again"
            ) from error
        except BaseException:
            session.rollback()
            raise
        finally:
            session.close()

    def dispose(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def connect(url: str) -> Database:
    """Open the database at a SQLAlchemy URL (`sqlite:///PATH` or `postgresql+psycopg://…`). Raises ConfigError."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError("database.url is no URL; use sqlite:///PATH or postgresql+psycopg://…") from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return Database(_sqlite_engine(url, parsed.database))
    if backend == "postgresql" and parsed.get_driver_name() == "psycopg":
        engine = create_engine(
            url, pool_size=POOL_SIZE, max_overflow=POOL_SIZE, pool_pre_ping=True, hide_parameters=True
        )
        event.listen(engine, "connect", _prepare_postgresql)
        return Database(engine)
    raise ConfigError(
        f"database.url: {parsed.drivername} is not supported; use sqlite:///PATH or postgresql+psycopg://…"
    )


def _sqlite_engine(url: str, path: str | None) -> Engine:
    if not path or path == ":memory:":
        raise ConfigError("database.url: SQLite needs a file, since several threads share it; use sqlite:///PATH")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # Only its owner may read it, and SQLite gives the files beside it the same rights.
        Path(path).touch(mode=0o600)
    except OSError as error:
        raise ConfigError(
            f"the database {path} cannot be made: {error.strerror}; check server.data and its owner"
        ) from error
    engine = create_engine(
        url, pool_size=POOL_SIZE, max_overflow=POOL_SIZE, connect_args={"timeout": BUSY_SECONDS}, hide_parameters=True
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver's own transaction control begins DEFERRED and too late; `_begin_sqlite` says BEGIN instead.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-4096"):
        connection.execute(f"PRAGMA {pragma}")


def _prepare_postgresql(connection: psycopg.Connection, _record: object) -> None:
    from psycopg.types.array import ListBinaryDumper  # noqa: PLC0415 - SQLite needs no driver in memory

    # The driver writes arrays as texts, in Python: for the bodies of webhooks that is most of what a push costs.
    connection.adapters.register_dumper(list, ListBinaryDumper)


def _begin_sqlite(connection: Connection) -> None:
    options: dict[str, Any] = dict(connection.get_execution_options())
    connection.exec_driver_sql(f"BEGIN {options.get('sqlite_begin', 'DEFERRED')}")


def _explain(error: OperationalError | InterfaceError) -> str:
    text = str(error.orig).lower()
    if "locked" in text or "busy" in text:
        return LOCKED
    if "full" in text or "no space" in text:
        return "the database's disk is full; free some space, and the work resumes"
    return f"the database cannot be used ({error.orig}); the work resumes when it is back"
