"""Takes secrets out of a Job's log before anything of it is kept, however it was cut into pieces.

Looked for are the values and the lines of those that have several, both also in base64 (at all three alignments, in
both alphabets), and the values in JSON and in URLs. A line break may stand anywhere inside, with the indentation and
the builder's name that the next line begins with.
"""

import json
import re
from binascii import b2a_base64
from bisect import bisect_right
from urllib.parse import quote

MASK = b"***"
SHORTEST = 6
"""Shorter values, and lines of values, would mask ordinary words."""
SHOWN = 3
"""So many bytes that may begin a secret are shown at once; where more of it came, they wait for what follows."""
ANCHOR = SHOWN + 1
FEW = 32
"""Up to so many beginnings are looked for one after the other, which is done in C; more of them in one pass."""
_BREAK = re.compile(rb"[\r\n]{1,4}(?:[\w.+?=-]{1,200}> )?[ \t]{0,64}")


class Masker:
    """A stream without its secrets: pieces go in, and come out as far as they are known to begin none."""

    def __init__(self, secrets: list[str]) -> None:
        self._forms: dict[bytes, list[bytes]] = {}
        """By their first bytes."""
        for form in sorted({form for secret in secrets for form in _forms(secret)}):
            self._forms.setdefault(form[:ANCHOR], []).append(form)
        self._raw = b""
        self._sent = 0
        """How much of `_raw` has come out: it is kept for what it may be the beginning of."""

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; what can be told of the stream now."""
        if not self._forms:
            return data
        self._raw += data
        flat, places = _flatten(self._raw)
        found = self._anchors(flat)
        held = places.raw(self._held_from(flat, found))
        return self._tell(self._found(flat, places, found), held, keep_from=min(held, places.raw(len(flat) - SHOWN)))

    def flush(self) -> bytes:
        """The rest of the stream; what is fed then begins another one."""
        end = len(self._raw)
        return self._tell(self._found(*_flatten(self._raw)), end, keep_from=end)

    def whole(self, text: str) -> str:
        """A text of its own, masked."""
        data, told, at = text.encode("utf-8", "replace"), [], 0
        for start, stop in self._found(*_flatten(data)):
            told += [data[at:start], MASK]
            at = stop
        return b"".join([*told, data[at:]]).decode("utf-8", "replace")

    def _tell(self, found: list[tuple[int, int]], end: int, *, keep_from: int) -> bytes:
        """Give out the raw stream up to `end`, or to the end of a secret that reaches beyond it."""
        told = []
        for start, stop in found:
            if stop <= self._sent or start >= end:
                continue
            told += [self._raw[self._sent : start], MASK]
            self._sent, end = stop, max(end, stop)
        told.append(self._raw[self._sent : end])
        self._raw, self._sent = self._raw[keep_from:], max(self._sent, end) - keep_from
        return b"".join(told)

    def _anchors(self, flat: bytes) -> list[int]:
        """Where something begins as a secret does, in order."""
        if len(self._forms) > FEW:
            return [at for at in range(len(flat) - ANCHOR + 1) if flat[at : at + ANCHOR] in self._forms]
        found = []
        for anchor in self._forms:
            at = flat.find(anchor)
            while at >= 0:
                found.append(at)
                at = flat.find(anchor, at + 1)
        return sorted(found)

    def _found(self, flat: bytes, places: "_Places", anchors: list[int] | None = None) -> list[tuple[int, int]]:
        """Where secrets are in the raw stream, in order; what overlaps is one."""
        found = []
        for at in self._anchors(flat) if anchors is None else anchors:
            here = [form for form in self._forms[flat[at : at + ANCHOR]] if flat.startswith(form, at)]
            found += [(places.raw(at), places.raw(at + len(form) - 1) + 1) for form in here]
        merged: list[tuple[int, int]] = []
        for start, stop in sorted(found):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
            else:
                merged.append((start, stop))
        return merged

    def _held_from(self, flat: bytes, anchors: list[int]) -> int:
        """Where the first beginning of a secret stands that the stream may go on with; its end without one."""
        for at in anchors:
            left = len(flat) - at
            forms = self._forms[flat[at : at + ANCHOR]]
            if any(len(form) > left and form.startswith(flat[at:]) for form in forms):
                return at
        return len(flat)


class _Places:
    """Where the bytes of the flat stream stand in the raw one."""

    def __init__(self, parts: list[tuple[int, int]], flat_size: int, raw_size: int) -> None:
        """`parts`: where each part without breaks begins, in the flat and in the raw stream."""
        self._flat_starts = [flat for flat, _ in parts]
        self._raw_starts = [raw for _, raw in parts]
        self._flat_size, self._raw_size = flat_size, raw_size

    def raw(self, flat: int) -> int:
        """The place of a flat byte; the raw stream's end for the flat one's end."""
        if flat >= self._flat_size:
            return self._raw_size
        part = bisect_right(self._flat_starts, max(flat, 0)) - 1
        return self._raw_starts[part] + max(flat, 0) - self._flat_starts[part]


def _flatten(raw: bytes) -> tuple[bytes, _Places]:
    """The stream without its line breaks."""
    parts, starts, size, at = [], [], 0, 0
    for found in _BREAK.finditer(raw):
        starts.append((size, at))
        parts.append(raw[at : found.start()])
        size, at = size + found.start() - at, found.end()
    starts.append((size, at))
    parts.append(raw[at:])
    flat = b"".join(parts)
    return flat, _Places(starts, len(flat), len(raw))


def _forms(secret: str) -> set[bytes]:
    """How a secret may stand in a log, flattened."""
    forms = {secret, *(line.strip() for line in secret.splitlines()), json.dumps(secret)[1:-1]}
    forms |= {json.dumps(secret, ensure_ascii=False)[1:-1], quote(secret), quote(secret, "")}
    written = {form.encode("utf-8", "replace") for form in forms}
    for part in {secret, *secret.splitlines()}:
        written |= _in_base64(part.encode("utf-8", "replace"))
    return {flat for flat in (_flatten(form)[0] for form in written) if len(flat) >= SHORTEST}


def _in_base64(value: bytes) -> set[bytes]:
    """What base64 makes of a value wherever it stands in a longer one: its first and last digits may be others'."""
    found = set()
    for before, foreign in ((0, 0), (1, 2), (2, 3)):
        data = bytes(before) + value
        digits = b2a_base64(data, newline=False).rstrip(b"=")[foreign:]
        found.add(digits[:-1] if len(data) % 3 else digits)
    return found | {digits.translate(bytes.maketrans(b"+/", b"-_")) for digits in found}
