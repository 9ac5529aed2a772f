"""Many rows in one statement, whose text does not grow with them.

PostgreSQL takes the values of a column as one array. A parameter for each value would make a text of 100 kB, which the
driver splits in Python, the server parses, and neither can prepare; and it reads a long list of tuples as a filter over
every row that the first column lets through. SQLite even reads the whole table for such a list: there the keys are one
JSON text, and each is looked up by its index.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Executable,
    Insert,
    Result,
    String,
    Table,
    TableValuedAlias,
    and_,
    bindparam,
    column,
    func,
    select,
)
from sqlalchemy.orm import Session

from albatros.db.upsert import dialect_of

_PREFIX = "all_"
Columns = tuple[Column[Any], ...]
Rows = Result[*tuple[Any, ...]]


def insert_rows(session: Session, statement: Insert, rows: Sequence[Mapping[str, object]]) -> Rows:
    """Run an INSERT for rows that all have the same columns. `statement` is one that is kept: what is made of it is."""
    if dialect_of(session) == "sqlite":
        return _run(session, statement, rows)
    names = tuple(rows[0])
    arrays = {_PREFIX + name: [row[name] for row in rows] for name in names}
    return _run(session, _from_arrays(statement, names), arrays)


def find_rows(
    session: Session,
    wanted: Columns,
    key: Columns,
    keys: Sequence[tuple[object, ...]],
    *conditions: ColumnElement[bool],
) -> Rows:
    """The `wanted` columns of the rows whose `key` columns, texts or numbers, have one of the values `keys`."""
    if dialect_of(session) == "sqlite":
        return _run(session, _find_by_json(wanted, key, conditions), {"keys": json.dumps(keys)})
    values = zip(*keys, strict=True)
    arrays = {_PREFIX + part.name: list(of_part) for part, of_part in zip(key, values, strict=True)}
    return _run(session, _find_by_arrays(wanted, key, conditions), arrays)


def is_among(dialect: str, part: Column[Any], name: str) -> ColumnElement[bool]:
    """A condition: a column has one of the values of the parameter `name`, a list."""
    if dialect == "sqlite":
        return part.in_(bindparam(name, expanding=True))
    # Not `= ANY(array)`: for that PostgreSQL reads the whole of a table of which it has no statistics yet.
    return part.in_(select(func.unnest(bindparam(name, type_=_array_of(part)))))


def _run(session: Session, statement: Executable, values: Any) -> Rows:
    return session.execute(statement, values)


@cache
def _from_arrays(statement: Insert, names: tuple[str, ...]) -> Insert:
    table = cast("Table", statement.table)
    rows = _unnest(tuple(table.c[name] for name in names))
    return statement.from_select(list(names), select(*rows.c))


@cache
def _find_by_json(wanted: Columns, key: Columns, conditions: tuple[ColumnElement[bool], ...]) -> Executable:
    keys = func.json_each(bindparam("keys", type_=String())).table_valued("value", name="keys")
    same = [part == func.json_extract(keys.c.value, f"$[{place}]") for place, part in enumerate(key)]
    return select(*wanted).join_from(keys, key[0].table, and_(*same)).where(*conditions)


@cache
def _find_by_arrays(wanted: Columns, key: Columns, conditions: tuple[ColumnElement[bool], ...]) -> Executable:
    rows = _unnest(key)
    same = [part == rows.c[part.name] for part in key]
    return select(*wanted).join_from(key[0].table, rows, and_(*same)).where(*conditions)


def _unnest(columns: Columns) -> TableValuedAlias:
    arrays = [bindparam(_PREFIX + part.name, type_=_array_of(part)) for part in columns]
    named = [column(part.name, part.type) for part in columns]
    return func.unnest(*arrays).table_valued(*named).render_derived()


def _array_of(part: Column[Any]) -> ARRAY[Any]:
    # A cast to varchar(n)[] cuts what is too long, where the column itself refuses it.
    return ARRAY(String() if type(part.type) is String else part.type, dimensions=1)
