"""What commands print: tables and JSON on stdout. Text that others wrote cannot move the cursor of a terminal."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence

# Control characters but newline, tab and return, and escape sequences but colours (ECMA-48, SGR).
_UNSAFE = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]|\r(?!\n)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
MAX_CELL = 72


def print_json(value: object) -> None:
    """One JSON value."""
    print(json.dumps(value, indent=2))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A row a line, in columns; nothing but the headers when there are no rows."""
    lines = [list(headers), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """A name and a value a line; empty values are left out."""
    shown = [(name, _CONTROL.sub(" ", str(value))) for name, value in fields if value not in {None, ""}]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{name.ljust(width)}  {value}")


def write_log(text: str) -> None:
    """Log text as it is; to a terminal without what could do more than colour it."""
    sys.stdout.write(_UNSAFE.sub("", text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def note(text: str) -> None:
    """A line for people, on stderr."""
    print(_CONTROL.sub(" ", text), file=sys.stderr)


def size(count: int) -> str:
    """Bytes as people say them."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _cell(value: object) -> str:
    text = _CONTROL.sub(" ", "" if value is None else str(value))
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"
