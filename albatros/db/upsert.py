"""INSERT … ON CONFLICT for both databases: the statement that lets two servers write the same row at once.

Statements on busy paths are made once for each dialect and given their values when they run: to make one anew costs
more than the database takes to run it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import cast

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from albatros.db.models import Base, Counter


def table_of(model: type[Base]) -> Table:
    """A model's table, for statements that are to make no objects."""
    return cast("Table", model.__table__)


def dialect_of(session: Session) -> str:
    """`sqlite` or `postgresql`."""
    return session.get_bind().dialect.name


def insert_into(dialect: str, table: Table | type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that takes `on_conflict_do_nothing` and `on_conflict_do_update`, in one dialect."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def insert(session: Session, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """The same in the session's dialect."""
    return insert_into(dialect_of(session), table)


@cache
def _add_to_counter(dialect: str) -> postgresql.Insert | sqlite.Insert:
    table = table_of(Counter)
    statement = insert_into(dialect, table)
    total = table.c.value + statement.excluded.value
    return statement.on_conflict_do_update(index_elements=["name"], set_={"value": total})


def add_to_counters(session: Session, amounts: Mapping[str, int]) -> None:
    """Add to named counters, which begin at nought."""
    for name in sorted(amounts):
        session.execute(_add_to_counter(dialect_of(session)), {"name": name, "value": amounts[name]})
