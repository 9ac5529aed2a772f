"""Who calls, how far each scope reaches, and how an API token is made and recognised. Only its hash is ever kept."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from enum import StrEnum

from albatros.domain.refs import ANY_REPO, RepoFilter

TOKEN_PREFIX = "alb_"  # noqa: S105 - the public beginning of every token, so that scanners for leaked ones find them
_TOKEN_BYTES = 32


class Scope(StrEnum):
    """What a caller may do; each scope holds the ones before it."""

    READ = "read"
    """See builds, logs, artifacts and images."""
    WRITE = "write"
    """Trigger, cancel, rerun and approve builds."""
    ADMIN = "admin"
    """Change settings and secrets."""

    def covers(self, needed: Scope) -> bool:
        """True when this scope reaches as far as `needed`."""
        order = list(Scope)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who logged in with a forge, under the name that they have there."""

    id: int
    forge: str
    login: str
    subject: str
    """The forge's own id of them: names change hands."""

    def __str__(self) -> str:
        return f"{self.forge}/{self.login}"


@dataclass(frozen=True, slots=True)
class Who:
    """Who calls, and the most that they may do anywhere; what they may do in one Repo is asked of its forge."""

    name: str = ""
    scope: Scope | None = None
    """None: nobody in particular."""
    person: Person | None = None
    """None for a token that was made on the server's machine: it holds for every Repo that it is bound to."""
    operator: bool = False
    """A person whom the configuration makes admin of everything."""
    bound: RepoFilter = ANY_REPO
    """The Repos that a token is for."""
    token: bool = False
    """They called with an API token, rather than logged in."""

    @property
    def everywhere(self) -> bool:
        """True when no forge is asked and no Repo is left out: what they may do, they may do in all."""
        return self.scope is not None and not self.of_forge and self.bound == ANY_REPO

    @property
    def of_forge(self) -> bool:
        """True for somebody of whom a forge is asked what they may do."""
        return self.person is not None and not self.operator

    def holds(self, needed: Scope) -> bool:
        """True when their scope reaches as far as `needed`, in whatever Repo."""
        return self.scope is not None and self.scope.covers(needed)


NOBODY = Who()


def new_token() -> str:
    """A fresh token of 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)


def token_hash(token: str) -> str:
    """The SHA-256 of a token, as kept in the database; a token is random enough to need no salt."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
