"""Text that repos and runners wrote, made fit to be kept, shown and sent: every database and page takes it."""

from __future__ import annotations

import re

_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
"""Colours and other commands to a terminal (ECMA-48, "Control sequences")."""
# PostgreSQL keeps no NUL, and no encoder takes half of a surrogate pair, which JSON can carry.
_UNFIT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def plain(value: object, limit: int) -> str:
    """`value` without terminal commands and control characters, at most `limit` characters; empty unless it is text."""
    if not isinstance(value, str):
        return ""
    # Cut first: what is looked through has to be bounded too.
    return _UNFIT.sub("\ufffd", _TERMINAL.sub("", value[: limit * 4]).replace("\r\n", "\n"))[:limit]
