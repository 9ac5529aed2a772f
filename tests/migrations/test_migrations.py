"""An upgraded database has exactly the tables of the models, on SQLite and on PostgreSQL."""

import argparse
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from albatros import assets
from albatros.cli import db as db_command
from albatros.db import migrate
from albatros.db.models import Base
from albatros.db.session import Database, connect
from albatros.errors import ConfigError, DatabaseUnavailableError
from tests.services.postgres import PostgresCluster

SCHEMAS = {
    "sqlite": "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name <> 'alembic_version'",
    "postgresql": """
        SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' ' ||
               coalesce(character_maximum_length::text, '') || ' ' || coalesce(column_default, '')
          FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
        UNION SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
        UNION SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace AND conrelid <> 'alembic_version'::regclass""",
}


def schema(database: Database) -> list[list[str]]:
    """Every table and index, each as its parts, whose order does not matter; a changed table may quote its names."""
    with database.read() as session:
        statements = session.scalars(text(SCHEMAS[database.engine.dialect.name])).all()
    parts = [re.split(r"[,\n]", statement.replace('"', "")) for statement in statements]
    return sorted(sorted(filter(None, map(str.strip, one))) for one in parts)


@pytest.fixture
def upgraded(database_url: str) -> Iterator[Database]:
    migrate.upgrade(database_url)
    database = connect(database_url)
    yield database
    database.dispose()


@pytest.fixture
def rewritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the migrations that a test may add to."""
    copy = tmp_path / "migrations"
    shutil.copytree(assets.migrations_dir(), copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(assets, "migrations_dir", lambda: copy)
    return copy


def add_migration(directory: Path, revision: str, after: str, *statements: str) -> None:
    body = "\n".join(f"    op.execute({statement!r})" for statement in statements)
    header = f"from alembic import op\nrevision = {revision!r}\ndown_revision = {after!r}\n"
    (directory / "versions" / f"{revision}_test.py").write_text(f"{header}\ndef upgrade() -> None:\n{body}\n")


def test_there_is_one_head() -> None:
    assert ScriptDirectory.from_config(migrate.config()).get_heads() == [migrate.head()]


def test_alembic_finds_no_difference_to_the_models(upgraded: Database) -> None:
    with upgraded.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_schema_is_that_of_the_models_to_the_letter(
    upgraded: Database, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Alembic's comparison is blind to partial indexes, AUTOINCREMENT and ON DELETE."""
    if upgraded.is_sqlite:
        url = f"sqlite:///{tmp_path / 'models.sqlite3'}"
    else:
        cluster: PostgresCluster = request.getfixturevalue("postgres_cluster")
        with cluster.connect() as connection:
            connection.execute("CREATE DATABASE models")
            request.addfinalizer(lambda: _drop(cluster, "models"))
        url = cluster.url("models")
    models = connect(url)
    Base.metadata.create_all(models.engine)
    with models.write() as session:
        session.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
    assert schema(upgraded) == schema(models)
    models.dispose()


def _drop(cluster: PostgresCluster, name: str) -> None:
    with cluster.connect() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_an_upgrade_may_be_repeated(database_url: str) -> None:
    assert migrate.current(database_url) is None
    assert migrate.upgrade(database_url) == migrate.head()
    assert migrate.upgrade(database_url) == migrate.head()
    assert migrate.current(database_url) == migrate.head()


def test_an_upgrade_that_fails_changes_nothing(database_url: str, rewritten: Path) -> None:
    migrate.upgrade(database_url)
    known = migrate.head()
    add_migration(rewritten, "0998", known, "CREATE TABLE made (id INTEGER)", "INSERT INTO nowhere VALUES (1)")
    with pytest.raises(Exception, match="nowhere"):
        migrate.upgrade(database_url)
    assert migrate.current(database_url) == known
    database = connect(database_url)
    assert not inspect(database.engine).has_table("made")
    database.dispose()


def test_a_database_of_a_newer_version_is_refused(database_url: str, rewritten: Path) -> None:
    add_migration(rewritten, "0999", migrate.head(), "CREATE TABLE made (id INTEGER)")
    migrate.upgrade(database_url)
    (rewritten / "versions" / "0999_test.py").unlink()
    with pytest.raises(ConfigError, match="revision 0999, which this Albatros does not know"):
        migrate.upgrade(database_url)
    with pytest.raises(ConfigError, match="0999"):
        migrate.prepare(database_url)


def test_a_migration_that_breaks_a_reference_is_undone(tmp_path: Path, rewritten: Path) -> None:
    url = f"sqlite:///{tmp_path / 'albatros.sqlite3'}"
    known = migrate.upgrade(url)
    add_migration(rewritten, "0999", known, "INSERT INTO repo_blobs VALUES (1, 'sha256:00')")
    with pytest.raises(ConfigError, match="repo_blobs; nothing was changed"):
        migrate.upgrade(url)
    assert migrate.current(url) == known


def test_a_server_makes_what_all_migrations_make_together(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path / name / 'albatros.sqlite3'}" for name in ("made", "migrated")]
    migrate.prepare(urls[0])
    migrate.upgrade(urls[1])
    made, migrated = databases = [connect(url) for url in urls]
    assert schema(made) == schema(migrated)
    assert migrate.current(urls[0]) == migrate.current(urls[1]) == migrate.head()
    for database in databases:
        database.dispose()


def test_a_server_upgrades_sqlite_itself(tmp_path: Path, rewritten: Path) -> None:
    url = f"sqlite:///{tmp_path / 'albatros.sqlite3'}"
    migrate.prepare(url)
    add_migration(rewritten, "0999", migrate.head(), "CREATE TABLE made (id INTEGER)")
    migrate.prepare(url)
    assert migrate.current(url) == migrate.head() == "0999"
    database = connect(url)
    assert inspect(database.engine).has_table("made")
    database.dispose()


def test_a_server_leaves_postgresql_to_its_operator(postgres_url: str) -> None:
    with pytest.raises(ConfigError, match=r"revision none, .* run `albatros db upgrade`"):
        migrate.prepare(postgres_url)
    migrate.upgrade(postgres_url)
    migrate.prepare(postgres_url)


def test_a_database_that_is_not_there_is_named_as_such() -> None:
    with pytest.raises(DatabaseUnavailableError, match=r"check database\.url"):
        migrate.upgrade("postgresql+psycopg://albatros@127.0.0.1:1/albatros")


def test_the_command_prints_the_revision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "albatros.toml"
    config.write_text(f'[server]\ndata = "{tmp_path}"\n')
    parser = argparse.ArgumentParser()
    db_command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["db", "upgrade", "--config", str(config)])
    assert args.func(args) == 0
    assert capsys.readouterr().out == f"{migrate.head()}\n"
    assert migrate.current(f"sqlite:///{tmp_path / 'albatros.sqlite3'}") == migrate.head()
