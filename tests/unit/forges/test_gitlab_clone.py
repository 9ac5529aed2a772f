"""GitLab: a runner's credential is a short-lived deploy token of the one project, where GitLab makes one."""

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from albatros.bootstrap import build_forge
from albatros.errors import ForgeError, ForgeUnavailableError
from albatros.forges import gitlab_clone
from albatros.forges.base import CloneSource
from albatros.forges.gitlab import GitlabForge
from albatros.forges.gitlab_clone import DeployTokens
from albatros.settings import ForgeKind, ForgeSettings
from tests.support.fake_forge import FakeRepo
from tests.support.fake_gitlab import FakeGitlab, fake_gitlab


def settings(url: str, token: str) -> ForgeSettings:
    return ForgeSettings(
        name="lab",
        kind=ForgeKind.GITLAB,
        url=url,
        token=SecretStr(token),
        clone_token=SecretStr("may-read-all"),
        webhook_secret=SecretStr("s3cret"),
    )


@pytest.fixture
def fake() -> Iterator[FakeGitlab]:
    with fake_gitlab() as fake:
        fake.repos = {"alba/hello": FakeRepo(private=True), "alba/keys": FakeRepo(private=True)}
        yield fake


@pytest.fixture
def forge(fake: FakeGitlab) -> Iterator[GitlabForge]:
    forge = GitlabForge(settings(fake.url, fake.token))
    yield forge
    forge.close()


def asked(fake: FakeGitlab, method: str) -> int:
    return sum(call.startswith(method) and "deploy_tokens" in call for call in fake.calls)


def test_a_token_reads_one_project_and_is_used_for_an_hour(
    fake: FakeGitlab, forge: GitlabForge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    source = forge.clone_source("alba", "hello")
    assert (source.username, source.password) == ("gitlab+deploy-token-1", "gldt-1-of-tests")
    assert source.url == f"{fake.url}/alba/hello.git"
    assert "gldt" not in repr(source) + caplog.text + "".join(fake.calls)
    (made,) = fake.repos["alba/hello"].deploy_tokens.values()
    assert made["scopes"] == ["read_repository"]
    life = datetime.fromisoformat(str(made["expires_at"])) - datetime.now(UTC)
    assert timedelta(hours=1) < life <= timedelta(hours=2)
    assert forge.clone_source("alba", "hello") == source
    assert asked(fake, "POST") == 1
    assert forge.clone_source("alba", "keys").password == "gldt-1-of-tests"
    assert asked(fake, "POST") == 2


def test_who_needs_no_credential_gets_none(fake: FakeGitlab, forge: GitlabForge) -> None:
    assert forge.clone_source("alba", "hello", credential=False) == CloneSource(f"{fake.url}/alba/hello.git")
    assert fake.calls == []


@pytest.mark.parametrize("kind", [kind for kind in ForgeKind if kind is not ForgeKind.GIT])
def test_no_kind_of_forge_gives_a_credential_unasked(kind: ForgeKind) -> None:
    changed = settings("https://forge.example.org", "a-token").model_copy(update={"kind": kind})
    source = build_forge(changed).clone_source("alba", "hello", credential=False)
    assert source == CloneSource("https://forge.example.org/alba/hello.git")


def test_a_new_token_takes_the_place_of_ended_ones(
    fake: FakeGitlab, forge: GitlabForge, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    tokens = fake.repos["alba/hello"].deploy_tokens
    ended = {"name": "albatros-clone", "expires_at": (now - timedelta(seconds=1)).isoformat()}
    tokens[1] = {**ended, "id": 1}
    tokens[2] = {**ended, "id": 2, "name": "somebody-elses"}
    tokens[3] = {**ended, "id": 3, "expires_at": None}
    tokens[4] = {**ended, "id": 4, "expires_at": "never"}
    tokens[5] = {**ended, "id": "5"}
    monkeypatch.setattr(gitlab_clone, "LIFE", timedelta(0))
    monkeypatch.setattr(DeployTokens, "use", timedelta(0))
    for _ in range(2):
        assert forge.clone_source("alba", "hello").password == "gldt-6-of-tests"
    assert asked(fake, "POST") == 2
    assert set(tokens) == {2, 3, 4, 5}


def test_jobs_that_start_at_once_share_a_token(fake: FakeGitlab, forge: GitlabForge) -> None:
    found: list[CloneSource] = []
    threads = [threading.Thread(target=lambda: found.append(forge.clone_source("alba", "hello"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found)), asked(fake, "POST")) == (8, 1, 1)


def test_where_gitlab_makes_none_runners_get_the_clone_token_and_it_is_said_once(
    fake: FakeGitlab, forge: GitlabForge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake.repos["alba/hello"].administered = False
    for _ in range(2):
        source = forge.clone_source("alba", "hello")
        assert (source.username, source.password) == ("oauth2", "may-read-all")
    assert asked(fake, "POST") == 1
    monkeypatch.setattr(DeployTokens, "use", timedelta(0))
    fresh = GitlabForge(settings(fake.url, fake.token))
    for _ in range(3):
        fresh.clone_source("alba", "hello")
    fresh.close()
    assert asked(fake, "POST") == 4, "once the hour is over it is asked again"
    said = [record for record in caplog.records if "no token for clones" in record.getMessage()]
    assert len(said) == 2, "by each process once"


@pytest.mark.parametrize(
    "answer",
    [b"[]", b"null", b"{}", b"<html>", b'{"username": 1, "token": "x"}', b'{"username": "a\\nb", "token": "x"}'],
)
def test_answers_that_are_no_token(fake: FakeGitlab, forge: GitlabForge, answer: bytes) -> None:
    fake.answer = 201, {}, answer
    assert forge.clone_source("alba", "hello").password == "may-read-all"


def test_a_gitlab_that_is_away_is_waited_for(fake: FakeGitlab, forge: GitlabForge) -> None:
    fake.answer = 502, {}, b""
    with pytest.raises(ForgeUnavailableError):
        forge.clone_source("alba", "hello")
    fake.answer = None
    assert forge.clone_source("alba", "hello").password == "gldt-1-of-tests"


def test_a_redirect_to_another_host_takes_no_token_along(fake: FakeGitlab, forge: GitlabForge) -> None:
    with fake_gitlab() as other:
        fake.answer = 307, {"Location": f"{other.url}/api/v4/projects/1/deploy_tokens"}, b""
        assert forge.clone_source("alba", "hello").password == "may-read-all"
        assert other.calls == []


def test_ended_tokens_that_cannot_be_deleted_stop_no_clone(
    fake: FakeGitlab, forge: GitlabForge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> object:
        raise ForgeError(f"no: {path}")

    monkeypatch.setattr(forge._api, "get", refuse)
    assert forge.clone_source("alba", "hello").password == "gldt-1-of-tests"


def test_submodules_are_cloned_with_the_clone_token(fake: FakeGitlab) -> None:
    forge = GitlabForge(settings(fake.url, fake.token).model_copy(update={"submodules": True}))
    assert forge.clone_source("alba", "hello").password == "may-read-all"
    assert fake.calls == []
