"""When a push is built: what its commit's message asks for, and the `[on]` of its `.albatros.toml`.

All of it narrows what is built. Whoever asks by hand, with the API or a schedule, is not asked for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from albatros.domain.refs import BRANCH_PREFIX, TAG_PREFIX
from albatros.domain.states import Trigger

SKIP_WORDS = "[skip ci]"
MAX_MESSAGE = 64 << 10
MAX_PATHS = 1000
MAX_PATH_BYTES = 64 << 10
"""Changed paths beyond these are not kept; the push is built then."""
_SKIP = re.compile(r"\[(skip ci|ci skip)\]", re.IGNORECASE)
_PUSHED = frozenset({Trigger.PUSH, Trigger.TAG})


def asks_to_skip(message: str) -> bool:
    """Whether a commit's message says `[skip ci]` or `[ci skip]`, anywhere in its first 64 KiB."""
    return bool(_SKIP.search(message[:MAX_MESSAGE]))


def bounded_paths(paths: Iterable[str]) -> tuple[str, ...] | None:
    """Changed paths, each once and in order; None when there are none, or more than are kept."""
    found = tuple(sorted(set(paths)))
    size = sum(len(path.encode("utf-8", "replace")) for path in found)
    return found if 0 < len(found) <= MAX_PATHS and size <= MAX_PATH_BYTES else None


@dataclass(frozen=True, slots=True)
class OnConfig:
    """`[on]`: globs of what is built, of which the last that matches decides; one that begins with `!` takes away."""

    branches: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    supersede: bool = False
    """An open Build of a branch ends when one of a newer commit is made."""
    merge: bool | None = None
    """Build what pull requests into this branch would give, too; None: as the forge's settings have it."""

    def why_not(self, trigger: Trigger, ref: str, changed: Sequence[str] | None) -> str:
        """Why a push is not built, empty when it is; `changed` are the paths that it changes, None: not known."""
        if trigger not in _PUSHED:
            return ""
        for key, prefix, globs in (("branches", BRANCH_PREFIX, self.branches), ("tags", TAG_PREFIX, self.tags)):
            if globs is not None and ref.startswith(prefix) and not selects(globs, ref.removeprefix(prefix)):
                return f"on.{key} of .albatros.toml leaves out {ref.removeprefix(prefix)}"
        if self.paths is not None and changed and not any(selects(self.paths, path) for path in changed):
            return "on.paths of .albatros.toml has none of the paths that this push changes"
        return ""


def selects(globs: Sequence[str], text: str) -> bool:
    """Whether the last glob that matches lets a text through; `*` matches `/` too."""
    last = next((glob for glob in reversed(globs) if fnmatchcase(text, glob.removeprefix("!"))), "!")
    return not last.startswith("!")
