"""GitHub: a runner's credential is an installation token of the one repo, where a GitHub App is configured."""

from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr, ValidationError

from albatros.errors import ConfigError, ForgeUnavailableError
from albatros.forges.github import GithubForge
from albatros.settings import ForgeKind, ForgeSettings
from tests.support.fake_forge import FakeRepo
from tests.support.fake_github import FakeGithub, fake_github

PEM = Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return generate_rsa(65537, 2048)


@pytest.fixture
def fake(key: RSAPrivateKey) -> Iterator[FakeGithub]:
    with fake_github() as fake:
        fake.app, fake.app_key, fake.installed = "123456", key.public_key(), ("alba/hello", "alba/keys")
        fake.repos = {"alba/hello": FakeRepo(private=True)}
        yield fake


def settings(fake: FakeGithub, pem: str, **changes: object) -> ForgeSettings:
    values = {"name": "hub", "kind": "github", "url": fake.url, "webhook_secret": "s3cret", "token": fake.token}
    values |= {"clone_token": "may-read-all", "app_id": "123456", "app_key": pem}
    return ForgeSettings.model_validate({**values, **changes})


@pytest.fixture
def pem(key: RSAPrivateKey) -> str:
    return key.private_bytes(*PEM).decode()


@pytest.fixture
def forge(fake: FakeGithub, pem: str) -> Iterator[GithubForge]:
    forge = GithubForge(settings(fake, pem))
    yield forge
    forge.close()


def test_a_token_reads_one_repo_and_is_shared(fake: FakeGithub, forge: GithubForge) -> None:
    source = forge.clone_source("alba", "hello")
    assert (source.username, source.password) == ("x-access-token", "ghs_1ofTests")
    assert "ghs_" not in repr(source)
    assert fake.given == [{"repositories": ["hello"], "permissions": {"contents": "read"}}]
    assert forge.clone_source("alba", "hello") == source
    assert forge.clone_source("alba", "keys").password == "ghs_2ofTests"
    assert len(fake.given) == 2


def test_who_needs_no_credential_gets_none(fake: FakeGithub, forge: GithubForge) -> None:
    assert forge.clone_source("alba", "hello", credential=False).password is None
    assert fake.calls == []


def test_where_the_app_is_not_installed_runners_get_the_clone_token(
    fake: FakeGithub, forge: GithubForge, caplog: pytest.LogCaptureFixture
) -> None:
    fake.installed = ()
    for _ in range(2):
        assert forge.clone_source("alba", "hello").password == "may-read-all"
    assert len([one for one in caplog.records if "no token for clones" in one.getMessage()]) == 1
    assert fake.given == []


@pytest.mark.parametrize("answer", [b"[]", b"null", b"{}", b'{"id": "9"}', b'{"id": 9, "token": 1}', b"<html>"])
def test_answers_that_are_no_token(fake: FakeGithub, forge: GithubForge, answer: bytes) -> None:
    fake.answer = 200, {}, answer
    assert forge.clone_source("alba", "hello").password == "may-read-all"


def test_a_github_that_is_away_is_waited_for(fake: FakeGithub, forge: GithubForge) -> None:
    fake.answer = 503, {}, b""
    with pytest.raises(ForgeUnavailableError):
        forge.clone_source("alba", "hello")
    fake.answer = None
    assert forge.clone_source("alba", "hello").password == "ghs_1ofTests"


def test_submodules_are_cloned_with_the_clone_token(fake: FakeGithub, pem: str) -> None:
    assert GithubForge(settings(fake, pem, submodules=True)).clone_source("alba", "hello").password == "may-read-all"
    assert fake.calls == []


def test_keys_that_are_none_are_refused_at_the_start(fake: FakeGithub) -> None:
    other = generate_private_key(SECP256R1()).private_bytes(*PEM).decode()
    for pem in ("not a key", other):
        with pytest.raises(ConfigError, match=r"app_key is no RSA key") as raised:
            GithubForge(settings(fake, pem))
        assert pem not in raised.value.detail


def test_an_app_needs_both_and_a_github(fake: FakeGithub, pem: str) -> None:
    for changes, said in (
        ({"app_id": ""}, "belong together"),
        ({"app_key": SecretStr("")}, "belong together"),
        ({"kind": ForgeKind.GITLAB}, "set kind to github"),
    ):
        with pytest.raises(ValidationError, match=said):
            settings(fake, pem, **changes)
