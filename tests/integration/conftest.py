"""A server over a seeded database: a test that takes `api` runs on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from albatros.db.session import Database
from tests.support.api import Api, seeded_api


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[Api]:
    """A server where reading needs a token."""
    with seeded_api(database, tmp_path / "data") as found:
        yield found


@pytest.fixture
def public_api(database: Database, tmp_path: Path) -> Iterator[Api]:
    """A server where anybody reads what is public."""
    with seeded_api(database, tmp_path / "data", public=True) as found:
        yield found
