"""The secret of GitLab's webhooks, as it is configured and as each project's webhook gets one of its own.

A signing token (`whsec_…`) signs as Standard Webhooks has it; the older secret token is only compared, and counts only
where no signing token is configured.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Iterator, Mapping

from albatros.errors import BadInputError, ConfigError, UnauthorizedError
from albatros.forges import payload

TOLERANCE_SECONDS = 300
MAX_SIGNATURES = 10
SIGNING_PREFIX = "whsec_"


class GitlabSecret:
    """The configured secret of one GitLab. Raises ConfigError for a signing token that is none."""

    def __init__(self, forge: str, secret: str) -> None:
        self._secret = secret
        self.signs = secret.startswith(SIGNING_PREFIX)
        """It is a signing token."""
        if self.signs and not _key_of(secret):
            raise ConfigError(f"forges.{forge}.webhook_secret begins with {SIGNING_PREFIX} and goes on with no base64")

    def of_repo(self, full_name: str) -> str:
        """What one project's webhook has in its place, of the same kind; its maintainers can tell it for no other."""
        secret = payload.secret_of_repo(self._secret, full_name)
        return SIGNING_PREFIX + base64.b64encode(bytes.fromhex(secret)).decode() if self.signs else secret

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        """Take a webhook with the configured secret, or with that of the project it names. Raises UnauthorizedError."""
        if self.signs:
            said = _signatures(headers)
            if not any(_any_same(said, _signature(_key_of(one), headers, body)) for one in self._candidates(body)):
                raise UnauthorizedError(
                    "webhook-signature does not fit the body: check that both sides have the same token"
                )
        elif headers.get("webhook-signature", ""):
            raise UnauthorizedError(
                "the webhook is signed, and forges.webhook_secret is not its signing token: set it to whsec_…"
            )
        elif not any(_any_same([headers.get("x-gitlab-token", "")], one) for one in self._candidates(body)):
            raise UnauthorizedError(
                "X-Gitlab-Token is missing or not forges.webhook_secret: set the same on both sides"
            )

    def _candidates(self, body: bytes) -> Iterator[str]:
        yield self._secret
        yield self.of_repo(_named_project(body))


def _key_of(token: str) -> bytes:
    """The key that a signing token holds; empty where it holds none."""
    try:
        return base64.b64decode(token.removeprefix(SIGNING_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _signatures(headers: Mapping[str, str]) -> list[str]:
    """The signatures side by side (Standard Webhooks) of a message that is not old. Raises UnauthorizedError."""
    stamp = headers.get("webhook-timestamp", "")
    said = headers.get("webhook-signature", "").split()[:MAX_SIGNATURES]
    if not headers.get("webhook-id", "") or not said:
        raise UnauthorizedError(
            "the webhook is not signed: set GitLab's signing token, a secret token does not do here"
        )
    sent = int(stamp) if stamp.isascii() and stamp.isdigit() and len(stamp) < 16 else 0
    if abs(time.time() - sent) > TOLERANCE_SECONDS:
        raise UnauthorizedError(
            f"webhook-timestamp is over {TOLERANCE_SECONDS} s from this server's clock: set the clocks, send it again"
        )
    return said


def _signature(key: bytes, headers: Mapping[str, str], body: bytes) -> str:
    parts = (headers["webhook-id"].encode("utf-8", "replace"), headers["webhook-timestamp"].encode(), body)
    return f"v1,{base64.b64encode(hmac.new(key, b'.'.join(parts), hashlib.sha256).digest()).decode()}"


def _any_same(said: list[str], wanted: str) -> bool:
    """Whether one of the texts is the one that is wanted; all are compared, whichever fits."""
    right = wanted.encode("utf-8", "replace")
    return any([hmac.compare_digest(one.encode("utf-8", "replace"), right) for one in said])  # noqa: C419 - as said


def _named_project(body: bytes) -> str:
    """The project that an unverified body says it is of, to find its key."""
    try:
        found = payload.child(payload.read_object(body), "project").get("path_with_namespace")
    except BadInputError:
        found = None
    return found if isinstance(found, str) else ""
