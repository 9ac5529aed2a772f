"""The digests of images of one program with each compression: python -m tests.support.digests PROGRAM prints JSON.

Beside the given program there is always the same one, made here, which compresses as machine code does.
"""

import json
import random
import sys
from datetime import UTC, datetime
from pathlib import Path

from albatros.images.assemble import AssembleOptions, assemble
from albatros.images.base import NullLayerCache
from albatros.images.layers import Compression
from tests.support.archives import Archive, elf, layer, source
from tests.support.stores import MemoryStore

_CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def fixed_program(size: int = 300_000) -> bytes:
    """A few instructions that are frequent, many that are not, and addresses: the same bytes everywhere."""
    chance = random.Random(1)
    words = [chance.randbytes(1 + int(7 * chance.random())) for _ in range(3000)]
    code = bytearray()
    while len(code) < size:
        code += words[int(chance.random() ** 3 * len(words))]
        if chance.random() < 0.15:
            code += int(chance.random() * 65536).to_bytes(4, "little")
    return bytes(code[:size])


def digests(program: bytes) -> dict[str, str]:
    """The index over an archive and a static binary, by the name of the compression."""
    archive = Archive([layer(hello=program), layer(again=program[::-1])], {"architecture": "arm64", "os": "linux"})
    sources = [source(archive.tar()), source(elf("amd64", payload=program))]
    return {
        compression.value: assemble(
            sources, MemoryStore(), NullLayerCache(), AssembleOptions(created=_CREATED, compression=compression)
        ).digest
        for compression in Compression
    }


def all_digests(program: Path) -> dict[str, dict[str, str]]:
    """Those of the fixed program and of the first bytes of a real one."""
    with program.open("rb") as file:
        return {"fixed": digests(fixed_program()), "real": digests(file.read(1_500_000))}


if __name__ == "__main__":
    json.dump(all_digests(Path(sys.argv[1])), sys.stdout)
