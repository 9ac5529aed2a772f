"""The hook of bare repositories, run by a real `git push` against a real server."""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sqlalchemy import select

from albatros.db.models import Base, Build, Delivery
from albatros.db.session import Database, connect
from albatros.db.signals import Signals
from albatros.db.writer import Writer
from albatros.flows.reconcile import reconcile
from albatros.forges.git import GitForge
from albatros.http.app import create_app
from albatros.http.deps import AppContext
from albatros.http.serving import WebServer, bind
from albatros.settings import ForgeKind, Settings
from tests.support.forge_worlds import BareWorld, bare_world
from tests.support.forge_worlds import settings as forge_settings
from tests.support.stores import MemoryStore
from tests.support.web import Bundle
from tests.tools import ROOT, needs

pytestmark = needs("git")


@dataclass(frozen=True)
class Pushed:
    """How a push ended, and what the person saw of it."""

    code: int
    seen: str


class Hooked:
    """A bare repository with the hook, and the server that it tells."""

    def __init__(self, world: BareWorld, database: Database) -> None:
        self.world, self.database = world, database
        forge = forge_settings(ForgeKind.GIT, str(world.bare.parents[1]))
        self.settings = Settings(forges=(forge,))
        self.forge = GitForge(forge)
        hook = world.bare / "hooks/post-receive"
        shutil.copy(ROOT / "deploy/git/post-receive", hook)
        hook.chmod(0o755)
        self.secret = world.bare.parents[1] / "secret"
        self.secret.write_text("s3cret\n")
        self.configure("secretFile", str(self.secret))

    def configure(self, key: str, value: str) -> None:
        self.world.git(f"--git-dir={self.world.bare}", "config", f"albatros.{key}", value)

    def push(self, *refspecs: str, **env: str) -> Pushed:
        done = subprocess.run(
            ["git", "push", "--force", str(self.world.bare), *refspecs],
            cwd=self.world.git.tree,
            env={"PATH": os.environ["PATH"], "HOME": str(self.world.git.home), **env},
            capture_output=True,
            text=True,
            check=False,
        )
        seen = [
            line.removeprefix("remote: ").rstrip() for line in done.stderr.splitlines() if line.startswith("remote:")
        ]
        return Pushed(done.returncode, "\n".join(seen))

    @contextmanager
    def serving(self) -> Iterator[str]:
        """A server that the hook is configured for; its URL."""
        signals = Signals()
        writer = Writer(self.database, signals)
        forges = {"home": self.forge}
        context = AppContext(self.settings, self.database, MemoryStore(), forges, writer, signals, Bundle(), "0.0.0")
        sock = bind("127.0.0.1:0")
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        web = WebServer(create_app(context), sock)
        web.start()
        self.configure("url", f"{url}/webhooks/home")
        try:
            yield url
        finally:
            web.stop()
            writer.close()

    def builds(self) -> list[tuple[int, str, str]]:
        with self.database.read() as session:
            return [(b.id, b.ref, b.commit) for b in session.scalars(select(Build).order_by(Build.id))]


@pytest.fixture
def hooked(tmp_path: Path) -> Iterator[Hooked]:
    database = connect(f"sqlite:///{tmp_path / 'albatros.sqlite3'}")
    Base.metadata.create_all(database.engine)
    with bare_world() as world:
        yield Hooked(world, database)
    database.dispose()


def test_a_push_is_told_and_answered_with_its_build(hooked: Hooked) -> None:
    first = hooked.world.commit("first")
    with hooked.serving() as url:
        pushed = hooked.push("main")
        assert pushed == Pushed(0, f"Albatros: build 1 → {url}/builds/1")
        second = hooked.world.commit("second")
        hooked.world.git("tag", "-a", "-m", "a release", "v1")
        assert hooked.push("main", "v1").code == 0
        assert hooked.push(":refs/tags/v1").seen == "Albatros: no build: refs/tags/v1 was deleted"
    assert hooked.builds() == [
        (1, "refs/heads/main", first),
        (2, "refs/heads/main", second),
        (3, "refs/tags/v1", second),
    ]
    with hooked.database.read() as session:
        assert len(session.scalars(select(Delivery)).all()) == 3


def test_many_refs_are_told_in_several_deliveries(hooked: Hooked) -> None:
    commit = hooked.world.commit("first")
    with hooked.serving():
        pushed = hooked.push(*(f"{commit}:refs/heads/b{number}" for number in range(150)))
    assert pushed.code == 0
    assert len(hooked.builds()) == 150


def test_other_refs_are_not_told(hooked: Hooked) -> None:
    commit = hooked.world.commit("first")
    with hooked.serving():
        assert hooked.push(f"{commit}:refs/notes/x") == Pushed(0, "")
    assert hooked.builds() == []


def test_a_push_while_the_server_is_down_succeeds_and_is_found(hooked: Hooked) -> None:
    with hooked.serving():
        hooked.world.commit("first")
        hooked.push("main")
    commit = hooked.world.commit("second")
    pushed = hooked.push("main")
    assert pushed.code == 0
    assert "does not answer" in pushed.seen
    assert "finds this push when it starts" in pushed.seen
    writer = Writer(hooked.database, Signals())
    found = reconcile(hooked.settings, hooked.database, writer, {"home": hooked.forge})
    writer.close()
    assert found.builds == [2]
    assert hooked.builds()[-1] == (2, "refs/heads/main", commit)


def test_a_wrong_secret_is_said_and_does_not_fail_the_push(hooked: Hooked) -> None:
    hooked.world.commit("first")
    hooked.secret.write_text("another secret")
    with hooked.serving() as url:
        pushed = hooked.push("main")
    assert pushed.code == 0
    assert pushed.seen.startswith(f"Albatros: not told: {url}/webhooks/home answered 401: ")
    assert "another secret" not in pushed.seen
    assert hooked.builds() == []


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "http://[broken/webhooks/home"])
def test_a_missing_or_wrong_address_is_said(hooked: Hooked, url: str) -> None:
    hooked.world.commit("first")
    if url:
        hooked.configure("url", url)
    pushed = hooked.push("main")
    assert pushed.code == 0
    assert pushed.seen.startswith("Albatros: not told: ")


def test_a_missing_secret_file_is_said(hooked: Hooked) -> None:
    hooked.world.commit("first")
    hooked.secret.unlink()
    with hooked.serving():
        assert "secret file" in hooked.push("main").seen


def test_the_configured_name_wins(hooked: Hooked) -> None:
    hooked.world.commit("first")
    hooked.configure("repo", "alba/other")
    with hooked.serving():
        assert "no bare repository alba/other.git" in hooked.push("main").seen


def test_a_redirect_is_not_followed(hooked: Hooked) -> None:
    reached: list[str] = []

    class Redirect(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            reached.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(307)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Redirect)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    hooked.world.commit("first")
    hooked.configure("url", f"http://127.0.0.1:{server.server_address[1]}/webhooks/home")
    pushed = hooked.push("main")
    server.shutdown()
    thread.join()
    server.server_close()
    assert reached == ["/webhooks/home"]
    assert pushed.code == 0
    assert "answered 307" in pushed.seen


def test_a_server_that_does_not_answer_is_not_waited_for_long(hooked: Hooked) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        hooked.world.commit("first")
        hooked.configure("url", f"http://127.0.0.1:{deaf.getsockname()[1]}/webhooks/home")
        pushed = hooked.push("main")
    assert pushed.code == 0
    assert "timed out" in pushed.seen
    assert "finds this push when it starts" in pushed.seen


def test_a_terminal_that_knows_no_arrow_fails_nothing(hooked: Hooked) -> None:
    hooked.world.commit("first")
    with hooked.serving():
        pushed = hooked.push("main", PYTHONIOENCODING="latin-1")
    assert pushed.code == 0
    assert "build 1 ? http://" in pushed.seen
