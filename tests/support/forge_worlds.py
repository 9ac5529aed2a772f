"""Worlds for the contract suite of forges: each has one empty repo, alba/hello, and a person who pushes to it."""

import hashlib
import hmac
import json
import os
import queue
import subprocess
import tempfile
import threading
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from albatros.forges.base import Forge
from albatros.forges.git import GitForge
from albatros.forges.gitea import GiteaForge
from albatros.settings import ForgeKind, ForgeSettings
from tests.services.gitea_server import GiteaServer
from tests.support.fake_gitea import FakeRepo, fake_gitea

SECRET = "s3cret"
Message = tuple[Mapping[str, str], bytes]


class World(Protocol):
    """A forge with one empty repo, alba/hello, and a person who pushes to it."""

    signature_header: str

    @property
    def forge(self) -> Forge:
        """The adapter under test."""

    def commit(self, title: str) -> str:
        """Make a commit on top of the last one; its id."""

    def push(self, ref: str, commit: str | None) -> Message:
        """Make a ref point to a commit, or delete it; the webhook that the forge sends."""

    def push_many(self, refs: Sequence[str], commit: str) -> None:
        """Make all these refs point to a commit, with no look at the webhooks."""

    def annotate(self, tag: str, commit: str) -> Message:
        """Push an annotated tag; the webhook that the forge sends."""

    def status(self, commit: str, context: str) -> tuple[str, str, str] | None:
        """State, description and URL that the forge itself shows."""

    def clones(self) -> bool:
        """True when this world's address can be cloned."""


def sign(body: bytes) -> str:
    return hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()


def settings(kind: ForgeKind, url: str, token: str = "") -> ForgeSettings:
    return ForgeSettings(
        name="home", kind=kind, url=url, token=SecretStr(token), webhook_secret=SecretStr(SECRET), repos=("alba/*",)
    )


@dataclass
class Git:
    """A work tree that tests commit in, with a clean configuration."""

    home: Path
    tree: Path = field(init=False)

    def __post_init__(self) -> None:
        self.tree = self.home / "tree"
        self.tree.mkdir()
        self("init", "-q", "-b", "main")

    def __call__(self, *arguments: str) -> str:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "alba",
            "GIT_AUTHOR_EMAIL": "alba@example.org",
            "GIT_COMMITTER_NAME": "alba",
            "GIT_COMMITTER_EMAIL": "alba@example.org",
        }
        done = subprocess.run(["git", *arguments], cwd=self.tree, env=env, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, title: str) -> str:
        self("commit", "-q", "--allow-empty", "-m", title)
        return self("rev-parse", "HEAD")


class BareWorld:
    """A bare repository, and webhooks as the hook writes them."""

    signature_header = "x-albatros-signature"

    def __init__(self, home: Path) -> None:
        self.git = Git(home)
        self.bare = home / "srv" / "alba" / "hello.git"
        self.bare.mkdir(parents=True)
        self.git("init", "-q", "--bare", "-b", "main", str(self.bare))
        self.forge = GitForge(settings(ForgeKind.GIT, str(home / "srv")))
        self._refs: dict[str, str] = {}
        self._sent = 0

    def commit(self, title: str) -> str:
        return self.git.commit(title)

    def push(self, ref: str, commit: str | None) -> Message:
        before = self._refs.get(ref, "0" * 40)
        self.git("push", "-q", "--force", str(self.bare), f"{commit or ''}:{ref}")
        after = commit or "0" * 40
        self._refs[ref] = after
        self._sent += 1
        body = json.dumps({"repo": "alba/hello", "refs": [{"ref": ref, "before": before, "after": after}]}).encode()
        headers = {
            "x-albatros-signature": f"sha256={sign(body)}",
            "x-albatros-delivery": f"d{self._sent}",
            "x-albatros-event": "push",
        }
        return headers, body

    def push_many(self, refs: Sequence[str], commit: str) -> None:
        self.git("push", "-q", str(self.bare), *(f"{commit}:{ref}" for ref in refs))

    def annotate(self, tag: str, commit: str) -> Message:
        self.git("tag", "-a", "-m", "a release", tag, commit)
        return self.push(f"refs/tags/{tag}", self.git("rev-parse", f"refs/tags/{tag}"))

    def status(self, commit: str, context: str) -> tuple[str, str, str] | None:
        try:
            note = self.git(f"--git-dir={self.bare}", "notes", "--ref=albatros", "show", commit)
        except subprocess.CalledProcessError:
            return None
        lines = (line.split("\t") for line in note.splitlines())
        found = {name: (state, description, url) for name, state, description, url in lines}
        return found.get(context)

    def clones(self) -> bool:
        return True


class FakeGiteaWorld:
    """The fake server, and webhooks with the fields of recorded ones."""

    def __init__(self, kind: ForgeKind, url: str, token: str, repo: FakeRepo) -> None:
        self._prefix = f"x-{kind}"
        self.signature_header = f"{self._prefix}-signature"
        self.forge = GiteaForge(settings(kind, url, token))
        self._repo = repo
        self._sent = 0

    def commit(self, title: str) -> str:
        commit = hashlib.sha1(f"{title}{len(self._repo.commits)}".encode()).hexdigest()
        self._repo.commits.add(commit)
        return commit

    def push(self, ref: str, commit: str | None) -> Message:
        refs = self._repo.tags if ref.startswith("refs/tags/") else self._repo.branches
        short = ref.removeprefix("refs/tags/").removeprefix("refs/heads/")
        before = refs.pop(short, "0" * 40)
        if commit is not None:
            refs[short] = commit
        return self._message(ref, before, commit or "0" * 40, commit)

    def push_many(self, refs: Sequence[str], commit: str) -> None:
        self._repo.branches.update({ref.removeprefix("refs/heads/"): commit for ref in refs})

    def annotate(self, tag: str, commit: str) -> Message:
        self._repo.tags[tag] = commit
        return self._message(f"refs/tags/{tag}", "0" * 40, "f" * 40, commit)

    def _message(self, ref: str, before: str, after: str, commit: str | None) -> Message:
        self._sent += 1
        value = {
            "ref": ref,
            "before": before,
            "after": after,
            "head_commit": {"id": commit, "message": "a title\n\nmore"} if commit else None,
            "repository": {"full_name": "alba/hello", "private": False, "default_branch": "main"},
            "pusher": {"login": "alba"},
        }
        body = json.dumps(value).encode()
        headers = {
            f"{self._prefix}-signature": sign(body),
            f"{self._prefix}-delivery": f"d{self._sent}",
            f"{self._prefix}-event": "push",
        }
        return headers, body

    def status(self, commit: str, context: str) -> tuple[str, str, str] | None:
        found = self._repo.statuses.get((commit, context))
        return (str(found["state"]), str(found["description"]), str(found["target_url"])) if found else None

    def clones(self) -> bool:
        return False


class RealGiteaWorld:
    """A real Gitea, pushed to with git; its webhooks arrive at a listener."""

    signature_header = "x-gitea-signature"

    def __init__(self, server: GiteaServer, home: Path, listener: "Listener") -> None:
        self.git = Git(home)
        self._server, self._listener = server, listener
        try:
            server.api("DELETE", "/repos/alba/hello")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
        server.api("POST", "/user/repos", {"name": "hello", "default_branch": "main"})
        config = {"url": listener.url, "content_type": "json", "secret": SECRET}
        hook = {"type": "gitea", "config": config, "events": ["push", "delete"], "active": True}
        server.api("POST", "/repos/alba/hello/hooks", hook)
        self.forge = GiteaForge(settings(ForgeKind.GITEA, server.url, server.token))
        # The first branch of an empty repo becomes its default branch.
        first = self.commit("first")
        self.git("push", "-q", server.clone_url("alba", "hello"), f"{first}:refs/heads/main")
        listener.take()

    def commit(self, title: str) -> str:
        return self.git.commit(title)

    def push(self, ref: str, commit: str | None) -> Message:
        self.git("push", "-q", "--force", self._server.clone_url("alba", "hello"), f"{commit or ''}:{ref}")
        return self._listener.take()

    def push_many(self, refs: Sequence[str], commit: str) -> None:
        address = self._server.clone_url("alba", "hello")
        self.git("push", "-q", address, *(f"{commit}:{ref}" for ref in refs))

    def annotate(self, tag: str, commit: str) -> Message:
        self.git("tag", "-a", "-m", "a release", tag, commit)
        return self.push(f"refs/tags/{tag}", self.git("rev-parse", f"refs/tags/{tag}"))

    def status(self, commit: str, context: str) -> tuple[str, str, str] | None:
        found = self._server.api("GET", f"/repos/alba/hello/commits/{commit}/status")
        assert isinstance(found, dict)
        for item in found["statuses"] or ():
            if item["context"] == context:
                return item["status"], item["description"], item["target_url"]
        return None

    def clones(self) -> bool:
        return True


class Listener:
    """Receives webhooks on a free loopback port."""

    def __init__(self) -> None:
        received: queue.Queue[Message] = queue.Queue()
        self._received = received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.put(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def take(self) -> Message:
        return self._received.get(timeout=60)

    @contextmanager
    def running(self) -> Iterator["Listener"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


@contextmanager
def bare_world() -> Iterator[BareWorld]:
    """Bare repositories where every user may read them, as a runner must."""
    with tempfile.TemporaryDirectory(prefix="alba-git-") as home:
        Path(home).chmod(0o755)
        yield BareWorld(Path(home))


@contextmanager
def fake_gitea_world(kind: ForgeKind) -> Iterator[FakeGiteaWorld]:
    """Gitea or Forgejo as the tests fake it."""
    with fake_gitea() as fake:
        repo = fake.repos["alba/hello"] = FakeRepo()
        world = FakeGiteaWorld(kind, fake.url, fake.token, repo)
        yield world
        world.forge.close()


@contextmanager
def real_gitea_world(server: GiteaServer, home: Path) -> Iterator[RealGiteaWorld]:
    """A real Gitea whose webhooks come back here."""
    with Listener().running() as listener:
        world = RealGiteaWorld(server, home, listener)
        yield world
        world.forge.close()
