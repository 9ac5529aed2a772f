"""The build information that Go puts into its binaries, found while their bytes pass (Go's `debug/buildinfo`).

Since Go 1.18 the blob is: 14 bytes of magic, pointer size, flags, padding to 32, then two strings with a varint length:
Go's version, and the modules between two sentinels of 16 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

_MAGIC = b"\xff Go buildinf:"
_HEADER = 32
_FIRST = _HEADER + 3
_INLINE = 2
"""The flag that says the strings follow, as they do since Go 1.18."""
_SENTINEL = 16
_MAX_INFO = 1 << 20


@dataclass(frozen=True, slots=True)
class GoModule:
    """A module that went in; `sum` is its `h1:` hash, empty for the main one."""

    path: str
    version: str
    sum: str


@dataclass(frozen=True, slots=True)
class GoBuild:
    """What `go version -m` shows."""

    go_version: str
    modules: tuple[GoModule, ...]


class GoInfoFinder:
    """Fed the bytes of a file from its start; holds at most a block and the information itself."""

    def __init__(self) -> None:
        self._kept = b""
        self.found: GoBuild | None = None

    def feed(self, data: bytes) -> None:
        """Look at the next bytes."""
        if self.found is not None:
            return
        self._kept += data
        while (start := self._kept.find(_MAGIC)) >= 0:
            self.found = parse_build(self._kept[start:])
            if self.found is not None:
                self._kept = b""
                return
            if not _is_another(self._kept[start : start + _FIRST]) and len(self._kept) - start < _MAX_INFO:
                self._kept = self._kept[start:]
                return
            # The magic stands in every program that reads build information, too.
            self._kept = self._kept[start + 1 :]
        self._kept = self._kept[-len(_MAGIC) :]


def _is_another(head: bytes) -> bool:
    """Whether the magic begins something else: no version of Go, with a length of one byte, can follow any more."""
    flags, version = head[len(_MAGIC) + 1 : len(_MAGIC) + 2], head[_HEADER + 1 : _FIRST]
    return bool(flags and not flags[0] & _INLINE) or not b"go".startswith(version)


def parse_build(data: bytes) -> GoBuild | None:
    """Read the information that begins with `data`; None when it is not there, or not whole."""
    if len(data) < _HEADER or not data.startswith(_MAGIC) or not data[len(_MAGIC) + 1] & _INLINE:
        return None
    version, position = _string(data, _HEADER)
    modules, _ = _string(data, position)
    if version is None or modules is None or not version.startswith(b"go"):
        return None
    text = modules[_SENTINEL:-_SENTINEL].decode("utf-8", "replace")
    return GoBuild(version.decode("utf-8", "replace"), tuple(_modules(text)))


def _string(data: bytes, position: int) -> tuple[bytes | None, int]:
    length = shift = 0
    for index in range(position, min(position + 5, len(data))):
        length |= (data[index] & 0x7F) << shift
        shift += 7
        if not data[index] & 0x80:
            end = index + 1 + length
            return (data[index + 1 : end], end) if length <= _MAX_INFO and end <= len(data) else (None, len(data))
    return None, len(data)


def _modules(text: str) -> list[GoModule]:
    """Lines `mod|dep PATH VERSION SUM`; a line `=>` replaces the module before it."""
    found: list[GoModule] = []
    for line in text.splitlines():
        kind, *fields = line.split("\t")
        path, version, total = (*fields, "", "", "")[:3]
        if kind == "=>" and found:
            found.pop()
        if kind in {"mod", "dep", "=>"} and path:
            found.append(GoModule(path, version, total))
    return found
