"""Secrets: what they may be called, whose they are, and which Builds are given them.

A secret is named for the host that it is an access token of, or, in capitals, as a variable of the repo's script. Of
several with one name the nearest counts: the repo's own, its owner's, the server's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from albatros.domain.refs import BRANCH_PREFIX, MAX_REF, TAG_PREFIX, matches_any, one_line, place_text, split_place
from albatros.errors import BadInputError

SERVER = "server"
MAX_TOKEN = 4096
MAX_VALUE = 64 << 10
MIN_VALUE = 6
"""Shorter ones would mask ordinary words in logs."""
MAX_REFS = 20

_FORGE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?", re.ASCII)
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}", re.ASCII)
# What a shell itself obeys, and what the script is told by others.
_TAKEN = re.compile(r"(ALBATROS|LD|BASH)_.*|PATH|HOME|ENV|IFS|PS[0-9]|REPO_URL|COMMIT|BRANCH|TAG|FLAVOR|_", re.ASCII)
# What Nix's settings file and git's credential protocol take as one word.
_TOKEN = re.compile(r"[!-~]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """Whose a secret is: one repo's, all repos' of one owner, or the whole server's.

    An owner is exactly that one: what is a group's is not its subgroups'.
    """

    forge: str = ""
    owner: str = ""
    repo: str = ""

    def __str__(self) -> str:
        return place_text(self.forge, self.owner, self.repo) or SERVER

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
        return cls(forge, *split_place(rest))

    def around(self) -> tuple[Place, ...]:
        """The places whose secrets a repo may have, the nearest last."""
        return Place(), Place(self.forge, self.owner), self


def is_variable(name: str) -> bool:
    """Whether a secret is for scripts, by its name: no host is written in capitals."""
    return _VARIABLE.fullmatch(name) is not None


def check_name(text: str) -> str:
    """A secret's name as it is: a host, with its port if it has one, or a variable. Raises BadInputError."""
    if not _HOST.fullmatch(text) and not is_variable(text):
        raise BadInputError(
            f"{one_line(text, 80)!r} is no name of a secret: give the host that it is for, such as github.com, "
            "or for scripts a variable in capitals, such as DEPLOY_KEY"
        )
    if is_variable(text) and _TAKEN.fullmatch(text):
        raise BadInputError(f"{text} means something already where scripts run; call the secret otherwise")
    return text


def check_value(name: str, text: str) -> str:
    """The value of a secret of this name, as it is; an error never holds it. Raises BadInputError."""
    return _check_variable(text) if is_variable(name) else _check_token(text)


def _check_variable(text: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadInputError("a secret is text in UTF-8; keep other bytes as base64") from None
    if not MIN_VALUE <= size <= MAX_VALUE or "\0" in text:
        raise BadInputError(
            f"a secret for scripts has {MIN_VALUE} to {MAX_VALUE} bytes without NUL; a shorter one could not be masked"
        )
    return text


def _check_token(text: str) -> str:
    if not MIN_VALUE <= len(text) <= MAX_TOKEN:
        raise BadInputError(f"a token has {MIN_VALUE} to {MAX_TOKEN} characters; a shorter one could not be masked")
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
