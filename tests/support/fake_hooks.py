"""Faked servers whose webhooks are managed, and what they sign with."""

import hashlib
import hmac
from contextlib import ExitStack
from dataclasses import dataclass

from albatros.bootstrap import build_hooks
from albatros.forges.rest_hooks import RestHooks
from albatros.settings import ForgeKind, ForgeSettings
from tests.support.fake_forge import FakeForge, FakeRepo
from tests.support.fake_gitea import fake_gitea
from tests.support.fake_github import fake_github
from tests.support.fake_gitlab import fake_gitlab
from tests.support.forge_worlds import GITLAB_TOKEN, SECRET, Message, gitlab_headers, settings

URL = "https://ci.example.org/webhooks/home"
OTHER = "https://elsewhere.example.org/hook"
FAKES = ("fake gitea", "fake forgejo", "fake github", "fake gitlab")


@dataclass(frozen=True)
class Fake:
    """A faked server with a repo alba/hello, and what manages the webhooks there."""

    server: FakeForge
    repo: FakeRepo
    hooks: RestHooks
    settings: ForgeSettings

    def signed(self, body: bytes, number: int) -> Message:
        """What the server sends as the webhook with this number."""
        return signed(self.settings.kind, self.repo.hook_secrets[number], body), body


def signed(kind: ForgeKind, secret: str, body: bytes) -> dict[str, str]:
    """The headers with which GitHub or GitLab sign."""
    if kind is ForgeKind.GITLAB:
        return gitlab_headers(body, "d1", key=secret)
    return {"X-Hub-Signature-256": f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"}


def open_fake(kind: ForgeKind, stack: ExitStack) -> Fake:
    servers = {ForgeKind.GITHUB: fake_github, ForgeKind.GITLAB: fake_gitlab}
    server = stack.enter_context(servers.get(kind, fake_gitea)())
    repo = server.repos["alba/hello"] = FakeRepo(branches={"main": "a" * 40})
    found = settings(kind, server.url, server.token, GITLAB_TOKEN if kind is ForgeKind.GITLAB else SECRET)
    hooks = build_hooks(found)
    assert isinstance(hooks, RestHooks)
    stack.callback(hooks.close)
    return Fake(server, repo, hooks, found)
