"""INSERT … ON CONFLICT for both databases: the statement that lets two servers write the same row at once."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from albatros.db.models import Base, Counter


def insert(session: Session, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that takes `on_conflict_do_nothing` and `on_conflict_do_update`, in the session's dialect."""
    if session.get_bind().dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def add_to_counters(session: Session, amounts: Mapping[str, int]) -> None:
    """Add to named counters, which begin at nought."""
    for name in sorted(amounts):
        statement = insert(session, Counter).values(name=name, value=amounts[name])
        total = Counter.value + statement.excluded.value
        session.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": total}))
