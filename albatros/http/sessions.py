"""The cookie of somebody who logged in on the dashboard, with a forge or with an API token.

It holds the id of a person's or a token's row, an end and a proof, under an HMAC; never the token. The row is read
again on every request, so a revoked token, or a logout in any browser, ends its sessions at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from albatros.errors import ConfigError, ForbiddenError
from albatros.settings import Settings

LIFETIME_SECONDS = 12 * 3600
KEY_FILE = "session.key"
_KEY_BYTES = 32


class SessionKind(StrEnum):
    """What somebody logged in with."""

    PERSON = "person"
    TOKEN = "token"  # noqa: S105 - the word, not one


@dataclass(frozen=True, slots=True)
class Session:
    """What a good cookie says: which row logged in, and what proves that it is still the same."""

    kind: SessionKind
    row_id: int
    proof: str


class SessionSigner:
    """Makes and checks cookies and their form tokens under one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, session: Session) -> str:
        """A cookie value for LIFETIME_SECONDS from now."""
        return self.seal("session", f"{session.kind}.{session.row_id}.{session.proof}", LIFETIME_SECONDS)

    def read(self, cookie: str) -> Session | None:
        """The session, or None for a cookie that is not ours, was changed, or is over."""
        text = self.unseal("session", cookie)
        if text is None:
            return None
        kind, row_id, proof = text.split(".")
        return Session(SessionKind(kind), int(row_id), proof)

    def seal(self, purpose: str, text: str, seconds: int) -> str:
        """`text` with an end and an HMAC, for one purpose alone; anybody can read it."""
        body = f"{text}.{int(time.time()) + seconds}"
        return f"{body}.{self.mac(purpose, body)}"

    def unseal(self, purpose: str, sealed: str) -> str | None:
        """What was sealed for this purpose; None when it is over, was changed, or is not ours."""
        body, _, mac = sealed.rpartition(".")
        if not hmac.compare_digest(mac.encode(), self.mac(purpose, body).encode()):
            return None
        text, _, until = body.rpartition(".")
        return text if int(until) > time.time() else None

    def form_token(self, cookie: str) -> str:
        """What every form that changes something carries: another site cannot know it."""
        return self.mac("form", cookie)

    def check_form_token(self, cookie: str, given: str) -> None:
        """Raise ForbiddenError unless the form came from a page of this session."""
        if not hmac.compare_digest(given.encode(), self.form_token(cookie).encode()):
            raise ForbiddenError("the form is not from this session; load the page again and repeat the step")

    def mac(self, purpose: str, text: str) -> str:
        """A text that only this key makes of `text` for this purpose."""
        return hmac.new(self._key, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def token_proof(token_hash: str) -> str:
    """What tells a token from another one that got its row id later."""
    return hashlib.sha256(f"session:{token_hash}".encode()).hexdigest()[:16]


def person_proof(sessions: int) -> str:
    """What tells a person's sessions from those that a logout ended."""
    return str(sessions)


def cookie_name(settings: Settings) -> str:
    """The session's cookie. `__Host-` keeps neighbouring hosts from setting it, and needs HTTPS (RFC 6265bis)."""
    return f"{cookie_prefix(settings)}albatros_session"


def cookie_prefix(settings: Settings) -> str:
    """What the names of cookies begin with here."""
    return "__Host-" if is_https(settings) else ""


def is_https(settings: Settings) -> bool:
    """True when people reach the server over HTTPS."""
    return settings.server.url.startswith("https://")


@lru_cache(maxsize=8)
def signer(keys: Path) -> SessionSigner:
    """The signer of a server with this directory of keys; makes its key on first use. Raises ConfigError."""
    path = keys / KEY_FILE
    try:
        key = secret_file(path, lambda: secrets.token_bytes(_KEY_BYTES))
    except OSError as error:
        raise ConfigError(
            f"the session key {path} cannot be made or read: {error.strerror}; check its directory"
        ) from error
    if len(key) != _KEY_BYTES:
        raise ConfigError(f"the session key {path} is damaged; delete it, and everybody logs in again")
    return SessionSigner(key)


def secret_file(path: Path, make: Callable[[], bytes]) -> bytes:
    """Read a file that only this user can read, made whole at the first start.

    Two servers that start at once on one directory end with the same one: linking refuses what is there already.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(make())
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(fresh)
        finally:
            fresh.unlink()
    return path.read_bytes()
