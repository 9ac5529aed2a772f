"""Challenges as registries write them, and what is made of them."""

import json
import time
from collections.abc import Callable

import pytest

from albatros.errors import RegistryError
from albatros.registries.auth import Authorizer, TokenRequest, parse_challenges
from albatros.registries.base import Credentials

REALM = 'Bearer realm="https://auth.example.org/token?x=1",service="registry.example.org"'
SCOPE = "repository:alba/hello:pull,push"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (
            'Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull,push"})],
        ),
        ("Basic", [("basic", {})]),
        ('basic realm="Bearer of things, Basic"', [("basic", {"realm": "Bearer of things, Basic"})]),
        (
            'Basic realm="x", Bearer realm=https://a/t',
            [("basic", {"realm": "x"}), ("bearer", {"realm": "https://a/t"})],
        ),
        ('Negotiate, Basic realm="x"', [("basic", {"realm": "x"})]),
        ("", []),
        ("Digest realm=x", []),
    ],
)
def test_challenges(header: str, found: list[tuple[str, dict[str, str]]]) -> None:
    assert [(challenge.scheme, challenge.parameters) for challenge in parse_challenges(header)] == found


class Endpoint:
    def __init__(self, answer: Callable[[], tuple[int, object]]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str | None]] = []

    def fetch(self, request: TokenRequest) -> tuple[int, bytes]:
        self.asked.append((request.url, request.authorization))
        status, body = self.answer()
        return status, body if isinstance(body, bytes) else json.dumps(body).encode()


def ask(answer: object, status: int = 200, credentials: Credentials | None = None) -> tuple[str | None, Endpoint]:
    endpoint = Endpoint(lambda: (status, answer))
    authorizer = Authorizer("registry.example.org", credentials, endpoint.fetch)
    assert authorizer.header(SCOPE) is None
    return authorizer.challenged(REALM, SCOPE, None), endpoint


def test_a_token_is_asked_for_with_everything_that_the_realm_wants() -> None:
    header, endpoint = ask({"token": "abc"}, credentials=Credentials("robot", "secret", "here"))
    assert header == "Bearer abc"
    assert endpoint.asked == [
        (
            "https://auth.example.org/token?x=1&service=registry.example.org&scope=repository%3Aalba%2Fhello%3Apull%2Cpush",
            "Basic cm9ib3Q6c2VjcmV0",
        )
    ]


def test_oauth2_names_the_token_otherwise() -> None:
    assert ask({"access_token": "abc"})[0] == "Bearer abc"


@pytest.mark.parametrize("answer", [b"", b"[]", {}, {"token": 1}, {"token": "a\nb"}, {"token": ""}, b"[" * 100_000])
def test_a_token_that_is_none_is_refused(answer: object) -> None:
    with pytest.raises(RegistryError, match="no usable token"):
        ask(answer)


def test_a_refused_token_is_told_with_its_scope() -> None:
    with pytest.raises(RegistryError, match=rf"gives no token for {SCOPE} without credentials .* answered 403"):
        ask({}, status=403)


@pytest.mark.parametrize(("life", "tokens"), [(None, 1), (0, 1), (60, 1), (3600, 1), (True, 1), ("soon", 1)])
def test_a_token_lives_at_least_a_minute(life: object, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint(lambda: (200, {"token": "abc", "expires_in": life}))
    authorizer = Authorizer("registry.example.org", None, endpoint.fetch)
    begin = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: begin)
    authorizer.challenged(REALM, SCOPE, None)
    monkeypatch.setattr(time, "monotonic", lambda: begin + 45)
    authorizer.header(SCOPE)
    assert len(endpoint.asked) == tokens


def test_a_token_near_its_end_is_not_used() -> None:
    numbers = iter(range(9))
    endpoint = Endpoint(lambda: (200, {"token": f"t{next(numbers)}", "expires_in": 60}))
    authorizer = Authorizer("registry.example.org", None, endpoint.fetch)
    assert authorizer.challenged(REALM, SCOPE, None) == "Bearer t0"
    with pytest.MonkeyPatch.context() as patch:
        later = time.monotonic() + 55
        patch.setattr(time, "monotonic", lambda: later)
        assert authorizer.header(SCOPE) == "Bearer t1"


def test_basic_with_nothing_to_offer_gives_up() -> None:
    authorizer = Authorizer("registry.example.org", None, Endpoint(lambda: (500, {})).fetch)
    assert authorizer.challenged("Basic realm=x", SCOPE, None) is None


def test_a_login_that_was_refused_is_not_sent_again() -> None:
    authorizer = Authorizer("registry.example.org", Credentials("a", "b", "here"), Endpoint(lambda: (500, {})).fetch)
    header = authorizer.challenged("Basic realm=x", SCOPE, None)
    assert header is not None
    assert authorizer.challenged("Basic realm=x", SCOPE, header) is None


def test_nothing_shows_a_password() -> None:
    credentials = Credentials("robot", "hunter22", "here")
    assert "hunter22" not in repr(credentials)
    authorizer = Authorizer("registry.example.org", credentials, Endpoint(lambda: (200, {"token": "abc"})).fetch)
    authorizer.challenged(REALM, SCOPE, None)
    assert "hunter22" not in authorizer.identity
    assert set(authorizer.secrets()) == {"hunter22", "cm9ib3Q6aHVudGVyMjI=", "abc"}


def test_plain_http_that_was_asked_for_has_its_token_endpoint_there_too() -> None:
    endpoint = Endpoint(lambda: (200, {"token": "abc"}))
    authorizer = Authorizer("r.lan:5000", None, endpoint.fetch, plain=True)
    assert authorizer.challenged('Bearer realm="http://r.lan:5000/token"', SCOPE, None) == "Bearer abc"
    with pytest.raises(RegistryError, match="not https"):
        authorizer.challenged('Bearer realm="http://other.lan/token"', "other", None)
