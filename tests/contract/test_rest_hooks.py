"""Webhooks through the REST APIs of Gitea, Forgejo, GitHub and GitLab, as the tests fake them."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import cast

import pytest
from pydantic import SecretStr

from albatros.bootstrap import build_forge
from albatros.errors import ForgeError, ForgeUnavailableError, UnauthorizedError
from albatros.forges import github_hooks, gitlab_hooks
from albatros.forges.base import HookState
from albatros.forges.gitlab_hooks import GitlabHooks
from albatros.forges.payload import secret_of_repo
from albatros.forges.rest_hooks import Json
from albatros.settings import ForgeKind
from tests.support.fake_gitea import fake_gitea
from tests.support.fake_gitlab import FakeGitlab
from tests.support.fake_hooks import FAKES, OTHER, URL, Fake, open_fake
from tests.support.recorded import lowered


@pytest.fixture(params=FAKES)
def fake(request: pytest.FixtureRequest) -> Iterator[Fake]:
    with ExitStack() as stack:
        yield open_fake(ForgeKind(request.param.removeprefix("fake ")), stack)


@pytest.fixture
def gitea_like() -> Iterator[Fake]:
    with ExitStack() as stack:
        yield open_fake(ForgeKind.FORGEJO, stack)


@pytest.fixture
def github() -> Iterator[Fake]:
    with ExitStack() as stack:
        yield open_fake(ForgeKind.GITHUB, stack)


@pytest.fixture
def gitlab() -> Iterator[Fake]:
    with ExitStack() as stack:
        yield open_fake(ForgeKind.GITLAB, stack)


def test_adding_twice_makes_one_hook(fake: Fake) -> None:
    for _ in range(2):
        fake.hooks.ensure("alba", "hello", OTHER)
        fake.hooks.ensure("alba", "hello", URL)
    assert len(fake.repo.hooks) == 2
    fake.hooks.remove("alba", "hello", URL)
    assert fake.hooks.look("alba", "hello", OTHER).state is HookState.READY


def check_repaired(fake: Fake, change: dict[str, object], said: str) -> None:
    fake.hooks.ensure("alba", "hello", URL)
    fake.repo.hooks[1].update(change)
    assert said in fake.hooks.look("alba", "hello", URL).text
    repaired = fake.hooks.ensure("alba", "hello", URL)
    assert "repaired" in repaired.text
    assert said in repaired.text
    assert len(fake.repo.hooks) == 1
    assert fake.hooks.look("alba", "hello", URL).state is HookState.READY


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"active": False}, "is not active"),
        ({"events": ["push"]}, "does not tell of delete, pull_request, release"),
        ({"events": None}, "does not tell of push"),
        ({"config": {"url": URL, "content_type": "form"}}, "does not send application/json"),
        ({"branch_filter": "main"}, "some branches only"),
    ],
    ids=str,
)
def test_each_difference_on_gitea(gitea_like: Fake, change: dict[str, object], said: str) -> None:
    check_repaired(gitea_like, change, said)
    assert (list(gitea_like.repo.hooks), gitea_like.repo.hooks[2]["type"]) == ([2], "forgejo")


def github_config(**changes: object) -> dict[str, object]:
    return {"config": {"url": URL, "content_type": "json", "insecure_ssl": "0", "secret": "********", **changes}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"active": False}, "is not active"),
        ({"events": ["push"]}, "does not tell of pull_request, issue_comment"),
        ({"events": None}, "does not tell of push"),
        (github_config(content_type="form"), "does not send application/json"),
        (github_config(insecure_ssl="1"), "does not check the server's certificate"),
        (github_config(insecure_ssl=1), "does not check the server's certificate"),
        ({"config": {"url": URL, "content_type": "json"}}, "has no secret"),
    ],
    ids=str,
)
def test_each_difference_on_github(github: Fake, change: dict[str, object], said: str) -> None:
    check_repaired(github, change, said)
    assert list(github.repo.hooks) == [1], "it is changed where it is"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"push_events": False, "note_events": None}, "does not tell of push_events, note_events"),
        ({"alert_status": "disabled"}, "was disabled by GitLab"),
        ({"alert_status": "temporarily_disabled"}, "was disabled by GitLab"),
        ({"enable_ssl_verification": False}, "does not check the server's certificate"),
        ({"custom_webhook_template": "{}"}, "sends a body of its own"),
        ({"signing_token_present": False}, "has no secret"),
        ({"push_events_branch_filter": "main"}, "some branches only"),
    ],
    ids=str,
)
def test_each_difference_on_gitlab(gitlab: Fake, change: dict[str, object], said: str) -> None:
    check_repaired(gitlab, change, said)


def test_a_hook_of_everything_or_of_every_branch_is_right(github: Fake, gitlab: Fake) -> None:
    for fake, change in (
        (github, {"events": ["*"]}),
        (github, github_config(insecure_ssl=0)),
        (gitlab, {"push_events_branch_filter": "main", "branch_filter_strategy": "all_branches"}),
    ):
        fake.hooks.ensure("alba", "hello", URL)
        fake.repo.hooks[max(fake.repo.hooks)].update(change)
        assert fake.hooks.look("alba", "hello", URL).state is HookState.READY


def test_the_least_is_asked_for(github: Fake, gitlab: Fake) -> None:
    for fake in (github, gitlab):
        fake.hooks.ensure("alba", "hello", URL)
    assert github.repo.hooks[1]["events"] == list(github_hooks.EVENTS)
    assert github.repo.hooks[1]["config"] == github_config()["config"]
    told = {key for key, value in gitlab.repo.hooks[1].items() if key.endswith("_events") and value}
    assert told == set(gitlab_hooks.EVENTS)
    assert gitlab.repo.hooks[1]["enable_ssl_verification"] is True


def listed(fake: Fake, number: int, url: str) -> dict[str, object]:
    """A whole webhook as the server lists it."""
    fake.hooks.ensure("alba", "hello", URL)
    (made,) = fake.repo.hooks.values()
    fake.repo.hooks.clear()
    if fake.settings.kind is ForgeKind.GITLAB:
        return {**made, "id": number, "url": url}
    return {**made, "id": number, "config": {**cast("dict[str, object]", made["config"]), "url": url}}


def test_hooks_to_elsewhere_stay_and_doubles_go(fake: Fake) -> None:
    hook = {url: listed(fake, 0, url) for url in (OTHER, URL)}
    for number in range(100, 170):
        fake.repo.hooks[number] = {**hook[OTHER if number < 160 else URL], "id": number}
    assert "is there 10 times" in fake.hooks.look("alba", "hello", URL).text
    assert "repaired: it is there 10 times" in fake.hooks.ensure("alba", "hello", URL).text
    assert len(fake.repo.hooks) == 61
    fake.hooks.remove("alba", "hello", URL)
    assert sorted(fake.repo.hooks) == list(range(100, 160))


def test_a_token_that_may_not_see_hooks(fake: Fake) -> None:
    with pytest.raises(ForgeError, match="has to be administrator"):
        fake.hooks.look("alba", "nothing", URL)
    fake.server.answer = 403, {}, b'{"message": "token does not have at least one of required scope(s)"}'
    with pytest.raises(ForgeError, match=r"forges\.token .* required scope"):
        fake.hooks.ensure("alba", "hello", URL)
    fake.server.answer = 500, {}, b""
    with pytest.raises(ForgeUnavailableError):
        fake.hooks.ensure("alba", "hello", URL)


def test_who_is_no_administrator_is_told_so(github: Fake, gitlab: Fake) -> None:
    for fake, said in ((github, "has to be administrator"), (gitlab, r"forges\.token .*403 Forbidden")):
        fake.repo.administered = False
        for call in (fake.hooks.look, fake.hooks.ensure, fake.hooks.remove):
            with pytest.raises(ForgeError, match=said):
                call("alba", "hello", URL)


@pytest.mark.parametrize(
    "answer",
    [b"{}", b"null", b'"text"', b'[{"id": "1", "url": "URL", "config": {"url": "URL"}}]', b"<html>", b"[" * 100_000],
    ids=["object", "null", "text", "id", "HTML", "deep"],
)
def test_answers_that_cannot_be_read_make_no_hook(fake: Fake, answer: bytes) -> None:
    fake.server.answer = 200, {}, answer.replace(b"URL", URL.encode())
    for call in (fake.hooks.ensure, fake.hooks.remove, fake.hooks.ring):
        with pytest.raises(ForgeError):
            call("alba", "hello", URL)
    changing = [call for call in fake.server.calls if not call.startswith("GET")]
    assert changing == [] or b'"id"' in answer


def test_a_redirect_to_another_host_is_refused(fake: Fake) -> None:
    with fake_gitea() as other:
        fake.server.answer = 307, {"Location": f"{other.url}/hooks"}, b"[]"
        for call in (fake.hooks.look, fake.hooks.ensure, fake.hooks.remove):
            with pytest.raises(ForgeError, match="redirect"):
                call("alba", "hello", URL)
        assert other.calls == []


def test_pages_of_hooks_without_end(fake: Fake) -> None:
    fake.server.answer = 200, {}, json.dumps([{"id": 1}] * 50).encode()
    with pytest.raises(ForgeError, match="more than 500"):
        fake.hooks.ensure("alba", "hello", URL)
    assert len(fake.server.calls) == 10


def test_a_test_delivery_is_asked_of_the_hook_that_points_here(fake: Fake) -> None:
    with pytest.raises(ForgeError, match="repo add"):
        fake.hooks.ring("alba", "hello", URL)
    fake.hooks.ensure("alba", "hello", OTHER)
    fake.hooks.ensure("alba", "hello", URL)
    assert fake.hooks.ring("alba", "hello", URL)
    assert fake.repo.rung == [2]


def test_a_test_that_gitlab_cannot_send(gitlab: Fake) -> None:
    gitlab.hooks.ensure("alba", "hello", URL)
    gitlab.repo.branches.clear()
    assert not gitlab.hooks.ring("alba", "hello", URL)


def test_as_many_hooks_as_a_repo_may_have(github: Fake, gitlab: Fake) -> None:
    for fake, most, said in ((github, 20, 'The "push" event cannot have more than 20'), (gitlab, 100, "exceeded")):
        for number in range(most):
            fake.hooks.ensure("alba", "hello", f"{OTHER}/{number}")
        with pytest.raises(ForgeError, match=said):
            fake.hooks.ensure("alba", "hello", URL)
        assert len(fake.repo.hooks) == most


def test_a_hook_that_somebody_else_makes_at_the_same_time(github: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = listed(github, 7, URL)
    looks = github.hooks._pointing_here

    def nobody_yet(owner: str, name: str, url: str) -> list[Json]:
        monkeypatch.undo()
        found = looks(owner, name, url)
        github.repo.hooks[7] = theirs
        return found

    monkeypatch.setattr(github.hooks, "_pointing_here", nobody_yet)
    assert github.hooks.ensure("alba", "hello", URL).state is HookState.READY
    assert list(github.repo.hooks) == [7]


def push_of(kind: ForgeKind, full_name: str) -> bytes:
    if kind is ForgeKind.GITLAB:
        return json.dumps({"project": {"path_with_namespace": full_name}}).encode()
    return json.dumps({"repository": {"full_name": full_name}}).encode()


def test_the_secret_of_a_repo_signs_for_that_repo_alone(github: Fake, gitlab: Fake) -> None:
    for fake in (github, gitlab):
        fake.hooks.ensure("alba", "hello", URL)
        kind, configured = fake.settings.kind, fake.settings.webhook_secret.get_secret_value()
        assert configured not in fake.repo.hook_secrets.values()
        forge = build_forge(fake.settings)
        forge.verify(*lowered(fake.signed(push_of(kind, "alba/hello"), 1)))
        others = [push_of(kind, "alba/keys"), push_of(kind, "Alba/hello"), b"{}", b"[]", b"{", b"[" * 100_000, b"\xff"]
        for body in others:
            with pytest.raises(UnauthorizedError):
                forge.verify(*lowered(fake.signed(body, 1)))


def test_a_gitlab_that_takes_no_signing_token_keeps_no_unsigned_hook(gitlab: Fake) -> None:
    assert isinstance(gitlab.server, FakeGitlab)
    gitlab.server.knows_signing_tokens = False
    with pytest.raises(ForgeError, match=r"newer GitLab.*whsec_"):
        gitlab.hooks.ensure("alba", "hello", URL)
    assert gitlab.repo.hooks == {}


@pytest.mark.parametrize("newer", [True, False])
def test_the_older_token_of_gitlab_is_a_project_s_own_too(gitlab: Fake, newer: bool) -> None:
    assert isinstance(gitlab.server, FakeGitlab)
    gitlab.server.knows_signing_tokens = newer
    older = gitlab.settings.model_copy(update={"webhook_secret": SecretStr("an-older-secret")})
    hooks, forge = GitlabHooks(older), build_forge(older)
    hooks.ensure("alba", "hello", URL)
    assert hooks.look("alba", "hello", URL).state is HookState.READY
    token = {"x-gitlab-token": gitlab.repo.hook_secrets[1]}
    assert token["x-gitlab-token"] == secret_of_repo("an-older-secret", "alba/hello")
    forge.verify(token, push_of(ForgeKind.GITLAB, "alba/hello"))
    with pytest.raises(UnauthorizedError):
        forge.verify(token, push_of(ForgeKind.GITLAB, "alba/keys"))
    gitlab.repo.hooks[1]["signing_token_present"] = True
    assert "is signed" in hooks.look("alba", "hello", URL).text
    hooks.close()
