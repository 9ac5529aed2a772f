"""A seeded site that everybody may read, on SQLite: for browsers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from albatros.db.session import connect
from tests.support.api import Api, seeded_api


@contextmanager
def seeded_site(data: Path) -> Iterator[Api]:
    """Serve seeded pages until the block ends."""
    database = connect(f"sqlite:///{data / 'albatros.sqlite3'}")
    try:
        with seeded_api(database, data / "data", public=True) as site:
            yield site
    finally:
        database.dispose()
