"""A throwaway PostgreSQL cluster on a Unix socket, and a fresh database in it for each test."""

import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.services.process import private_dir, run, running, unprivileged
from tests.tools import find, require

USER = "albatros"


@dataclass(frozen=True, slots=True)
class PostgresCluster:
    """A running cluster: `connect` is for its superuser, who needs no password."""

    socket_dir: Path

    def url(self, database: str) -> str:
        """A database's URL for SQLAlchemy, as `[database] url` takes it."""
        return f"postgresql+psycopg://{USER}@/{database}?host={self.socket_dir}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(host=str(self.socket_dir), user=USER, dbname=database, autocommit=True)


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresCluster]:
    """A PostgreSQL server for the whole session (one for each process of pytest-xdist)."""
    require("postgresql")
    # A cluster that nobody keeps needs no fsync: it is most of the time of small transactions.
    with start_postgres(fsync=False) as cluster:
        yield cluster


@contextmanager
def start_postgres(*, fsync: bool) -> Iterator[PostgresCluster]:
    """A PostgreSQL server for as long as the block runs."""
    account = unprivileged("postgres")
    with private_dir("pg", account) as home:
        data = home / "data"
        run(
            [find("initdb"), "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            account=account,
        )
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(home),
            "fsync": "on" if fsync else "off",
            "max_connections": "200",
        }
        command = [find("postgres"), "-D", str(data), *(f"--{name}={value}" for name, value in options.items())]
        cluster = PostgresCluster(home)

        def ready() -> bool:
            try:
                cluster.connect().close()
            except psycopg.OperationalError:
                return False
            return True

        # SIGINT is PostgreSQL's fast shutdown: it does not wait for a test's forgotten connection.
        with running(command, log=home / "log", ready=ready, account=account, stop_with=signal.SIGINT):
            yield cluster


@pytest.fixture
def postgres_url(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """The URL of an empty database that is dropped after the test."""
    with empty_database(postgres_cluster) as url:
        yield url


@contextmanager
def empty_database(cluster: PostgresCluster) -> Iterator[str]:
    """The URL of an empty database that is dropped after the block."""
    name = f"t_{uuid.uuid4().hex}"
    with cluster.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield cluster.url(name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
