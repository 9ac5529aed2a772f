"""API tokens: how far each scope reaches, and how a token is made and recognised. Only its hash is ever kept."""

from __future__ import annotations

import hashlib
import secrets
from enum import StrEnum

TOKEN_PREFIX = "alb_"  # noqa: S105 - the public beginning of every token, so that scanners for leaked ones find them
_TOKEN_BYTES = 32


class Scope(StrEnum):
    """What a token may do; each scope holds the ones before it."""

    READ = "read"
    """See everything, private repos too."""
    WRITE = "write"
    """Trigger, cancel and rerun builds."""
    ADMIN = "admin"
    """Add repos, and see what was delivered."""

    def covers(self, needed: Scope) -> bool:
        """True when this scope reaches as far as `needed`."""
        order = list(Scope)
        return order.index(self) >= order.index(needed)


def new_token() -> str:
    """A fresh token of 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)


def token_hash(token: str) -> str:
    """The SHA-256 of a token, as kept in the database; a token is random enough to need no salt."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
