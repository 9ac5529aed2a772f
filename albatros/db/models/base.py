"""The base of all tables: names of constraints, and the column types they share."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    Enum,
    Integer,
    MetaData,
    String,
    Text,
)
from sqlalchemy.orm import DeclarativeBase

BigId = BigInteger().with_variant(Integer, "sqlite")

ShortText = String(255)

LongText = Text


class Base(DeclarativeBase):
    """What every table is; constraints have names, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def enum_column(kind: type[StrEnum]) -> Enum:
    """A string column that holds an enum's values; new members need no migration of a database type."""
    return Enum(kind, native_enum=False, length=32, values_callable=lambda members: [m.value for m in members])
