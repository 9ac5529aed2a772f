"""Brings a database to the tables of this version. An upgrade is one transaction: all of it, or nothing.

SQLite belongs to one server, which upgrades it when it starts. PostgreSQL may have other servers on it, so a person
says when: `albatros db upgrade`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from albatros import assets
from albatros.db.session import connect
from albatros.errors import ConfigError, DatabaseUnavailableError
from albatros.log import get_logger

_ADVISORY_LOCK = 0x616C6261
"""Held on PostgreSQL while upgrading, so that two `albatros db upgrade` wait for one another."""

log = get_logger(__name__)


def head() -> str:
    """The newest revision that this version of Albatros knows."""
    revision = ScriptDirectory.from_config(config()).get_current_head()
    if revision is None:
        raise ConfigError(f"{assets.migrations_dir()} holds no migrations; install Albatros again")
    return revision


def current(url: str) -> str | None:
    """The revision a database is at; None before the first upgrade. Raises DatabaseUnavailableError, ConfigError."""
    with _connection(url) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(url: str) -> str:
    """Bring a database to `head()` and say so. Raises ConfigError when it is newer, DatabaseUnavailableError."""
    with _connection(url) as connection:
        before = MigrationContext.configure(connection).get_current_revision()
        target = head()
        if before != target:
            settings = config()
            settings.attributes["connection"] = connection
            try:
                command.upgrade(settings, "head")
            except CommandError as error:
                raise ConfigError(_newer(before)) from error
            _check_foreign_keys(connection)
            connection.commit()
            log.info("database upgraded", before=before or "empty", now=target)
    return target


def prepare(url: str) -> None:
    """What a server does at its start: SQLite is upgraded, PostgreSQL must have been. Raises ConfigError."""
    if url.startswith("sqlite"):
        upgrade(url)
        return
    found, wanted = current(url), head()
    if found == wanted:
        return
    if found is not None and found > wanted:
        raise ConfigError(_newer(found))
    raise ConfigError(
        f"the database is at revision {found or 'none'}, this Albatros needs {wanted}; "
        "stop the other servers and run `albatros db upgrade`"
    )


def config() -> Config:
    """Alembic's settings: where the migrations are."""
    settings = Config()
    settings.set_main_option("script_location", str(assets.migrations_dir()).replace("%", "%%"))
    return settings


def _newer(found: str | None) -> str:
    return f"the database is at revision {found}, which this Albatros does not know; run the version that upgraded it"


@contextmanager
def _connection(url: str) -> Iterator[Connection]:
    database = connect(url)
    try:
        with database.engine.connect() as connection:
            if database.is_sqlite:
                # Copying a table deletes the old one, which would cascade; it cannot be said inside a transaction.
                connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
                connection.execution_options(sqlite_begin="IMMEDIATE")
            else:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            yield connection
    except OperationalError as error:
        raise DatabaseUnavailableError(f"the database cannot be used ({error.orig}); check database.url") from error
    finally:
        database.dispose()


def _check_foreign_keys(connection: Connection) -> None:
    if connection.dialect.name == "sqlite" and (broken := connection.execute(text("PRAGMA foreign_key_check")).first()):
        raise ConfigError(f"the upgrade would break a reference of table {broken[0]}; nothing was changed, report this")
