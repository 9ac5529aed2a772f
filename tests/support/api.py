"""A real server over a seeded database of either kind, called over HTTP with a token of each scope; no roles run."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import httpx

from albatros import __version__
from albatros.db import tokens
from albatros.db.session import Database
from albatros.db.signals import Signals
from albatros.db.writer import Writer
from albatros.domain.access import Scope, new_token
from albatros.forges.base import ForgeAdapter
from albatros.http.app import create_app
from albatros.http.deps import AppContext
from albatros.http.serving import WebServer, bind
from albatros.settings import Settings
from tests.services.process import free_port
from tests.support.hooks import MemoryHooks
from tests.support.people import FakePeople
from tests.support.seed import Seeded, seed, seed_settings
from tests.support.stores import MemoryStore
from tests.support.web import Bundle


@dataclass
class Api:
    """Clients of one server, and what is behind it."""

    url: str
    server: WebServer
    context: AppContext
    store: MemoryStore
    seeded: Seeded
    tokens: dict[Scope, str]
    people: FakePeople
    forges: dict[str, ForgeAdapter]
    """Those of the server: a test puts its own in."""
    hooks: MemoryHooks
    clients: ExitStack

    @cached_property
    def anybody(self) -> httpx.Client:
        """A client without a token."""
        return self.clients.enter_context(httpx.Client(base_url=self.url, timeout=60))

    @cached_property
    def reader(self) -> httpx.Client:
        return self.with_scope(Scope.READ)

    @cached_property
    def writer(self) -> httpx.Client:
        return self.with_scope(Scope.WRITE)

    @cached_property
    def admin(self) -> httpx.Client:
        return self.with_scope(Scope.ADMIN)

    def with_scope(self, scope: Scope) -> httpx.Client:
        return self.with_token(self.tokens[scope])

    def with_token(self, token: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"}
        return self.clients.enter_context(httpx.Client(base_url=self.url, headers=headers, timeout=60))


@contextmanager
def seeded_api(database: Database, data: Path, *, public: bool = False) -> Iterator[Api]:
    """Answer calls until the block ends."""
    sock = bind(f"127.0.0.1:{free_port()}")
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    data.mkdir()
    signals, store = Signals(), MemoryStore()
    writer = Writer(database, signals)
    seeded = seed(database)
    forges: dict[str, ForgeAdapter] = {}
    people, hooks = FakePeople(), MemoryHooks()
    context = AppContext(
        settings=_settings(data, url, public),
        database=database,
        store=store,
        forges=forges,
        writer=writer,
        signals=signals,
        runner=Bundle(),
        version=__version__,
        permissions={"home": people},
        hooks={"home": hooks},
    )
    server = WebServer(create_app(context), sock)
    server.start()
    try:
        with ExitStack() as clients:
            yield Api(url, server, context, store, seeded, _tokens(database), people, forges, hooks, clients)
    finally:
        server.stop()
        writer.close()


def _tokens(database: Database) -> dict[Scope, str]:
    made = {scope: new_token() for scope in Scope}
    with database.write() as session:
        for scope, token in made.items():
            tokens.create(session, f"a-{scope}-token", token, scope, None)
    return made


def _settings(data: Path, url: str, public: bool) -> Settings:
    settings = seed_settings(str(data))
    server = settings.server.model_copy(update={"url": url, "public": public})
    return settings.model_copy(update={"server": server})
