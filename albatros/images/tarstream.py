"""A tar archive as a stream of its members, in one pass and with bounded memory (POSIX ustar and pax, GNU long names).

The standard library's tarfile reads an extended header of any claimed size into memory and keeps every member; an
archive from a stranger must be able to do neither.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from albatros.errors import ImageError
from albatros.images.streams import BLOCK, Reader

RECORD = 512
_MAX_EXTENDED = 256 << 10
_MAX_MEMBERS = 20_000
_MAX_LAYER_MEMBERS = 2_000_000
_MAX_PATH = 4096


class MemberKind(Enum):
    """What a member is, as far as an image archive cares."""

    FILE = "file"
    SYMBOLIC_LINK = "symbolic link"
    HARD_LINK = "hard link"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Member:
    """One member; `name` is relative without `.` or `..`, `target` the like for links, `size` in bytes."""

    name: str
    kind: MemberKind
    size: int
    target: str = ""


_KINDS = {
    b"0": MemberKind.FILE,
    b"\0": MemberKind.FILE,
    b"7": MemberKind.FILE,
    b"1": MemberKind.HARD_LINK,
    b"2": MemberKind.SYMBOLIC_LINK,
}


def looks_like_tar(record: bytes) -> bool:
    """True for a first record of a tar: a header whose checksum is right, or the zeros that end an empty one."""
    return len(record) == RECORD and (not record.strip(b"\0") or _checksum_is_right(record))


def safe_name(name: str) -> str:
    """A member's name in normal form. Raises ImageError for one that is absolute or leaves the archive."""
    if len(name) > _MAX_PATH or "\0" in name:
        raise ImageError(f"the archive has a name that no file can have: {name[:80]!r}…")
    if name.startswith("/") or ".." in name.split("/"):
        raise ImageError(f"the archive has a member {name[:200]!r} outside itself; that is refused")
    normal = posixpath.normpath(name) if name else ""
    return "" if normal == "." else normal


class TarStream:
    """Walks the members of a tar; `read` gives the current member's content.

    In a `layer` there are more members, and links may point anywhere: their targets are not read.
    """

    def __init__(self, raw: Reader, *, layer: bool = False) -> None:
        self._raw = raw
        self._layer = layer
        self._most = _MAX_LAYER_MEMBERS if layer else _MAX_MEMBERS
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        """The members in order; what is not read of one is skipped. Raises ImageError when the archive is damaged."""
        extended: dict[str, str] = {}
        count = 0
        while (record := self._next_record()) is not None:
            count += 1
            if count > self._most:
                raise ImageError(
                    f"the archive has more than {self._most} members; an image archive has a few per layer"
                )
            size = _number(record[124:136])
            kind = record[156:157]
            if kind in (b"x", b"g", b"L", b"K"):
                found = self._read_extended(kind, size)
                extended |= found if kind != b"g" else {}
                continue
            yield self._member(record, kind, size, extended)
            extended = {}

    def read(self, size: int, /) -> bytes:
        """The next bytes of the current member, none at its end."""
        if not self._left:
            return b""
        data = self._raw.read(min(size, self._left))
        if not data:
            raise ImageError("the archive ends in the middle of a file: it is truncated")
        self._left -= len(data)
        return data

    def _member(self, record: bytes, kind: bytes, size: int, extended: dict[str, str]) -> Member:
        if kind == b"S" or any(key.startswith("GNU.sparse") for key in extended):
            raise ImageError("the archive has a sparse file, which image archives do not have")
        if "size" in extended:
            size = _decimal(extended["size"])
        what = _KINDS.get(kind, MemberKind.OTHER)
        if what is not MemberKind.FILE:
            size = 0 if kind in b"123456" else size
        self._left, self._padding = size, -size % RECORD
        name = safe_name(extended.get("path") or _name(record))
        if record[156:157] in (b"0", b"\0") and _name(record).endswith("/"):
            what = MemberKind.OTHER
        if self._layer:
            return Member(name, what, size)
        target = extended.get("linkpath") or _text(record[157:257])
        if what is MemberKind.SYMBOLIC_LINK:
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if what in (MemberKind.SYMBOLIC_LINK, MemberKind.HARD_LINK):
            return Member(name, what, 0, safe_name(target))
        return Member(name, what, size)

    def _next_record(self) -> bytes | None:
        while self.read(BLOCK):
            pass
        self._read_exactly(self._padding)
        self._padding = 0
        record = self._read_exactly(RECORD)
        if not record.strip(b"\0"):
            # What follows the end mark is padding, but reading it lets the unpacker check the end of its own data.
            while self._raw.read(BLOCK):
                pass
            return None
        if not _checksum_is_right(record):
            raise ImageError("it is not a tar archive, or a damaged one: a header's checksum is wrong")
        return record

    def _read_extended(self, kind: bytes, size: int) -> dict[str, str]:
        if size > _MAX_EXTENDED:
            raise ImageError(f"the archive has an extended header of {size} bytes; at most {_MAX_EXTENDED} are read")
        data = self._read_exactly(size)
        self._read_exactly(-size % RECORD)
        if kind in (b"L", b"K"):
            return {"path" if kind == b"L" else "linkpath": _text(data)}
        return _pax_records(data)

    def _read_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._raw.read(size - len(data))
            if not more:
                raise ImageError("the archive ends too early: it is truncated")
            data += more
        return data


def _checksum_is_right(record: bytes) -> bool:
    try:
        claimed = int(record[148:156].strip(b" \0") or b"-1", 8)
    except ValueError:
        return False
    return claimed == sum(record[:148]) + 8 * 0x20 + sum(record[156:])


def _number(field: bytes) -> int:
    """A header's number: octal digits, or GNU's base 256 when the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1
    else:
        try:
            value = int(field.strip(b" \0") or b"0", 8)
        except ValueError:
            value = -1
    if value < 0:
        raise ImageError("the archive has a header with an impossible size")
    return value


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ImageError("the archive has a pax header with an impossible size")
    return int(text)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _name(record: bytes) -> str:
    prefix = _text(record[345:500]) if record[257:263] == b"ustar\0" else ""
    name = _text(record[:100])
    return f"{prefix}/{name}" if prefix else name


def _pax_records(data: bytes) -> dict[str, str]:
    """Records `LENGTH KEY=VALUE\\n` (POSIX pax, "pax Extended Header")."""
    records: dict[str, str] = {}
    start = 0
    while start < len(data):
        space = data.find(b" ", start, start + 8)
        length = data[start:space] if space > 0 else b""
        end = start + int(length) if length.isdigit() else 0
        if not space < end <= len(data):
            raise ImageError("the archive has a damaged pax header")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise ImageError("the archive has a damaged pax header")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        start = end
    return records
