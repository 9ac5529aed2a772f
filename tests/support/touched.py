"""How much a database looks at to answer: a measure of work that is the same however busy the machine is."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, event
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.pool import ConnectionPoolEntry

from albatros.db.session import Database

STEPS = 10


@dataclass
class Touched:
    """Rows that PostgreSQL's SELECTs looked at, or tens of instructions of SQLite's machine."""

    count: int = 0


@contextmanager
def touched(database: Database) -> Iterator[Touched]:
    """Count while the block runs."""
    seen = Touched()
    if database.is_sqlite:
        with _instructions(database, seen):
            yield seen
    else:
        with _rows(database, seen):
            yield seen


@contextmanager
def _instructions(database: Database, seen: Touched) -> Iterator[None]:
    def step() -> int:
        seen.count += 1
        return 0

    def checkout(connection: DBAPIConnection, _entry: ConnectionPoolEntry, _proxy: object) -> None:
        assert isinstance(connection, sqlite3.Connection)
        connection.set_progress_handler(step, STEPS)

    def checkin(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        assert isinstance(connection, sqlite3.Connection)
        connection.set_progress_handler(None, 0)

    event.listen(database.engine, "checkout", checkout)
    event.listen(database.engine, "checkin", checkin)
    try:
        yield
    finally:
        event.remove(database.engine, "checkout", checkout)
        event.remove(database.engine, "checkin", checkin)


@contextmanager
def _rows(database: Database, seen: Touched) -> Iterator[None]:
    def before(
        connection: Connection,
        _cursor: DBAPICursor,
        statement: str,
        parameters: Sequence[object],
        _context: object,
        many: bool,
    ) -> None:
        if statement.startswith("SELECT") and not many:
            plan = connection.connection.cursor()
            plan.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
            ((answer,),) = plan.fetchall()
            plan.close()
            seen.count += _looked_at((json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"])

    event.listen(database.engine, "before_cursor_execute", before)
    try:
        yield
    finally:
        event.remove(database.engine, "before_cursor_execute", before)


def _looked_at(plan: dict[str, object]) -> int:
    """Rows of the scans of a plan, with those that a filter threw away."""
    below = plan.get("Plans", [])
    assert isinstance(below, list)
    if below:
        return sum(map(_looked_at, below))
    each = sum(float(str(plan.get(key, 0))) for key in ("Actual Rows", "Rows Removed by Filter"))
    return round(each * float(str(plan["Actual Loops"])))
