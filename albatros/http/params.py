"""What comes in paths and queries, checked once: ids, names, refs, cursors."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated

from fastapi import Path, Query

from albatros.domain.refs import BRANCH_PREFIX, RepoFilter, check_full_name, check_ref, one_line
from albatros.errors import BadInputError

MAX_ID = (1 << 63) - 1
MAX_LIMIT = 100
_FORGE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
_CURSOR = re.compile(r"([a-z]+):([1-9][0-9]{0,18})", re.ASCII)

BuildId = Annotated[int, Path(alias="id", ge=1, le=MAX_ID)]
JobId = Annotated[int, Path(alias="id", ge=1, le=MAX_ID)]
ArtifactId = Annotated[int, Path(alias="id", ge=1, le=MAX_ID)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="items in a page")]
Cursor = Annotated[str, Query(max_length=64, description="`next` of the page before this one")]
RepoQuery = Annotated[str, Query(max_length=450, description="[FORGE/]OWNER/NAME")]


def repo_filter(text: str) -> RepoFilter:
    """Read `FORGE/OWNER/NAME` or `OWNER/NAME`; empty text lets everything through. Raises BadInputError.

    An owner with a `/` in it is read after a forge only.
    """
    if not text:
        return RepoFilter()
    forge, _, rest = text.partition("/") if text.count("/") > 1 else ("", "", text)
    owner, name = check_full_name(rest, nested=True)
    return RepoFilter(check_forge(forge) if forge else "", owner, name)


def check_forge(text: str) -> str:
    """The name of a forge as it is. Raises BadInputError."""
    if not _FORGE.fullmatch(text):
        raise BadInputError(f"{one_line(text, 80)!r} is no name of a forge: lower-case letters, digits, '_' and '-'")
    return text


def branch_filter(text: str) -> str:
    """The whole ref of a branch (or of a whole ref); empty for empty text. Raises BadInputError."""
    if not text:
        return ""
    return check_ref(text if text.startswith("refs/") else BRANCH_PREFIX + text)


def encode_cursor(kind: str, last_id: int) -> str:
    """An opaque text that names the last item of a page of `kind`."""
    return base64.urlsafe_b64encode(f"{kind}:{last_id}".encode("ascii")).decode("ascii").rstrip("=")


def decode_cursor(kind: str, cursor: str) -> int | None:
    """The id that a cursor of `kind` names; None for no cursor. Raises BadInputError."""
    if not cursor:
        return None
    try:
        text = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), b"-_", validate=True).decode(
            "ascii"
        )
    except (binascii.Error, ValueError) as error:
        raise BadInputError("cursor is not one of this server's; begin again without it") from error
    match = _CURSOR.fullmatch(text)
    if match is None or match[1] != kind or int(match[2]) > MAX_ID:
        raise BadInputError(f"cursor is not of a page of {kind}; begin again without it")
    return int(match[2])
