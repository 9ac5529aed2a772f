"""A real web server on a free port over a database and a store of the test's own: no roles run, nothing is built."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from albatros import __version__
from albatros.db.session import Database, connect
from albatros.db.signals import Signals
from albatros.db.writer import Writer
from albatros.http.app import create_app
from albatros.http.deps import AppContext
from albatros.http.serving import WebServer, bind
from albatros.settings import Settings
from tests.support.seed import Seeded, seed, seed_settings
from tests.support.stores import MemoryStore


@dataclass(frozen=True)
class Bundle:
    """In place of the runner's zipapp."""

    content: bytes = b"PK"
    digest: str = "sha256:" + "0" * 64


@dataclass(frozen=True)
class Site:
    """A running web server."""

    url: str
    context: AppContext
    seeded: Seeded

    @property
    def database(self) -> Database:
        return self.context.database


@contextmanager
def seeded_site(data: Path, *, public: bool = True) -> Iterator[Site]:
    """Serve seeded pages until the block ends."""
    sock = bind("127.0.0.1:0")
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    settings = _with_address(seed_settings(str(data)), url, public)
    database = connect(settings.database_url)
    seeded = seed(database)
    signals = Signals()
    writer = Writer(database, signals)
    context = AppContext(settings, database, MemoryStore(), {}, writer, signals, Bundle(), __version__)
    server = WebServer(create_app(context), sock)
    server.start()
    try:
        yield Site(url, context, seeded)
    finally:
        server.stop()
        writer.close()
        database.dispose()


def _with_address(settings: Settings, url: str, public: bool) -> Settings:
    server = settings.server.model_copy(update={"url": url, "public": public})
    return settings.model_copy(update={"server": server})
