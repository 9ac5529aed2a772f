"""The cookie of somebody who logged in with an API token on the dashboard.

It holds the token's row id, an end and a fingerprint, under an HMAC; never the token. The row is read again on every
request, so a revoked or expired token ends its sessions at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from albatros.errors import ConfigError, ForbiddenError

COOKIE = "albatros_session"
LIFETIME_SECONDS = 12 * 3600
KEY_FILE = "session.key"
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Session:
    """What a good cookie says: which token logged in."""

    token_id: int
    fingerprint: str

    def belongs_to(self, token_hash: str) -> bool:
        """False when the row of that id is another token by now."""
        return hmac.compare_digest(self.fingerprint, _fingerprint(token_hash))


class SessionSigner:
    """Makes and checks cookies and their form tokens under one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, token_id: int, token_hash: str) -> str:
        """A cookie value for LIFETIME_SECONDS from now."""
        body = f"{token_id}.{int(time.time()) + LIFETIME_SECONDS}.{_fingerprint(token_hash)}"
        return f"{body}.{self._mac('session', body)}"

    def read(self, cookie: str) -> Session | None:
        """The session, or None for a cookie that is not ours, was changed, or is over."""
        body, _, mac = cookie.rpartition(".")
        if not hmac.compare_digest(mac.encode(), self._mac("session", body).encode()):
            return None
        token_id, until, fingerprint = body.split(".")
        return Session(int(token_id), fingerprint) if int(until) > time.time() else None

    def form_token(self, cookie: str) -> str:
        """What every form that changes something carries: another site cannot know it."""
        return self._mac("form", cookie)

    def check_form_token(self, cookie: str, given: str) -> None:
        """Raise ForbiddenError unless the form came from a page of this session."""
        if not hmac.compare_digest(given.encode(), self.form_token(cookie).encode()):
            raise ForbiddenError("the form is not from this session; load the page again and repeat the step")

    def _mac(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def _fingerprint(token_hash: str) -> str:
    return hashlib.sha256(f"session:{token_hash}".encode()).hexdigest()[:16]


@lru_cache(maxsize=8)
def signer(data: Path) -> SessionSigner:
    """The signer of a server with this data directory; makes its key on first use. Raises ConfigError."""
    path = data / KEY_FILE
    try:
        key = _read_or_create(path)
    except OSError as error:
        raise ConfigError(
            f"the session key {path} cannot be made or read: {error.strerror}; check its directory"
        ) from error
    if len(key) != _KEY_BYTES:
        raise ConfigError(f"the session key {path} is damaged; delete it, and everybody logs in again")
    return SessionSigner(key)


def _read_or_create(path: Path) -> bytes:
    """Two servers that start at once on one directory end with the same key: linking refuses what is there already."""
    if not path.exists():
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(fresh)
        finally:
            fresh.unlink()
    return path.read_bytes()
