"""What a runner reports of a build's outputs, checked. Digests and sizes are claims until the store confirms them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from albatros.errors import BadInputError

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_+.-]{1,64}", re.ASCII)
MAX_OUTPUTS = 32
MAX_FILES = 1000
MAX_CLOSURE = 20_000
KINDS = frozenset({"file", "binary", "directory-tar", "image-archive"})


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that was uploaded."""

    path: str
    """Inside the output; empty for the output itself."""
    kind: str
    digest: str
    executable: bool


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a derivation."""

    name: str
    store_path: str
    nar_hash: str
    closure: list[dict[str, str | int]]
    files: tuple[OutputFile, ...]


def read_outputs(value: object) -> tuple[Output, ...]:
    """Check the `outputs` of a runner's result. Raises BadInputError."""
    items = _list(value, "outputs", MAX_OUTPUTS)
    outputs = tuple(_output(item) for item in items)
    if len({output.name for output in outputs}) != len(outputs):
        raise BadInputError("outputs: one name stands twice")
    return outputs


def _output(item: object) -> Output:
    if not isinstance(item, dict):
        raise BadInputError("outputs: an item is no object")
    name = _text(item, "output", 64)
    if not _NAME.fullmatch(name):
        raise BadInputError("outputs: `output` is no name of an output")
    files = tuple(_file(file) for file in _list(item.get("files"), "files", MAX_FILES))
    if len({file.path for file in files}) != len(files):
        raise BadInputError("outputs: one path stands twice")
    closure = [_closure_item(entry) for entry in _list(item.get("closure"), "closure", MAX_CLOSURE)]
    return Output(name, _text(item, "store_path", 1024), _text(item, "nar_hash", 128), closure, files)


def _file(item: object) -> OutputFile:
    if not isinstance(item, dict):
        raise BadInputError("files: an item is no object")
    path, kind, digest = _text(item, "path", 1024), _text(item, "kind", 32), _text(item, "digest", 80)
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise BadInputError("files: `path` must lie inside the output")
    if kind not in KINDS or not _DIGEST.fullmatch(digest):
        raise BadInputError(f"files: {path or 'the output'!r} has no known kind or no sha256 digest")
    return OutputFile(path, kind, digest, item.get("executable") is True)


def _closure_item(item: object) -> dict[str, str | int]:
    if not isinstance(item, dict):
        raise BadInputError("closure: an item is no object")
    size = item.get("nar_size")
    return {
        "path": _text(item, "path", 1024),
        "nar_hash": _text(item, "nar_hash", 128),
        "nar_size": size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else 0,
    }


def _list(value: object, what: str, most: int) -> list[object]:
    if not isinstance(value, list) or len(value) > most:
        raise BadInputError(f"{what} must be a list of at most {most} items")
    return value


def _text(item: dict[str, object], key: str, most: int) -> str:
    value = item.get(key)
    if not isinstance(value, str) or len(value) > most or not value.isprintable():
        raise BadInputError(f"{key} must be printable text of at most {most} characters")
    return value
