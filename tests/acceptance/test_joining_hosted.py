"""A repo of GitHub, and of GitLab, joins with one command: against servers that answer as their documentation says."""

import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

import pytest

from albatros.settings import ForgeKind
from tests.support.fake_forge import FakeForge, FakeRepo
from tests.support.fake_hooks import open_fake, signed
from tests.support.line import Line, make_line
from tests.support.operator import doctor, make_operator, run
from tests.support.recorded import recorded
from tests.tools import needs

pytestmark = needs("nix", "git")
COMMIT = "2c30b63d8c7f9c3ae69965cc687aa4b054d4bec9"
TESTS = {ForgeKind.GITHUB: "ping", ForgeKind.GITLAB: "push"}


@dataclass(frozen=True)
class Hosted:
    """A server and its one forge, which has a repo alba/hello that nobody has added."""

    line: Line
    forge: FakeForge
    repo: FakeRepo
    kind: ForgeKind

    def deliver(self, number: int) -> None:
        """Send the webhook with this number its test, as the forge does."""
        hook = self.repo.hooks[number]
        url = hook.get("url") if self.kind is ForgeKind.GITLAB else cast("dict[str, str]", hook["config"])["url"]
        headers, body = recorded(self.kind, TESTS[self.kind])
        headers |= signed(self.kind, self.repo.hook_secrets[number], body)
        with urllib.request.urlopen(urllib.request.Request(str(url), body, headers), timeout=60) as answer:
            assert answer.status == 202


@pytest.fixture(params=[ForgeKind.GITHUB, ForgeKind.GITLAB])
def hosted(request: pytest.FixtureRequest) -> Iterator[Hosted]:
    with ExitStack() as stack:
        fake = open_fake(request.param, stack)
        fake.repo.branches, fake.repo.commits = {"main": COMMIT}, {COMMIT}
        secret = fake.settings.webhook_secret.get_secret_value()
        forge = {"name": "hub", "kind": str(request.param), "url": fake.server.url, "token": fake.server.token}
        line = stack.enter_context(make_line(None, {"forges": [{**forge, "webhook_secret": secret}]}))
        line.server.start()
        make_operator(line)
        yield Hosted(line, fake.server, fake.repo, request.param)


def test_one_command_joins_repairs_tests_and_leaves(hosted: Hosted) -> None:
    line, repo = hosted.line, hosted.repo
    assert "was created" in run(line, "repo", "add", f"{hosted.forge.url}/alba/hello")
    assert len(repo.hooks) == 1
    name = "hub/alba/hello"
    assert "may build       yes" in run(line, "repo", "show", name)

    repo.hooks.clear()
    assert "missing: no webhook" in run(line, "repo", "show", name)
    assert "run `albatros repo add hub/alba/hello`" in doctor(line)
    assert "was created" in run(line, "repo", "add", name)
    (hook,) = repo.hooks.values()
    hook.update({"push_events": False} if hosted.kind is ForgeKind.GITLAB else {"events": ["pull_request"]})
    assert "differs: the webhook does not tell of push" in run(line, "repo", "show", name)
    assert "repaired: it does not tell of push" in run(line, "repo", "add", name)
    assert len(repo.hooks) == 1

    repo.ring = hosted.deliver
    assert "a test of alba/hello arrived" in doctor(line)
    assert "was removed" in run(line, "repo", "remove", name)
    assert repo.hooks == {}
    assert "may build       no" in run(line, "repo", "show", name)
    for secret in (hosted.forge.token, *repo.hook_secrets.values()):
        assert secret not in line.server.log


def test_who_may_not_make_webhooks_is_told_what_to_do(hosted: Hosted) -> None:
    hosted.repo.administered = False
    said = run(hosted.line, "repo", "add", "hub/alba/hello", code=1)
    assert "create the webhook by hand" in said
    assert "forges.token" in said
    assert hosted.repo.hooks == {}
