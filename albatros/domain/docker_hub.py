"""Docker Hub's own rules: where its API is, and which names it takes."""

from __future__ import annotations

import re

from albatros.errors import UsageError

HOST = "docker.io"
API_HOST = "registry-1.docker.io"
_USER = re.compile(r"[a-z0-9]{2,30}")
_OFFICIAL = "library"


def full_name(prefix: str, name: str) -> str:
    """A name as Docker Hub has it, `USER/NAME`; official images are below `library`. Raises UsageError."""
    whole = f"{prefix}/{name}" if prefix else name
    user, slash, last = whole.rpartition("/")
    if not slash:
        return f"{_OFFICIAL}/{last}"
    if not _USER.fullmatch(user) or len(last) < 2:
        raise UsageError(
            f"Docker Hub would refuse the name {whole!r}; it takes USER/NAME, without further '/', "
            "the user of 2 to 30 lower-case letters and digits, the name of two characters or more"
        )
    return whole
