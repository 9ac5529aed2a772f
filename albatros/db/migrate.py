"""Brings a database to the tables of this version. An upgrade is one transaction: all of it, or nothing.

SQLite belongs to one server, which makes or upgrades it when it starts. PostgreSQL may have other servers on it, so a
person says when: `albatros db upgrade`. Alembic, which takes 9 MiB, is imported only where there is an old database.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import OperationalError

from albatros import assets
from albatros.db.models import Base
from albatros.db.session import connect
from albatros.errors import ConfigError, DatabaseUnavailableError
from albatros.log import get_logger

if TYPE_CHECKING:
    from alembic.config import Config

_VERSION_TABLE = "alembic_version"
_ADVISORY_LOCK = 0x616C6261
"""Held on PostgreSQL while upgrading, so that two `albatros db upgrade` wait for one another."""

log = get_logger(__name__)


def head() -> str:
    """The newest revision that this version knows: revisions are numbers, and their files are named after them."""
    found = [path.name.partition("_")[0] for path in (assets.migrations_dir() / "versions").glob("[0-9]*_*.py")]
    if not found:
        raise ConfigError(f"{assets.migrations_dir()} holds no migrations; install Albatros again")
    return max(found)


def current(url: str) -> str | None:
    """The revision a database is at; None before the first upgrade. Raises DatabaseUnavailableError, ConfigError."""
    with _connection(url) as connection:
        return _revision(connection)


def upgrade(url: str) -> str:
    """Bring a database to `head()` and say so. Raises ConfigError when it is newer, DatabaseUnavailableError."""
    from alembic import command  # noqa: PLC0415 - see the module's first lines
    from alembic.util import CommandError  # noqa: PLC0415 - the same

    with _connection(url) as connection:
        before = _revision(connection)
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
    """What a server does at its start: SQLite is made or upgraded, PostgreSQL must have been. Raises ConfigError."""
    found, wanted = current(url), head()
    if found == wanted:
        return
    if found is not None and found > wanted:
        raise ConfigError(_newer(found))
    if url.startswith("sqlite"):
        if not _make(url):
            upgrade(url)
        return
    raise ConfigError(
        f"the database is at revision {found or 'none'}, this Albatros needs {wanted}; "
        "stop the other servers and run `albatros db upgrade`"
    )


def config() -> Config:
    """Alembic's settings: where the migrations are."""
    from alembic.config import Config  # noqa: PLC0415 - see the module's first lines

    settings = Config()
    settings.set_main_option("script_location", str(assets.migrations_dir()).replace("%", "%%"))
    return settings


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSION_TABLE):
        return None
    found: str | None = connection.scalar(text(f"SELECT version_num FROM {_VERSION_TABLE}"))  # noqa: S608 - a constant
    return found


def _make(url: str) -> bool:
    """Give an empty database the tables of the models, as all migrations together would; False when it has some."""
    with _connection(url) as connection:
        if inspect(connection).get_table_names():
            return False
        Base.metadata.create_all(connection, checkfirst=False)
        column = f"version_num VARCHAR(32) NOT NULL, CONSTRAINT {_VERSION_TABLE}_pkc PRIMARY KEY (version_num)"
        connection.execute(text(f"CREATE TABLE {_VERSION_TABLE} ({column})"))
        connection.execute(text(f"INSERT INTO {_VERSION_TABLE} VALUES (:head)"), {"head": head()})  # noqa: S608 - the same
        connection.commit()
    log.info("database made", revision=head())
    return True


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
