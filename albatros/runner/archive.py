"""Writes tar archives whose bytes depend on the files alone: sorted, owned by root, at second 1.

The headers are those of Go's archive/tar (ustar, and pax only where ustar has no room), so that layers which
nix2container has hashed come out with the same digest.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

BLOCK = 512
CHUNK = 1 << 20
END = bytes(2 * BLOCK)
"""The two empty blocks that end an archive."""


class Member(NamedTuple):
    """The header of one file; `kind` is the tar type flag: b"0", b"2" (link) or b"5" (directory)."""

    name: str
    mode: int
    size: int = 0
    kind: bytes = b"0"
    link: str = ""
    uid: int = 0
    gid: int = 0
    user: str = "root"
    group: str = "root"


class Sink:
    """Counts and hashes what is written to a file, and refuses more than `limit` bytes with OverflowError."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._limit = limit
        self._sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Write, count and hash."""
        self.size += len(data)
        if self.size > self._limit:
            raise OverflowError(f"more than {self._limit} bytes")
        self._sha256.update(data)
        self._file.write(data)

    @property
    def digest(self) -> str:
        """`sha256:…` of everything so far."""
        return "sha256:" + self._sha256.hexdigest()


class TarWriter:
    """Appends members to a sink; `close` writes the end of the archive."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def add(self, member: Member, content: BinaryIO | None = None) -> None:
        """Add one member as `member_bytes` makes it."""
        for data in member_bytes(member, content):
            self._sink.write(data)

    def close(self) -> None:
        """Write the end of the archive."""
        self._sink.write(END)


def member_bytes(member: Member, content: BinaryIO | None = None) -> Iterator[bytes]:
    """One member; `content` has to have exactly `member.size` bytes. Raises OSError when it does not."""
    yield headers(member)
    left = member.size
    while content is not None and left:
        data = content.read(min(CHUNK, left))
        if not data:
            raise OSError(f"{member.name} became shorter while it was read")
        yield data
        left -= len(data)
    if padding := bytes(-member.size % BLOCK):
        yield padding


def headers(member: Member) -> bytes:
    """The header block of a member, after a pax header where ustar has no room for it."""
    records: dict[str, str] = {}
    split = _split_name(member.name)
    if split is None:
        records["path"] = member.name
    if not _fits(member.link, 100):
        records["linkpath"] = member.link
    texts = (("uname", member.user), ("gname", member.group))
    records |= {key: text for key, text in texts if not _fits(text, 32)}
    numbers = (("uid", member.uid, 8**7), ("gid", member.gid, 8**7), ("size", member.size, 8**11))
    records |= {key: str(number) for key, number, most in numbers if number >= most}
    if not records:
        prefix, name = split or (b"", b"")
        return _block(member, name, prefix)
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    directory, _, base = member.name.rstrip("/").rpartition("/")
    pax_name = os.path.join(directory or ("/" if member.name.startswith("/") else ""), "PaxHeaders.0", base)
    pax = _block(
        Member("", 0, len(data), b"x", user="", group=""), pax_name.encode("ascii", "ignore")[:100], b"", time=0
    )
    kept = member._replace(size=0 if "size" in records else member.size)
    plain = member.name.encode("ascii", "ignore")[:100]
    return pax + data + bytes(-len(data) % BLOCK) + _block(kept, plain, b"")


def add_tree(writer: TarWriter, root: str, name: str = "") -> None:
    """Add the directory `root` and everything below it, sorted, under `name`. Special files raise OSError."""
    for entry in sorted(os.scandir(root), key=lambda found: found.name):
        path = f"{name}{entry.name}"
        info = entry.stat(follow_symlinks=False)
        if stat.S_ISLNK(info.st_mode):
            writer.add(Member(path, 0o777, kind=b"2", link=os.readlink(entry.path)))
        elif stat.S_ISDIR(info.st_mode):
            writer.add(Member(path + "/", 0o755, kind=b"5"))
            add_tree(writer, entry.path, path + "/")
        elif stat.S_ISREG(info.st_mode):
            with open(entry.path, "rb") as file:
                writer.add(Member(path, 0o755 if info.st_mode & 0o100 else 0o644, info.st_size), file)
        else:
            raise OSError(f"{path} is neither a file, a directory nor a link")


def _split_name(name: str) -> tuple[bytes, bytes] | None:
    """Prefix and name as ustar splits a path, None when it cannot."""
    if not name.isascii():
        return None
    data = name.encode()
    if len(data) <= 100:
        return b"", data
    cut = data.rfind(b"/", 0, min(len(data) - (1 if data.endswith(b"/") else 0), 156))
    if cut <= 0 or len(data) - cut - 1 > 100 or len(data) == cut + 1:
        return None
    return data[:cut], data[cut + 1 :]


def _fits(text: str, room: int) -> bool:
    return text.isascii() and len(text) <= room


def _record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    length = len(body) + 1
    while length != len(str(length)) + len(body):
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def _octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, number if number < 8 ** (width - 1) else 0)


def _block(member: Member, name: bytes, prefix: bytes, time: int = 1) -> bytes:
    is_pax = member.kind == b"x"
    fields = [
        name.ljust(100, b"\0"),
        _octal(member.mode, 8),
        _octal(member.uid, 8),
        _octal(member.gid, 8),
        _octal(member.size, 12),
        _octal(time, 12),
        b" " * 8,
        member.kind,
        member.link.encode("ascii", "ignore")[:100].ljust(100, b"\0"),
        b"ustar\x0000",
        member.user.encode("ascii", "ignore")[:32].ljust(32, b"\0"),
        member.group.encode("ascii", "ignore")[:32].ljust(32, b"\0"),
        bytes(16) if is_pax else _octal(0, 8) * 2,
        prefix.ljust(155, b"\0"),
        bytes(12),
    ]
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
