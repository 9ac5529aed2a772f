"""Names that come from outside: refs, commits, owners and repo names, and text that people wrote.

The rules for refs are those of git-check-ref-format(1), with branches and tags only, so that a checked name is safe
as an argument, a path and a part of a URL once it is quoted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from albatros.errors import BadInputError

BRANCH_PREFIX = "refs/heads/"
TAG_PREFIX = "refs/tags/"
MAX_REF = 1024
MAX_NAME = 100
MAX_LEVELS = 20
"""Parts of a project's name on GitLab, whose groups may be inside of groups; GitLab itself allows as many."""
MAX_OWNER = 255
RESERVED = frozenset({"builds", "hook"})
"""What follows a repo's name in addresses of this server, where a project in a subgroup could not be told from it."""

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FLAVOR = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)
_PULL = re.compile(r"refs/(?:pull|merge-requests)/([1-9][0-9]{0,9})/(?:head|merge)", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._-]*")
# Control characters, space, and what git itself gives a meaning to.
_REF_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
# With those that turn the direction of what follows: a title or a branch could pass for another (Unicode UAX #9).
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")


@dataclass(frozen=True, slots=True)
class RepoFilter:
    """Which Repos are meant; what is empty does not narrow it."""

    forge: str = ""
    owner: str = ""
    name: str = ""

    def covers(self, forge: str, owner: str, name: str) -> bool:
        """True for a Repo that it lets through."""
        wanted = ((self.forge, forge), (self.owner, owner), (self.name, name))
        return all(not mine or mine == theirs for mine, theirs in wanted)

    def __str__(self) -> str:
        """`FORGE/OWNER/NAME`, cut where it does not narrow."""
        return place_text(self.forge, self.owner, self.name)


ANY_REPO = RepoFilter()


def read_bound(text: str) -> RepoFilter:
    """Read `FORGE[/OWNER[/NAME]]`; empty text narrows nothing. Raises BadInputError."""
    if not text:
        return ANY_REPO
    forge, slash, rest = text.partition("/")
    try:
        owner, name = split_place(rest) if slash else ("", "")
    except BadInputError:
        forge, owner, name = "", "", ""
    if not _is_name(forge):
        raise BadInputError(f"{one_line(text, 80)!r} names no repos: give FORGE, FORGE/OWNER or FORGE/OWNER/NAME")
    return RepoFilter(forge, owner, name)


def split_place(text: str) -> tuple[str, str]:
    """Split `OWNER`, `OWNER/NAME` or `GROUP/SUB/`, which is an owner without a name. Raises BadInputError."""
    if "/" not in text:
        return check_full_name(f"{text}/x")[0], ""
    if text.endswith("/") and "/" in text.removesuffix("/"):
        return check_full_name(f"{text}x", nested=True)[0], ""
    return check_full_name(text, nested=True)


def place_text(forge: str, owner: str, name: str) -> str:
    """What `split_place` reads, after the forge; the parts that are empty are left out."""
    text = "/".join(part for part in (forge, owner, name) if part)
    return f"{text}/" if "/" in owner and not name else text


def check_flavor(text: str) -> str:
    """A flavor as it is; empty is the plain one. Raises BadInputError."""
    if text and not _FLAVOR.fullmatch(text):
        raise BadInputError(
            f"{one_line(text, 40)!r} is no flavor: at most 32 lower-case letters, digits, '-' and '_', such as nightly"
        )
    return text


def is_commit(text: str) -> bool:
    """True for a full object id (SHA-1 or SHA-256) that is not the zero id."""
    return bool(_COMMIT.fullmatch(text)) and text.strip("0") != ""


def is_ref(text: str) -> bool:
    """True for a full branch or tag ref that git would accept."""
    if len(text.encode("utf-8", "replace")) > MAX_REF or not text.startswith((BRANCH_PREFIX, TAG_PREFIX)):
        return False
    if _REF_FORBIDDEN.search(text) or _CONTROL.search(text) or text.endswith((".", "/")):
        return False
    short = text.removeprefix(BRANCH_PREFIX).removeprefix(TAG_PREFIX)
    parts = text.split("/")
    return not short.startswith("-") and not any(p.startswith(".") or p.endswith(".lock") for p in parts)


def pull_number(ref: str) -> int | None:
    """The number of the pull request whose head a ref is (`refs/pull/7/head`); None for any other ref."""
    match = _PULL.fullmatch(ref)
    return int(match[1]) if match is not None else None


def merge_of(ref: str) -> str:
    """What the merge results of a pull request are named, whose head is `ref` (`refs/pull/7/merge`)."""
    return f"{ref.removesuffix('/head')}/merge"


def head_of(ref: str) -> str:
    """The reverse of `merge_of`."""
    return f"{ref.removesuffix('/merge')}/head"


def check_ref(text: str) -> str:
    """The ref as it is. Raises BadInputError."""
    if not is_ref(text):
        raise BadInputError(f"{one_line(text, 80)!r} is no ref of a branch or tag that git accepts")
    return text


def check_commit(text: str) -> str:
    """The full object id as it is. Raises BadInputError."""
    if not is_commit(text):
        raise BadInputError(f"{one_line(text, 80)!r} is no full commit id (40 hexadecimal digits)")
    return text


def check_full_name(text: str, *, nested: bool = False) -> tuple[str, str]:
    """Split `owner/name`; `nested` lets the owner be a group inside of others (`group/sub`). Raises BadInputError."""
    owner, _, name = text.rpartition("/")
    parts = [*owner.split("/"), name]
    if not all(_is_name(part) for part in parts) or (len(parts) > 2 and not nested):
        raise BadInputError(
            f"{one_line(text, 80)!r} is no repo's name: OWNER/NAME of letters, digits, '.', '_' and '-'"
        )
    if len(parts) > MAX_LEVELS or len(owner) > MAX_OWNER:
        most = f"at most {MAX_LEVELS} parts, with {MAX_OWNER} characters before the last"
        raise BadInputError(f"{one_line(text, 80)!r} is too long: {most}")
    if len(parts) > 2 and name in RESERVED:
        raise BadInputError(f"a project in a subgroup cannot be called {name!r} here: it is a word in addresses")
    return owner, name


def _is_name(text: str) -> bool:
    return len(text) <= MAX_NAME and bool(_NAME.fullmatch(text)) and text not in {".", ".."}


def matches_any(full_name: str, globs: Iterable[str]) -> bool:
    """True when one of the globs (`alba/*`) covers `owner/name`."""
    return any(fnmatchcase(full_name, glob) for glob in globs)


def one_line(text: str, limit: int) -> str:
    """The first line of what somebody wrote, without control characters, at most `limit` characters."""
    lines = text[: limit * 4].strip().splitlines()
    line = _CONTROL.sub(" ", lines[0]).strip() if lines else ""
    return line if len(line) <= limit else line[: limit - 1] + "…"
