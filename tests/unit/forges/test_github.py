"""GitHub: the documented signature, addresses, contexts, conditional requests and rate limits."""

import time
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from albatros.domain.states import BuildState
from albatros.errors import ForgeError, ForgeUnavailableError, UnauthorizedError
from albatros.forges.base import CommitStatus
from albatros.forges.github import GithubForge, context_of
from albatros.settings import ForgeKind, ForgeSettings
from tests.support.fake_forge import FakeRepo
from tests.support.fake_github import FakeGithub, fake_github

COMMIT = "2c30b63d8c7f9c3ae69965cc687aa4b054d4bec9"
# GitHub's documentation, "Validating webhook deliveries", "Testing the webhook payload validation".
DOCUMENTED_SECRET, DOCUMENTED_BODY = "It's a Secret to Everybody", b"Hello, World!"
DOCUMENTED = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


def forge_at(url: str, token: str = "", secret: str = "s3cret") -> GithubForge:
    return GithubForge(
        ForgeSettings(
            name="hub", kind=ForgeKind.GITHUB, url=url, token=SecretStr(token), webhook_secret=SecretStr(secret)
        )
    )


@pytest.fixture
def fake() -> Iterator[FakeGithub]:
    with fake_github() as fake:
        fake.repos["alba/hello"] = FakeRepo(commits={COMMIT}, branches={"main": COMMIT})
        yield fake


@pytest.fixture
def forge(fake: FakeGithub) -> Iterator[GithubForge]:
    forge = forge_at(fake.url, fake.token)
    yield forge
    forge.close()


def test_the_documented_signature_holds() -> None:
    forge = forge_at("https://github.com", secret=DOCUMENTED_SECRET)
    forge.verify({"x-hub-signature-256": DOCUMENTED}, DOCUMENTED_BODY)
    for headers in (
        {"x-hub-signature-256": DOCUMENTED.removeprefix("sha256=")},
        {"x-hub-signature-256": DOCUMENTED.replace("sha256", "sha1")},
        {"x-hub-signature": DOCUMENTED},
        {"x-hub-signature-256": DOCUMENTED[:-1] + "8"},
    ):
        with pytest.raises(UnauthorizedError):
            forge.verify(headers, DOCUMENTED_BODY)


def test_addresses_of_github_and_of_an_enterprise_server() -> None:
    for url, api in (
        ("https://github.com/", "https://api.github.com"),
        ("https://git.example.org", "https://git.example.org/api/v3"),
    ):
        forge = forge_at(url, "a-token-of-github")
        assert forge._api._base == api
        source = forge.clone_source("alba", "hello")
        assert source.url == f"{url.rstrip('/')}/alba/hello.git"
        assert (source.username, source.password) == ("x-access-token", "a-token-of-github")
        assert "a-token-of-github" not in repr(source)


def test_contexts_that_differ_in_case_alone_stay_apart(fake: FakeGithub, forge: GithubForge) -> None:
    for context in ("albatros/packages.Hello", "albatros/packages.hello", "albatros/packages.HELLO"):
        status = CommitStatus(COMMIT, context, BuildState.FAILED, context, "https://ci.example.org/")
        forge.post_status("alba", "hello", status)
    assert len(fake.repos["alba/hello"].statuses) == 3
    assert context_of("albatros/packages.hello") == "albatros/packages.hello"
    assert len(context_of("A" * 255)) <= 255


def test_what_did_not_change_is_not_sent_again(fake: FakeGithub, forge: GithubForge) -> None:
    first = forge.heads("alba", "hello")
    assert fake.unchanged == 0
    assert forge.heads("alba", "hello") == first
    assert fake.unchanged == 2
    fake.repos["alba/hello"].branches["new"] = COMMIT
    assert set(forge.heads("alba", "hello")) == {"refs/heads/main", "refs/heads/new"}
    assert fake.unchanged == 3


def test_a_rate_limit_says_when_to_come_back(fake: FakeGithub, forge: GithubForge) -> None:
    spent = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 3000)}
    for status, headers, least, most in (
        (403, {"Retry-After": "60"}, 60, 60),
        (429, {"Retry-After": "60"}, 60, 60),
        (403, spent, 1000, 3000),
        (429, spent, 1000, 3000),
        (403, {"Retry-After": "99999999"}, 3600, 3600),
    ):
        fake.answer = (status, headers, b'{"message": "rate limit exceeded"}')
        with pytest.raises(ForgeUnavailableError) as raised:
            forge.heads("alba", "hello")
        assert raised.value.after is not None
        assert least <= raised.value.after <= most
    fake.answer = (403, {"X-RateLimit-Remaining": "12"}, b"{}")
    with pytest.raises(ForgeError) as refused:
        forge.heads("alba", "hello")
    assert not isinstance(refused.value, ForgeUnavailableError)


def test_redirects_to_another_host_are_refused(fake: FakeGithub, forge: GithubForge) -> None:
    with fake_github() as other:
        fake.answer = (301, {"Location": f"{other.url}/api/v3/repos/alba/hello"}, b"{}")
        with pytest.raises(ForgeError, match="not followed"):
            forge.describe("alba", "hello")
        assert other.calls == []
