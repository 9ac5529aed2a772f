"""One suite for the webhooks of every forge: bare repositories, the other four as the tests fake them, a real Gitea."""

import hashlib
import hmac
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import cast

import pytest
from pydantic import SecretStr

from albatros.errors import ForgeError, NotFoundError
from albatros.forges.base import Hooks, HookState
from albatros.forges.git_hooks import GitHooks
from albatros.forges.gitea import GiteaForge
from albatros.forges.gitea_hooks import GiteaHooks
from albatros.forges.payload import secret_of_repo
from albatros.settings import ForgeKind
from tests.services.gitea_server import GiteaServer
from tests.support.fake_hooks import FAKES, URL, open_fake
from tests.support.forge_worlds import SECRET, Listener, bare_world, settings, sign
from tests.support.hooks import MemoryHooks


@dataclass(frozen=True)
class World:
    """A repo alba/hello without webhooks; `spoil` does to the one that points here what keeps it from arriving."""

    hooks: Hooks
    spoil: Callable[[], None]


def memory_world() -> World:
    hooks = MemoryHooks()
    return World(hooks, lambda: hooks.hooks["alba/hello"].update({URL: False}))


def git_world(stack: ExitStack) -> World:
    bare = stack.enter_context(bare_world())
    hooks = GitHooks(settings(ForgeKind.GIT, str(bare.bare.parent.parent)))
    return World(hooks, lambda: (bare.bare / "hooks/post-receive").chmod(0o644))


def fake_world(kind: ForgeKind, stack: ExitStack) -> World:
    fake = open_fake(kind, stack)
    spoiled = {"push_events": False} if kind is ForgeKind.GITLAB else {"active": False}
    return World(fake.hooks, lambda: next(iter(fake.repo.hooks.values())).update(spoiled))


def fresh_repo(gitea: GiteaServer) -> None:
    try:
        gitea.api("DELETE", "/repos/alba/hello")
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
    gitea.api("POST", "/user/repos", {"name": "hello", "default_branch": "main", "auto_init": True})


def hooks_of(gitea: GiteaServer) -> list[dict[str, object]]:
    return cast("list[dict[str, object]]", gitea.api("GET", "/repos/alba/hello/hooks"))


def real_world(gitea: GiteaServer, stack: ExitStack) -> World:
    fresh_repo(gitea)
    hooks = GiteaHooks(settings(ForgeKind.GITEA, gitea.url, gitea.token))
    stack.callback(hooks.close)

    def spoil() -> None:
        gitea.api("PATCH", f"/repos/alba/hello/hooks/{hooks_of(gitea)[0]['id']}", {"active": False, "events": ["push"]})

    return World(hooks, spoil)


@pytest.fixture(params=["memory", "git", *FAKES, "gitea"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with ExitStack() as stack:
        if request.param == "memory":
            yield memory_world()
        elif request.param == "git":
            yield git_world(stack)
        elif request.param == "gitea":
            yield real_world(request.getfixturevalue("gitea"), stack)
        else:
            yield fake_world(ForgeKind(request.param.removeprefix("fake ")), stack)


def test_a_hook_is_made_found_and_taken_away(world: World) -> None:
    hooks = world.hooks
    assert hooks.look("alba", "hello", URL).state is HookState.MISSING
    assert hooks.remove("alba", "hello", URL).state is HookState.MISSING
    made = hooks.ensure("alba", "hello", URL)
    assert (made.state, bool(made.text)) == (HookState.READY, True)
    assert hooks.look("alba", "hello", URL).state is HookState.READY
    assert hooks.ensure("alba", "hello", URL).state is HookState.READY
    assert hooks.remove("alba", "hello", URL).state is HookState.MISSING
    assert hooks.look("alba", "hello", URL).state is HookState.MISSING


def test_a_hook_that_differs_is_repaired(world: World) -> None:
    world.hooks.ensure("alba", "hello", URL)
    world.spoil()
    found = world.hooks.look("alba", "hello", URL)
    assert (found.state, bool(found.text)) == (HookState.DIFFERS, True)
    world.hooks.ensure("alba", "hello", URL)
    assert world.hooks.look("alba", "hello", URL).state is HookState.READY


# Bare repositories.


def test_the_hook_of_somebody_else_is_left_alone() -> None:
    with bare_world() as bare:
        program = bare.bare / "hooks/post-receive"
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\necho mine\n")
        hooks = GitHooks(settings(ForgeKind.GIT, str(bare.bare.parent.parent)))
        assert "another post-receive hook" in hooks.look("alba", "hello", URL).text
        with pytest.raises(ForgeError, match=r"another program: have it run .*/post-receive .*git -C .*albatros\.url"):
            hooks.ensure("alba", "hello", URL)
        hooks.remove("alba", "hello", URL)
        assert program.read_text() == "#!/bin/sh\necho mine\n"


def test_the_secret_of_a_bare_repo_is_for_its_owner_alone() -> None:
    with bare_world() as bare:
        hooks = GitHooks(settings(ForgeKind.GIT, str(bare.bare.parent.parent)))
        hooks.ensure("alba", "hello", URL)
        secret = bare.bare / "hooks/albatros.secret"
        assert (secret.read_text().strip(), secret.stat().st_mode & 0o777) == (SECRET, 0o600)
        for spoil in (lambda: secret.chmod(0o644), lambda: secret.write_text("another"), secret.unlink):
            spoil()
            assert "secret" in hooks.look("alba", "hello", URL).text
            hooks.ensure("alba", "hello", URL)
            assert hooks.look("alba", "hello", URL).state is HookState.READY
        hooks.remove("alba", "hello", URL)
        assert not secret.exists()
        assert "albatros" not in (bare.bare / "config").read_text().replace("[albatros]", "")


def test_a_secret_file_that_was_named_by_hand_stays() -> None:
    with bare_world() as bare:
        hooks = GitHooks(settings(ForgeKind.GIT, str(bare.bare.parent.parent)))
        mine = bare.bare.parent.parent / "secret"
        mine.write_text(SECRET)
        mine.chmod(0o600)
        bare.git(f"--git-dir={bare.bare}", "config", "albatros.secretFile", str(mine))
        hooks.ensure("alba", "hello", URL)
        assert hooks.look("alba", "hello", URL).state is HookState.READY
        assert not (bare.bare / "hooks/albatros.secret").exists()
        mine.write_text("another one")
        hooks.ensure("alba", "hello", URL)
        assert (bare.bare / "hooks/albatros.secret").read_text().strip() == SECRET
        assert mine.read_text() == "another one"


def test_an_installed_hook_signs_what_is_pushed() -> None:
    with Listener().running() as listener, bare_world() as bare:
        hooks = GitHooks(settings(ForgeKind.GIT, str(bare.bare.parent.parent)))
        hooks.ensure("alba", "hello", f"{listener.url}webhooks/home")
        bare.push("refs/heads/main", commit := bare.commit("first"))
        headers, body = listener.take()
        assert headers["x-albatros-signature"] == f"sha256={sign(body)}"
        assert commit.encode() in body


def test_a_test_says_why_the_hook_does_not_reach_the_server() -> None:
    with bare_world() as bare:
        hooks = GitHooks(settings(ForgeKind.GIT, str(bare.bare.parent.parent)))
        url = "http://127.0.0.1:9/webhooks/home"
        hooks.ensure("alba", "hello", url)
        assert not hooks.ring("alba", "hello", url)
        bare.push("refs/heads/main", bare.commit("first"))
        with pytest.raises(ForgeError, match=r"not told: http:.*/webhooks/home does not answer"):
            hooks.ring("alba", "hello", url)
        with pytest.raises(ForgeError, match="repo add"):
            hooks.ring("alba", "hello", URL)


def test_a_repo_that_is_not_there() -> None:
    with bare_world() as bare:
        hooks = GitHooks(settings(ForgeKind.GIT, str(bare.bare.parent.parent)))
        with pytest.raises(NotFoundError):
            hooks.ensure("alba", "nothing", URL)


# A real Gitea.


def test_a_real_gitea_signs_with_the_secret_that_was_set_again(gitea: GiteaServer) -> None:
    """And sends a push when it is asked for a test."""
    fresh_repo(gitea)
    with Listener().running() as listener:
        old = settings(ForgeKind.GITEA, gitea.url, gitea.token)
        before = GiteaHooks(old.model_copy(update={"webhook_secret": SecretStr("another-secret")}))
        hooks = GiteaHooks(old)
        for one in (before, hooks):
            one.ensure("alba", "hello", listener.url)
            assert len(hooks_of(gitea)) == 1
        before.close()
        assert hooks.ring("alba", "hello", listener.url)
        headers, body = listener.take()
        wanted = hmac.new(secret_of_repo(SECRET, "alba/hello").encode(), body, hashlib.sha256).hexdigest()
        assert headers["x-gitea-signature"] == wanted != sign(body)
        with closing(GiteaForge(old)) as forge:
            forge.verify(headers, body)
        assert headers["x-gitea-event"] == "push"
        hooks.close()
