"""What every forge's login keeps to, and its fake: who comes back is who said yes there, once."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from urllib.parse import parse_qs, urlsplit

import pytest

from albatros.errors import UnauthorizedError
from albatros.forges.base import Identity, LoginAttempt
from albatros.forges.oauth import OAuthLogin
from albatros.settings import ForgeKind, ForgeSettings
from tests.services.gitea_server import ADMIN, GiteaServer
from tests.support.fake_oauth import CLIENT_ID, CLIENT_SECRET, fake_oauth
from tests.support.gitea_login import make_application, somebody

CALLBACK = "http://127.0.0.1:9/login/home/callback"


@dataclass(frozen=True)
class World:
    """One forge, with somebody who says yes in the browser."""

    settings: ForgeSettings
    login: OAuthLogin
    approve: Callable[[str], str]
    person: str


def settings_of(kind: str, url: str, client_id: str, client_secret: str) -> ForgeSettings:
    return ForgeSettings.model_validate(
        {
            "name": "home",
            "kind": kind,
            "url": url,
            "webhook_secret": "not-a-secret",
            "oauth_client_id": client_id,
            "oauth_client_secret": client_secret,
        }
    )


@contextmanager
def _fake(kind: str) -> Iterator[World]:
    with fake_oauth() as server:
        settings = settings_of(kind, server.url, CLIENT_ID, CLIENT_SECRET)
        with closing(OAuthLogin(settings)) as login:
            yield World(settings, login, server.approve, server.login)


@contextmanager
def _real(gitea: GiteaServer) -> Iterator[World]:
    made = make_application(gitea, CALLBACK)
    settings = settings_of("gitea", gitea.url, made.client_id, made.client_secret)
    with somebody(gitea, ADMIN, gitea.password) as person, closing(OAuthLogin(settings)) as login:
        yield World(settings, login, person.approve, ADMIN)


@pytest.fixture(params=[*(f"fake {kind}" for kind in ForgeKind if kind is not ForgeKind.GIT), "gitea"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    kind = request.param
    making = _real(request.getfixturevalue("gitea")) if kind == "gitea" else _fake(kind.removeprefix("fake "))
    with making as found:
        yield found


def attempt() -> LoginAttempt:
    return LoginAttempt(CALLBACK, *(secrets.token_hex(32) for _ in range(3)))


def code_of(world: World, begun: LoginAttempt) -> str:
    back = urlsplit(world.approve(world.login.address(begun)))
    query = parse_qs(back.query)
    assert f"{back.scheme}://{back.netloc}{back.path}" == CALLBACK
    assert query["state"] == [begun.state]
    return query["code"][0]


def test_who_comes_back_is_who_said_yes(world: World) -> None:
    begun = attempt()
    who = world.login.identify(begun, code_of(world, begun))
    assert who.login == world.person
    assert who.subject.isdigit()
    again = attempt()
    assert world.login.identify(again, code_of(world, again)) == Identity(who.subject, who.login)


def test_a_code_is_good_once(world: World) -> None:
    begun = attempt()
    code = code_of(world, begun)
    world.login.identify(begun, code)
    with pytest.raises(UnauthorizedError, match="begin again"):
        world.login.identify(begun, code)


def test_a_code_is_good_with_its_verifier_alone(world: World) -> None:
    begun = attempt()
    code = code_of(world, begun)
    with pytest.raises(UnauthorizedError, match="begin again"):
        world.login.identify(replace(begun, verifier=secrets.token_hex(32)), code)


def test_a_code_of_another_login_is_told_by_its_nonce(world: World) -> None:
    if "nonce=" not in world.login.address(attempt()):
        pytest.skip("this kind of forge does not speak OpenID Connect")
    begun = attempt()
    code = code_of(world, begun)
    with pytest.raises(UnauthorizedError, match="another login"):
        world.login.identify(replace(begun, nonce=secrets.token_hex(32)), code)


def test_a_code_that_nobody_gave_is_refused(world: World) -> None:
    with pytest.raises(UnauthorizedError, match="does not take this login"):
        world.login.identify(attempt(), secrets.token_urlsafe(20))


def test_a_wrong_secret_says_what_to_look_at(world: World) -> None:
    begun = attempt()
    code = code_of(world, begun)
    settings = world.settings
    wrong = settings_of(settings.kind, settings.url, settings.oauth_client_id, "a-wrong-one")
    with closing(OAuthLogin(wrong)) as login, pytest.raises(UnauthorizedError, match="oauth_client_secret") as raised:
        login.identify(begun, code)
    assert "a-wrong-one" not in raised.value.detail
