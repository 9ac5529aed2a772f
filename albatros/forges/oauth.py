"""Logging in with a forge: OAuth 2.0's authorization code with PKCE (RFC 6749, RFC 7636), and OpenID Connect where
the forge speaks it.

The access token is used once, to learn who came, and then forgotten. Addresses come from the settings alone. The
signature of an ID token is not looked at: it comes from the token endpoint itself, over the connection that would bring
the keys as well (OpenID Connect Core 1.0, 3.1.3.7); its issuer, audience, end and nonce are.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlencode, urlsplit

from albatros.domain.refs import one_line
from albatros.errors import ForgeError, ForgeUnavailableError, UnauthorizedError
from albatros.forges.base import Identity, LoginAttempt
from albatros.forges.rest import RestClient
from albatros.settings import ForgeSettings

MAX_TEXT = 255
CLOCK_SECONDS = 60
"""How far a forge's clock may be off ours."""
_LOGIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", re.ASCII)
_GITHUB = "github.com"


@dataclass(frozen=True, slots=True)
class _Flow:
    """Where a kind of forge has what a login needs, and what it calls people."""

    authorize: str
    token: str
    user: str
    scope: str
    subject: str
    login: str
    openid: bool = True


# The narrowest scopes: Gitea's tokens reach everything unless a scope of its API is among theirs.
_GITEA = _Flow(
    "/login/oauth/authorize",
    "/login/oauth/access_token",
    "/login/oauth/userinfo",
    "openid profile read:user",
    "sub",
    "preferred_username",
)
_FLOWS = {
    "gitea": _GITEA,
    "forgejo": _GITEA,
    "gitlab": _Flow("/oauth/authorize", "/oauth/token", "/oauth/userinfo", "openid profile", "sub", "nickname"),
    "github": _Flow("/login/oauth/authorize", "/login/oauth/access_token", "/user", "", "id", "login", openid=False),
}


class OAuthLogin:
    """The OAuth2 application that an operator registered with one forge."""

    def __init__(self, settings: ForgeSettings) -> None:
        self.name = settings.name
        self._flow = _FLOWS[settings.kind.value]
        self._url = settings.url.rstrip("/")
        self._user = _api_of(self._url, settings.kind.value) + self._flow.user
        self._client_id = settings.oauth_client_id
        self._secret = settings.oauth_client_secret.get_secret_value()
        self._http = RestClient(self.name, "", {"Accept": "application/json"})

    def close(self) -> None:
        """Close the connections to the forge."""
        self._http.close()

    @property
    def issuer(self) -> str:
        return self._url

    def address(self, attempt: LoginAttempt) -> str:
        digest = hashlib.sha256(attempt.verifier.encode("ascii")).digest()
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": attempt.redirect_uri,
            "state": attempt.state,
            "code_challenge": base64.urlsafe_b64encode(digest).decode("ascii").rstrip("="),
            "code_challenge_method": "S256",
        }
        if self._flow.scope:
            query["scope"] = self._flow.scope
        if self._flow.openid:
            query["nonce"] = attempt.nonce
        return f"{self._url}{self._flow.authorize}?{urlencode(query)}"

    def identify(self, attempt: LoginAttempt, code: str) -> Identity:
        granted = self._exchange(attempt, code)
        token = _text(granted, "access_token")
        if not token or _text(granted, "token_type").lower() != "bearer":
            raise ForgeError(f"{self.name} answered a login without a bearer token; is forges.url the forge's address?")
        claimed = self._check_id_token(_text(granted, "id_token"), attempt.nonce) if self._flow.openid else None
        status, answer = self._http.exchange("GET", self._user, {"Authorization": f"Bearer {token}"})
        if status != HTTPStatus.OK:
            raise self._trouble("who that is", status)
        person = _object(answer)
        found, login = person.get(self._flow.subject), _text(person, self._flow.login)
        subject = str(found) if isinstance(found, int | str) else ""
        if claimed is not None and subject != claimed:
            raise UnauthorizedError(f"{self.name} answered for two different people; begin again")
        if not 0 < len(subject) <= MAX_TEXT or not _LOGIN.fullmatch(login):
            raise ForgeError(f"{self.name} did not say who that is in a way that can be read")
        return Identity(subject, login)

    def _exchange(self, attempt: LoginAttempt, code: str) -> Mapping[str, object]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": attempt.redirect_uri,
            "client_id": self._client_id,
            "client_secret": self._secret,
            "code_verifier": attempt.verifier,
        }
        status, answer = self._http.exchange("POST", self._url + self._flow.token, {}, form)
        granted = _object(answer)
        # GitHub answers 200 to what it refuses; Gitea has one word for a code that was used and for a wrong secret.
        refused = ": ".join(filter(None, (_text(granted, "error"), _text(granted, "error_description"))))
        if refused and status < HTTPStatus.INTERNAL_SERVER_ERROR:
            raise UnauthorizedError(
                f"{self.name} does not take this login ({one_line(refused, 200)}); begin again. If that does not help, "
                "oauth_client_id, oauth_client_secret or the application's redirect URI is wrong; the last has to be "
                f"{attempt.redirect_uri}"
            )
        if status != HTTPStatus.OK:
            raise self._trouble("for a token", status)
        return granted

    def _check_id_token(self, token: str, nonce: str) -> str:
        """The subject of an ID token that is meant for us, from this forge, for this login."""
        claims = _claims(token)
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if _text(claims, "iss").rstrip("/") != self.issuer:
            said = one_line(_text(claims, "iss"), 200)
            raise UnauthorizedError(f"the login is from {said!r} and not from {self.issuer}, which forges.url names")
        if self._client_id not in audiences:
            raise UnauthorizedError(f"{self.name} answered with a login for somebody else's application")
        end = claims.get("exp")
        if not isinstance(end, int | float) or end + CLOCK_SECONDS < time.time():
            raise UnauthorizedError(f"{self.name} answered with a login that is over; compare the clocks")
        if not hmac.compare_digest(_text(claims, "nonce").encode("utf-8", "replace"), nonce.encode()):
            raise UnauthorizedError(f"{self.name} answered with another login than was begun; begin again")
        return _text(claims, "sub")

    def _trouble(self, what: str, status: int) -> ForgeError:
        text = f"{self.name} was asked {what} and answered {status}"
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
            return ForgeUnavailableError(f"{text}; try again in a minute")
        return ForgeError(f"{text}; is forges.url the forge's address?")


def _api_of(url: str, kind: str) -> str:
    """GitHub's API is a host of its own, or a path of an Enterprise Server; the others answer where they live."""
    if kind != "github":
        return url
    return "https://api.github.com" if urlsplit(url).hostname == _GITHUB else f"{url}/api/v3"


def _claims(token: str) -> Mapping[str, object]:
    """What a JSON Web Token says (RFC 7519); nothing when it is none."""
    parts = token.split(".")
    if len(parts) != 3 or not parts[1].isascii():
        return {}
    try:
        return _object(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return {}


def _object(data: bytes) -> Mapping[str, object]:
    try:
        value = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(item: Mapping[str, object], key: str) -> str:
    value = item.get(key)
    return value if isinstance(value, str) else ""
