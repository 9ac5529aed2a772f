"""An OCI layout in a directory as the tar it could be, written while it is read: readers know streams only."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from albatros.errors import ImageError
from albatros.images.readers.oci_layout import INDEX, MARKER
from albatros.images.streams import BLOCK, ChunkReader
from albatros.images.tarstream import RECORD


def is_layout(path: Path) -> bool:
    """Whether a directory says that it is an OCI layout."""
    return (path / MARKER).is_file() and (path / INDEX).is_file()


def open_layout(path: Path) -> BinaryIO:
    """The layout's tar, from its start. Reading raises ImageError when a file cannot be read."""
    return io.BufferedReader(ChunkReader(_tar(path)), BLOCK)


def _tar(root: Path) -> Iterator[bytes]:
    blobs = root / "blobs" / "sha256"
    files = [root / INDEX, *sorted(blobs.iterdir() if blobs.is_dir() else ())]
    try:
        for file in files:
            if file.is_file() or file.name == INDEX:
                yield from _member(file, file.relative_to(root).as_posix())
    except OSError as error:
        raise ImageError(f"{error.filename or root} cannot be read: {error.strerror}") from error
    yield bytes(2 * RECORD)


def _member(file: Path, name: str) -> Iterator[bytes]:
    with file.open("rb") as stream:
        header = tarfile.TarInfo(name)
        header.size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        yield header.tobuf(tarfile.GNU_FORMAT)
        left = header.size
        while left and (data := stream.read(min(BLOCK, left))):
            left -= len(data)
            yield data
        if left:
            raise ImageError(f"{file} became shorter while it was read")
    yield bytes(-header.size % RECORD)
