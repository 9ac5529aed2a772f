"""Forwarded headers: believed from trusted proxies alone, and never further than the first that is not trusted."""

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from albatros.errors import ConfigError
from albatros.http.proxies import TrustedProxies, parse_networks

TRUSTED = ["10.0.0.0/8", "::1"]


def seen(client: str | None, *headers: tuple[str, str]) -> Scope:
    """The scope that the application gets."""
    found: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        found.append(scope)

    async def receive() -> Message:
        raise AssertionError

    async def send(_message: Message) -> None:
        raise AssertionError

    scope = {
        "type": "http",
        "scheme": "http",
        "client": (client, 4711) if client is not None else None,
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }
    asyncio.run(TrustedProxies(app, parse_networks(TRUSTED))(scope, receive, send))
    return found[0]


def test_a_trusted_proxy_says_who_called_and_how() -> None:
    scope = seen(
        "10.1.2.3",
        ("Host", "inner:8080"),
        ("X-Forwarded-For", "203.0.113.7"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "ci.example.org"),
    )
    assert scope["client"] == ("203.0.113.7", 0)
    assert scope["scheme"] == "https"
    assert scope["headers"] == [(b"host", b"ci.example.org")]


@pytest.mark.parametrize("client", ["203.0.113.9", "::2", None, "not an address"])
def test_nobody_else_says_anything(client: str | None) -> None:
    scope = seen(
        client,
        ("Host", "inner"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.example.org"),
    )
    assert scope["client"] == ((client, 4711) if client is not None else None)
    assert scope["scheme"] == "http"
    assert scope["headers"] == [(b"host", b"inner")]


@pytest.mark.parametrize(
    ("hops", "address"),
    [
        ("198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("10.0.0.5, 10.0.0.2", "10.0.0.5"),
        ("203.0.113.7, garbage", "10.1.2.3"),
        ("garbage, 10.0.0.2", "10.0.0.2"),
        ("203.0.113.7:5555", "203.0.113.7"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("", "10.1.2.3"),
        (", ".join(["198.51.100.1"] * 5000), "198.51.100.1"),
    ],
)
def test_the_client_is_the_last_that_is_no_trusted_proxy(hops: str, address: str) -> None:
    assert seen("10.1.2.3", ("X-Forwarded-For", hops))["client"][0] == address


def test_several_headers_are_read_as_one() -> None:
    scope = seen("::1", ("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", "203.0.113.7"))
    assert scope["client"][0] == "203.0.113.7"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Forwarded-Proto", "javascript"),
        ("X-Forwarded-Host", "a/b"),
        ("X-Forwarded-Host", "a@b"),
        ("X-Forwarded-Host", "a\tb"),
        ("X-Forwarded-Host", "a" * 300),
    ],
)
def test_what_is_no_scheme_or_host_is_left_out(name: str, value: str) -> None:
    scope = seen("10.1.2.3", ("Host", "inner"), (name, value))
    assert (scope["scheme"], scope["headers"]) == ("http", [(b"host", b"inner")])


def test_a_mistyped_network_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="trusted_proxies"):
        parse_networks(["10.0.0.1/8"])
