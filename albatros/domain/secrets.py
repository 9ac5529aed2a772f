"""Secrets: what they may be called, whose they are, and which Builds are given them.

A secret is named for the host that it is a token of. Of several with one name the nearest counts: the repo's own, its
owner's, the server's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from albatros.domain.refs import BRANCH_PREFIX, MAX_REF, TAG_PREFIX, check_full_name, matches_any, one_line
from albatros.errors import BadInputError

SERVER = "server"
MAX_VALUE = 4096
MIN_VALUE = 6
"""Shorter ones would mask ordinary words in logs."""
MAX_REFS = 20

_FORGE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?", re.ASCII)
# What Nix's settings file and git's credential protocol take as one word.
_TOKEN = re.compile(r"[!-~]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """Whose a secret is: one repo's, all repos' of one owner, or the whole server's."""

    forge: str = ""
    owner: str = ""
    repo: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.forge, self.owner, self.repo) if part) or SERVER

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read `FORGE/OWNER/REPO`, `FORGE/OWNER` or `server`. Raises BadInputError."""
        if text == SERVER:
            return cls()
        forge, _, rest = text.partition("/")
        if not _FORGE.fullmatch(forge) or not rest:
            raise BadInputError(
                f"{one_line(text, 80)!r} is no place of a secret: give FORGE/OWNER/REPO, FORGE/OWNER or {SERVER}"
            )
        owner, repo = check_full_name(rest) if "/" in rest else (check_full_name(f"{rest}/x")[0], "")
        return cls(forge, owner, repo)

    def around(self) -> tuple[Place, ...]:
        """The places whose secrets a repo may have, the nearest last."""
        return Place(), Place(self.forge, self.owner), self


def check_name(text: str) -> str:
    """A secret's name as it is: a host, with its port if it has one. Raises BadInputError."""
    if not _HOST.fullmatch(text):
        raise BadInputError(
            f"{one_line(text, 80)!r} is no name of a secret: give the host that it is for, such as github.com"
        )
    return text


def check_value(text: str) -> str:
    """A secret's value as it is; an error never holds it. Raises BadInputError."""
    if not MIN_VALUE <= len(text) <= MAX_VALUE:
        raise BadInputError(f"a secret has {MIN_VALUE} to {MAX_VALUE} characters; a shorter one could not be masked")
    if not _TOKEN.fullmatch(text) or "#" in text:
        raise BadInputError("an access token is one line of printable ASCII without spaces and '#'")
    return text


def check_refs(globs: Sequence[str]) -> tuple[str, ...]:
    """Globs of whole refs as they are, each once and in order. Raises BadInputError."""
    if len(globs) > MAX_REFS:
        raise BadInputError(f"a secret is bound to at most {MAX_REFS} globs of refs")
    for glob in globs:
        if not glob.startswith((BRANCH_PREFIX, TAG_PREFIX)) or len(glob) > MAX_REF or not glob.isprintable():
            raise BadInputError(
                f"{one_line(glob, 80)!r} is no glob of branches or tags, such as {BRANCH_PREFIX}main or {TAG_PREFIX}v*"
            )
    return tuple(sorted(set(globs)))


def may_have(refs: Sequence[str], ref: str, *, trusted: bool) -> bool:
    """Whether a Build of `ref` is given a secret that is bound to `refs`: never one that nobody trusted has pushed."""
    return trusted and (not refs or matches_any(ref, refs))
