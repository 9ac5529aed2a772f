"""Logging in at an OCI registry: challenges, Basic and Bearer tokens (distribution, "token" and "oauth2" of its spec).

An Authorization header goes to the registry's own origin, credentials besides to the realm that it names, and both over
https or to this machine only. No text made here holds a credential or a token.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from albatros.domain.references import is_loopback
from albatros.errors import RegistryError
from albatros.registries.base import Credentials

_LEAST_LIFE = 60.0
"""Seconds that a token lives when the endpoint does not say (token specification)."""
_EARLY = 10.0
"""Seconds before its end from which a token is not used any more."""
_SCHEME = re.compile(r"(?:^|,)\s*(Basic|Bearer)(?=\s|,|$)", re.IGNORECASE)
_PARAMETER = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')

_CLIENT = "albatros"
_NOT_THIS_WAY = (404, 405, 501)
"""What a token endpoint answers to the one of GET and POST that it does not know."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request to a token endpoint: POST of `form` where there is one, else GET with this Authorization header."""

    url: str
    authorization: str | None = field(default=None, repr=False)
    form: bytes = field(default=b"", repr=False)


TokenFetcher = Callable[[TokenRequest], "tuple[int, bytes]"]
"""Sends it: status and body. Raises RegistryUnavailableError."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """One `WWW-Authenticate` challenge."""

    scheme: str
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    until: float


def parse_challenges(header: str) -> list[Challenge]:
    """The Basic and Bearer challenges of one or several joined headers (RFC 9110, 11.6.1); others are left out."""
    starts = list(_SCHEME.finditer(header))
    ends = [*(match.start() for match in starts[1:]), len(header)]
    return [
        Challenge(
            match[1].lower(), {m[1].lower(): m[2] or m[3] or "" for m in _PARAMETER.finditer(header, match.end(), end)}
        )
        for match, end in zip(starts, ends, strict=False)
    ]


class Authorizer:
    """Holds what a registry wants for each scope. Safe to use from several threads; one of them fetches a token."""

    def __init__(self, host: str, credentials: Credentials | None, fetch: TokenFetcher, *, plain: bool = False) -> None:
        self._host = host
        self._credentials = credentials
        self._fetch = fetch
        self._plain = plain
        self._challenge: Challenge | None = None
        self._tokens: dict[str, _Token] = {}
        self._lock = threading.Lock()

    @property
    def identity(self) -> str:
        """Who is asking, for errors."""
        if self._credentials is None:
            return "without credentials (none are known for this host)"
        name = f"{self._credentials.username!r}" if self._credentials.username else "the bearer of an identity token"
        return f"as {name} with the credentials from {self._credentials.origin}"

    def secrets(self) -> list[str]:
        """Everything that no text may repeat."""
        basic = self._basic()
        own = [self._credentials.password, self._credentials.identity_token] if self._credentials else []
        own += [basic.removeprefix("Basic ")] if basic else []
        return [*filter(None, own), *(token.header.removeprefix("Bearer ") for token in list(self._tokens.values()))]

    def header(self, scope: str) -> str | None:
        """The Authorization header for a request, None before the registry asked for one."""
        with self._lock:
            if self._challenge is None:
                return None
            return self._answer(self._challenge, scope)

    def challenged(self, www_authenticate: str, scope: str, rejected: str | None) -> str | None:
        """Take in a 401 to a request that carried `rejected`: the header to try next, None when there is none."""
        challenges = {challenge.scheme: challenge for challenge in parse_challenges(www_authenticate)}
        chosen = challenges.get("bearer") or challenges.get("basic")
        if chosen is None:
            return None
        with self._lock:
            self._challenge = chosen
            current = self._tokens.get(scope)
            if current is not None and current.header == rejected:
                del self._tokens[scope]
            header = self._answer(chosen, scope)
        return None if header == rejected else header

    def _answer(self, challenge: Challenge, scope: str) -> str | None:
        if challenge.scheme == "basic":
            return self._basic()
        token = self._tokens.get(scope)
        if token is None or token.until < time.monotonic():
            token = self._tokens[scope] = self._fetch_token(challenge, scope)
        return token.header

    def _basic(self) -> str | None:
        if self._credentials is None or not self._credentials.password:
            return None
        pair = f"{self._credentials.username}:{self._credentials.password}".encode()
        return "Basic " + base64.b64encode(pair).decode("ascii")

    def _fetch_token(self, challenge: Challenge, scope: str) -> _Token:
        realm = urlsplit(self._checked_realm(challenge.parameters.get("realm", "")))
        service = challenge.parameters.get("service", "")
        status, body = 0, b""
        for request in self._requests(realm, service, scope):
            status, body = self._fetch(request)
            if status not in _NOT_THIS_WAY:
                break
        if status != 200:
            raise RegistryError(
                f"{self._host} gives no token for {scope} {self.identity}: {realm.hostname} answered {status}"
            )
        return self._parse_token(body, scope)

    def _requests(self, realm: SplitResult, service: str, scope: str) -> Iterator[TokenRequest]:
        """What may be asked, one after the other until the endpoint knows the way.

        A password goes by GET, which every endpoint knows; an identity token can only go by POST (OAuth2, RFC 6749, 6).
        """
        given = self._credentials
        common = [*([("service", service)] if service else []), ("client_id", _CLIENT), ("scope", scope)]
        if given is not None and given.identity_token:
            grant = [("grant_type", "refresh_token"), ("refresh_token", given.identity_token)]
            yield TokenRequest(urlunsplit(realm), form=urlencode([*grant, *common]).encode())
        if given is None or self._basic():
            query = [*parse_qsl(realm.query, keep_blank_values=True), *([("service", service)] if service else [])]
            query += [("scope", part) for part in scope.split(" ")]
            yield TokenRequest(urlunsplit(realm._replace(query=urlencode(query))), self._basic())
        if given is not None and given.password:
            grant = [("grant_type", "password"), ("username", given.username), ("password", given.password)]
            yield TokenRequest(urlunsplit(realm), form=urlencode([*grant, *common]).encode())

    def _checked_realm(self, realm: str) -> str:
        try:
            parts = urlsplit(realm)
        except ValueError:
            parts = urlsplit("")
        local = parts.scheme == "http" and (
            (is_loopback(parts.netloc) and is_loopback(self._host)) or (self._plain and parts.netloc == self._host)
        )
        if not parts.netloc or "@" in parts.netloc or not (parts.scheme == "https" or local):
            raise RegistryError(
                f"{self._host} names a token endpoint that is not https, so no credential was sent there"
            )
        return realm

    def _parse_token(self, body: bytes, scope: str) -> _Token:
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise RegistryError(f"the token endpoint of {self._host} gave no usable token for {scope}")
        life = answer.get("expires_in")
        seconds = max(float(life), _LEAST_LIFE) if isinstance(life, int | float) else _LEAST_LIFE
        return _Token(f"Bearer {token}", time.monotonic() + seconds - _EARLY)
