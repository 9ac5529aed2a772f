"""A static ELF binary as an image: one layer that holds it, and a config that starts it.

The machine in the ELF header must be the platform's, and a binary that asks for an interpreter is refused, since
nothing else is in the image (System V ABI, "ELF Header", "Program Header").
"""

from __future__ import annotations

import posixpath
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from albatros.domain.platforms import Platform, normal_form
from albatros.errors import ImageError
from albatros.images.base import Source
from albatros.images.layers import LayerWriter
from albatros.images.readers.parts import ImageParts
from albatros.images.streams import PeekReader, blocks
from albatros.images.tarstream import RECORD

ELF_MAGIC = b"\x7fELF"
_HEAD = 64 << 10
_PT_INTERP = 3
_FILE_TIME = 1
"""Seconds since 1970 of everything in the layer: the Nix store's own choice, so a layer depends on its binary alone."""

_MACHINES = {
    (62, True, True): "amd64",
    (3, False, True): "386",
    (183, True, True): "arm64",
    (40, False, True): "arm",
    (243, True, True): "riscv64",
    (21, True, True): "ppc64le",
    (22, True, False): "s390x",
    (258, True, True): "loong64",
}
"""Architecture by e_machine, 64 bits, little endian."""


def read_binary(raw: PeekReader, source: Source, writer: LayerWriter) -> ImageParts:
    """Make the image of one binary. Raises ImageError when it could not run there."""
    if source.size is None:
        raise ImageError("a binary's size has to be known beforehand; give it as a file")
    architecture = check_static_elf(raw.peek(_HEAD))
    platform = _platform(architecture, source)
    path = _path_in_image(source.entrypoint)
    layer = writer.write(_layer_tar(raw, path, source.size))
    config: dict[str, object] = {"config": {"Entrypoint": [f"/{path}"]}}
    return ImageParts(platform, config, (layer,))


def check_static_elf(head: bytes) -> str:
    """The architecture of an executable whose first 64 KiB these are. Raises ImageError unless it is static."""
    header = _parse_header(head)
    architecture = _MACHINES.get((header.machine, header.wide, header.order == "<"))
    if architecture is None:
        raise ImageError(f"its ELF machine {header.machine} is none that images are built for")
    if header.kind not in (2, 3):
        raise ImageError("it is an ELF file, but not an executable")
    end = header.table + header.entries * header.entry_size
    if header.entry_size < 4 or not 0 < header.entries < 0xFFFF or end > len(head):
        raise ImageError("its ELF program headers are damaged or not at its beginning")
    for position in range(header.table, end, header.entry_size):
        if struct.unpack_from(f"{header.order}I", head, position)[0] == _PT_INTERP:
            raise ImageError(
                "it asks for an interpreter (it is linked dynamically); link it statically, e.g. CGO_ENABLED=0"
            )
    return architecture


@dataclass(frozen=True, slots=True)
class _ElfHeader:
    wide: bool
    order: str
    kind: int
    machine: int
    table: int
    entry_size: int
    entries: int


def _parse_header(head: bytes) -> _ElfHeader:
    if len(head) < 64 or not head.startswith(ELF_MAGIC) or head[4] not in (1, 2) or head[5] not in (1, 2):
        raise ImageError("it is not an ELF file, or a damaged one")
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    kind, machine = struct.unpack_from(f"{order}HH", head, 16)
    table = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", head, 32 if wide else 28)[0]
    entry_size, entries = struct.unpack_from(f"{order}HH", head, 54 if wide else 42)
    return _ElfHeader(wide, order, kind, machine, table, entry_size, entries)


def _platform(architecture: str, source: Source) -> Platform:
    """A hint must be of the binary's architecture; it can only add the variant."""
    wanted = next(iter(source.hints.candidates()), None)
    if wanted is None:
        return normal_form("linux", architecture, None)
    if wanted.architecture != architecture:
        raise ImageError(f"it is a binary for {architecture}, not for {wanted} as its place says")
    return wanted


def _path_in_image(entrypoint: str) -> str:
    path = entrypoint.removeprefix("/")
    if (
        not path
        or path != posixpath.normpath(path)
        or path.startswith(("/", ".."))
        or len(path) > 90
        or not path.isprintable()
    ):
        raise ImageError(f"{entrypoint[:120]!r} is no usable path for a binary; use one such as /bin/hello")
    return path


def _layer_tar(binary: PeekReader, path: str, size: int) -> Iterator[bytes]:
    """A tar of the binary and the directories above it, all of root's and of one time."""
    for depth in range(1, path.count("/") + 1):
        directory = tarfile.TarInfo("/".join(path.split("/")[:depth]))
        directory.type, directory.mode, directory.mtime = tarfile.DIRTYPE, 0o755, _FILE_TIME
        yield directory.tobuf(tarfile.USTAR_FORMAT)
    file = tarfile.TarInfo(path)
    file.size, file.mode, file.mtime = size, 0o755, _FILE_TIME
    try:
        yield file.tobuf(tarfile.USTAR_FORMAT)
    except ValueError as error:
        raise ImageError(f"it cannot be put into a layer: {error}") from error
    seen = 0
    for block in blocks(binary):
        seen += len(block)
        yield block
    if seen != size:
        raise ImageError(f"it had {size} bytes when it was opened and {seen} when it was read")
    yield bytes(-size % RECORD + 2 * RECORD)
