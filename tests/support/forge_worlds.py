"""Worlds for the contract suite of forges: each has one empty repo, alba/hello, and a person who pushes to it."""

import base64
import hashlib
import hmac
import json
import os
import queue
import subprocess
import tempfile
import threading
import time
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from albatros.domain.inbound import PullAction
from albatros.forges.base import Forge
from albatros.forges.git import GitForge
from albatros.forges.gitea import GiteaForge
from albatros.forges.github import GithubForge
from albatros.forges.gitlab import GitlabForge
from albatros.settings import ForgeKind, ForgeSettings
from tests.services.gitea_server import GiteaServer
from tests.support.fake_forge import FakeRepo
from tests.support.fake_gitea import fake_gitea
from tests.support.fake_github import fake_github
from tests.support.fake_gitlab import fake_gitlab
from tests.support.recorded import changed, recorded

SECRET = "s3cret"
GITLAB_TOKEN = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
Message = tuple[Mapping[str, str], bytes]


class World(Protocol):
    """A forge with one empty repo, alba/hello, and a person who pushes to it."""

    signature_header: str
    delivery_header: str
    event_header: str

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


def settings(kind: ForgeKind, url: str, token: str = "", secret: str = SECRET) -> ForgeSettings:
    return ForgeSettings(
        name="home", kind=kind, url=url, token=SecretStr(token), webhook_secret=SecretStr(secret), repos=("alba/*",)
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
    delivery_header = "x-albatros-delivery"
    event_header = "x-albatros-event"

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


class FakeWorld:
    """A fake server, and recorded or documented webhooks with the refs and commits of the test in them."""

    signature_header: str
    delivery_header: str
    event_header: str
    forge: GiteaForge | GithubForge | GitlabForge

    def __init__(self, repo: FakeRepo) -> None:
        self.repo = repo
        self._sent = 0

    def commit(self, title: str) -> str:
        commit = hashlib.sha1(f"{title}{len(self.repo.commits)}".encode()).hexdigest()
        self.repo.commits.add(commit)
        return commit

    def push(self, ref: str, commit: str | None) -> Message:
        refs = self.repo.tags if ref.startswith("refs/tags/") else self.repo.branches
        short = ref.removeprefix("refs/tags/").removeprefix("refs/heads/")
        before = refs.pop(short, "0" * 40)
        if commit is not None:
            refs[short] = commit
        return self.pushed(ref, before, commit or "0" * 40, commit)

    def push_many(self, refs: Sequence[str], commit: str) -> None:
        self.repo.branches.update({ref.removeprefix("refs/heads/"): commit for ref in refs})

    def annotate(self, tag: str, commit: str) -> Message:
        self.repo.tags[tag] = commit
        return self.pushed(f"refs/tags/{tag}", "0" * 40, "f" * 40, commit)

    def status(self, commit: str, context: str) -> tuple[str, str, str] | None:
        found = self.repo.statuses.get((commit, context))
        return (str(found["state"]), str(found["description"]), str(found["target_url"])) if found else None

    def clones(self) -> bool:
        return False

    def pushed(self, ref: str, before: str, after: str, commit: str | None) -> Message:
        """The webhook of a push; `after` is the tag's own id where it is annotated."""
        raise NotImplementedError

    def pull(self, action: PullAction, commit: str, *, fork: bool = True) -> Message:
        """What eve did to her pull request 7, which the forge has so from now on; the webhook of it."""
        raise NotImplementedError

    def comment(self, text: str, *, by: str = "alba", edited: bool = False, on_pull: bool = True) -> Message:
        """A comment with id 12 on pull request 7; the webhook of it."""
        raise NotImplementedError


class HubWorld(FakeWorld):
    """Payloads that Gitea, Forgejo and GitHub have in common."""

    kind: ForgeKind
    files: Mapping[PullAction, str]
    comments: Mapping[bool, str]
    """By whether the comment is a changed one."""

    def pushed(self, ref: str, before: str, after: str, commit: str | None) -> Message:
        head = {"id": commit, "message": "a title\n\nmore"} if commit else None
        return self.message("push", {"ref": ref, "before": before, "after": after, "head_commit": head})

    def pull(self, action: PullAction, commit: str, *, fork: bool = True) -> Message:
        home = {} if fork else {"repo": {"id": self.own_id(), "full_name": "alba/hello"}}
        pull = {"number": 7, "title": "a change", "head": {"sha": commit, **home}, "base": {"ref": "main"}}
        name = self.files[action]
        headers, body = self.message(name, {"number": 7, "pull_request": pull, "sender": {"login": "eve"}})
        self.repo.pulls[7] = json.loads(body)["pull_request"]
        return headers, body

    def comment(self, text: str, *, by: str = "alba", edited: bool = False, on_pull: bool = True) -> Message:
        issue: dict[str, object] = {"number": 7} if on_pull else {"number": 7, "pull_request": None}
        comment = {"id": 12, "body": text, "user": {"login": by}}
        value = {"issue": issue, "is_pull": on_pull, "comment": comment, "sender": {"login": by}}
        return self.message(self.comments[edited], value)

    def own_id(self) -> object:
        """The id of alba/hello."""
        return json.loads(recorded(self.kind, self.files[PullAction.OPENED])[1])["repository"]["id"]

    def message(self, name: str, changes: Mapping[str, object]) -> Message:
        self._sent += 1
        headers, body = changed(self.kind, name, {**changes, "repository": {"full_name": "alba/hello"}})
        return {**headers, self.signature_header: self.signed(body), self.delivery_header: f"d{self._sent}"}, body

    def signed(self, body: bytes) -> str:
        return sign(body)


class FakeGiteaWorld(HubWorld):
    """Gitea or Forgejo."""

    files: Mapping[PullAction, str] = {
        PullAction.OPENED: "pull_request-fork",
        PullAction.NEW_HEAD: "pull_request-fork-sync",
        PullAction.REOPENED: "pull_request-reopened",
        PullAction.CLOSED: "pull_request-closed",
        PullAction.LABELLED: "pull_request-label",
    }
    comments: Mapping[bool, str] = {False: "issue_comment-created", True: "issue_comment-edited"}

    def __init__(self, kind: ForgeKind, url: str, token: str, repo: FakeRepo) -> None:
        super().__init__(repo)
        self.kind = kind
        self.signature_header = f"x-{kind}-signature"
        self.delivery_header, self.event_header = f"x-{kind}-delivery", f"x-{kind}-event"
        self.forge = GiteaForge(settings(kind, url, token))


class FakeGithubWorld(HubWorld):
    """A GitHub Enterprise Server."""

    signature_header = "x-hub-signature-256"
    delivery_header = "x-github-delivery"
    event_header = "x-github-event"
    kind = ForgeKind.GITHUB
    files: Mapping[PullAction, str] = {
        PullAction.OPENED: "pull_request-fork-opened",
        PullAction.NEW_HEAD: "pull_request-fork-synchronize",
        PullAction.REOPENED: "pull_request-fork-reopened",
        PullAction.CLOSED: "pull_request-fork-closed",
        PullAction.LABELLED: "pull_request-fork-labeled",
    }
    comments: Mapping[bool, str] = {False: "issue_comment-approve", True: "issue_comment-edited"}

    def __init__(self, url: str, token: str, repo: FakeRepo) -> None:
        super().__init__(repo)
        self.forge = GithubForge(settings(ForgeKind.GITHUB, url, token))

    def signed(self, body: bytes) -> str:
        return f"sha256={sign(body)}"

    def status(self, commit: str, context: str) -> tuple[str, str, str] | None:
        return super().status(commit, context.lower())


class FakeGitlabWorld(FakeWorld):
    """A GitLab whose webhooks are signed."""

    signature_header = "webhook-signature"
    delivery_header = "webhook-id"
    event_header = "x-gitlab-event"
    files: Mapping[PullAction, str] = {
        PullAction.OPENED: "merge_request-fork-open",
        PullAction.NEW_HEAD: "merge_request-fork-new-head",
        PullAction.REOPENED: "merge_request-fork-reopen",
        PullAction.CLOSED: "merge_request-fork-close",
        PullAction.LABELLED: "merge_request-fork-labels",
    }

    def __init__(self, url: str, token: str, repo: FakeRepo) -> None:
        super().__init__(repo)
        self.forge = GitlabForge(settings(ForgeKind.GITLAB, url, token, GITLAB_TOKEN))

    def pushed(self, ref: str, before: str, after: str, commit: str | None) -> Message:
        name = "tag_push" if ref.startswith("refs/tags/") else "push"
        commits = [{"id": commit, "message": "a title\n\nmore", "title": "a title"}] if commit else []
        value = {"ref": ref, "before": before, "after": after, "checkout_sha": commit, "commits": commits}
        return self.message(name, value)

    def pull(self, action: PullAction, commit: str, *, fork: bool = True) -> Message:
        told: dict[str, object] = {"last_commit": {"id": commit}}
        if not fork:
            told |= {"source_project_id": 1, "source": {"path_with_namespace": "alba/hello"}}
        headers, body = self.message(self.files[action], {"object_attributes": told})
        told = json.loads(body)["object_attributes"]
        shown = ("iid", "title", "state", "source_branch", "target_branch", "source_project_id", "target_project_id")
        author = {"id": told["author_id"], "username": "eve"}
        self.repo.pulls[7] = {**{key: told[key] for key in shown}, "sha": commit, "author": author}
        return headers, body

    def comment(self, text: str, *, by: str = "alba", edited: bool = False, on_pull: bool = True) -> Message:
        name = "note-edited" if edited else "note-approve" if on_pull else "note-on-issue"
        return self.message(name, {"user": {"username": by}, "object_attributes": {"note": text}})

    def status(self, commit: str, context: str) -> tuple[str, str, str] | None:
        found = super().status(commit, context)
        return ("failure" if found[0] == "failed" else found[0], *found[1:]) if found else None

    def message(self, name: str, changes: Mapping[str, object]) -> Message:
        self._sent += 1
        headers, body = changed(ForgeKind.GITLAB, name, changes)
        return {**headers, **gitlab_headers(body, f"d{self._sent}")}, body


def gitlab_headers(body: bytes, message: str, at: float | None = None, key: str = GITLAB_TOKEN) -> dict[str, str]:
    """The headers of a webhook that GitLab signs at a time: now."""
    stamp = str(int(time.time() if at is None else at))
    secret = base64.b64decode(key.removeprefix("whsec_"))
    digest = hmac.new(secret, f"{message}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


class RealGiteaWorld:
    """A real Gitea, pushed to with git; its webhooks arrive at a listener."""

    signature_header = "x-gitea-signature"
    delivery_header = "x-gitea-delivery"
    event_header = "x-gitea-event"

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
def fake_world(kind: ForgeKind) -> Iterator[FakeWorld]:
    """A forge as the tests fake it."""
    with ExitStack() as stack:
        repo = FakeRepo()
        world: FakeWorld
        if kind is ForgeKind.GITHUB:
            github = stack.enter_context(fake_github())
            github.repos["alba/hello"] = repo
            world = FakeGithubWorld(github.url, github.token, repo)
        elif kind is ForgeKind.GITLAB:
            gitlab = stack.enter_context(fake_gitlab())
            gitlab.repos["alba/hello"] = repo
            world = FakeGitlabWorld(gitlab.url, gitlab.token, repo)
        else:
            gitea = stack.enter_context(fake_gitea())
            gitea.repos["alba/hello"] = repo
            world = FakeGiteaWorld(kind, gitea.url, gitea.token, repo)
        stack.callback(world.forge.close)
        yield world


@contextmanager
def real_gitea_world(server: GiteaServer, home: Path) -> Iterator[RealGiteaWorld]:
    """A real Gitea whose webhooks come back here."""
    with Listener().running() as listener:
        world = RealGiteaWorld(server, home, listener)
        yield world
        world.forge.close()
