"""An empty database with every table, on both kinds: a test that takes `database` runs twice."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from albatros.db.models import Base
from albatros.db.session import Database, connect


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'albatros.sqlite3'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open database with the tables of the models."""
    opened = connect(database_url)
    Base.metadata.create_all(opened.engine)
    yield opened
    opened.dispose()
