"""Packs the runner into one zipapp, whose bytes depend on its sources and this Python's bytecode alone."""

import hashlib
import importlib.util
import io
import marshal
import zipfile
from pathlib import Path
from typing import NamedTuple

MAIN = b"from albatros.runner.__main__ import main\nimport sys\n\nsys.exit(main())\n"
LEFT_OUT = frozenset({"bundle.py"})
EPOCH = (1980, 1, 1, 0, 0, 0)
MARSHAL_WITHOUT_REFERENCES = 2
"""Later formats mark what happens to be shared in this process, so equal sources would give other bytes."""
UNCHECKED_HASH = 0b01


class Bundle(NamedTuple):
    """The zipapp's bytes, and `sha256:…` of them."""

    data: bytes
    digest: str


def build_bundle() -> Bundle:
    """Make the zipapp that an executor starts as `python3 -I -S albatros-runner.pyz`."""
    package = Path(__file__).parent
    files = {"__main__.py": MAIN, "albatros/__init__.py": b""}
    for path in package.glob("*.py"):
        if path.name not in LEFT_OUT:
            files[f"albatros/runner/{path.name}"] = path.read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            # Not compressed: importing from it is faster, and every server sends it compressed if it wants to.
            archive.writestr(entry, files[name], zipfile.ZIP_STORED)
            archive.writestr(zipfile.ZipInfo(f"{name}c", EPOCH), _bytecode(name, files[name]), zipfile.ZIP_STORED)
    data = buffer.getvalue()
    return Bundle(data, "sha256:" + hashlib.sha256(data).hexdigest())


def _bytecode(name: str, source: bytes) -> bytes:
    """A module as this Python would cache it (PEP 552); another Python passes it over and compiles the source."""
    code = compile(source, name, "exec", dont_inherit=True)
    flags = UNCHECKED_HASH.to_bytes(4, "little")
    head = importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(source)
    return head + marshal.dumps(code, MARSHAL_WITHOUT_REFERENCES)
