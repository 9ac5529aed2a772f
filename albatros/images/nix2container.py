"""An image that nix2container describes in JSON, as the docker-archive it could be, made while it is read.

For a machine that has the store paths at hand. Only what a person names is opened this way: a description says which
files of the machine to publish. The format itself is the runner's business.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from albatros.domain.references import parse_digest
from albatros.errors import BadInputError, ImageError
from albatros.images.streams import BLOCK, ChunkReader
from albatros.runner import nix2container as description
from albatros.runner.archive import END, Member, headers, member_bytes
from albatros.runner.failure import JobFailedError
from albatros.runner.storefiles import STORE, StoreFiles


def is_description(path: Path) -> bool:
    """Whether a file is an image of nix2container."""
    return _read(path) is not None


def open_archive(path: Path) -> BinaryIO:
    """The archive, from its start; its store is the one that `path` lies in, else /nix/store.

    Reading raises ImageError for a description that is damaged, and for a layer whose size is another than it says.
    """
    image = _read(path)
    if image is None:
        raise ImageError("it is no image of nix2container any more")
    root, inside, _ = str(path.resolve()).partition(f"{STORE}/")
    return io.BufferedReader(ChunkReader(_checked(image, StoreFiles(root if inside else ""))), BLOCK)


def _read(path: Path) -> dict[str, object] | None:
    with path.open("rb") as file:
        first = file.read(1)
        return description.read_image(first + file.read(description.JSON_LIMIT)) if first == b"{" else None


def _checked(image: dict[str, object], files: StoreFiles) -> Iterator[bytes]:
    try:
        with description.readable():
            yield from _archive(image, files)
    except JobFailedError as error:
        raise ImageError(error.message.rstrip(".")) from error
    except OSError as error:
        raise ImageError(
            f"{error.filename} cannot be read: {error.strerror}; publish it where its store paths are"
            if error.filename
            else str(error)
        ) from error


def _archive(image: dict[str, object], files: StoreFiles) -> Iterator[bytes]:
    layers = [(_diff_id(layer), layer) for layer in description.layers_of(image)]
    listed = [(diff_id, description.history_of(layer)) for diff_id, layer in layers]
    for name, data in description.documents(image, listed):
        yield from member_bytes(Member(name, 0o644, len(data)), io.BytesIO(data))
    for diff_id, layer in dict(layers).items():
        name = description.layer_name(diff_id)
        if layer.get("layer-path"):
            with files.open(str(layer["layer-path"])) as file:
                yield from member_bytes(Member(name, 0o644, os.fstat(file.fileno()).st_size), file)
        else:
            yield from _store_paths(name, layer, files)
    yield END


def _store_paths(name: str, layer: Mapping[str, object], files: StoreFiles) -> Iterator[bytes]:
    size = int(str(layer["size"]))
    yield headers(Member(name, 0o644, size))
    left = size
    for data in description.layer_bytes(cast("list[object]", layer["paths"]), files):
        left -= len(data)
        if left < 0:
            break
        yield data
    if left:
        raise ImageError(
            f"its layer {name.partition('/')[0]} has other bytes than when it was described; build the image again"
        )


def _diff_id(layer: Mapping[str, object]) -> str:
    try:
        return parse_digest(str(layer["diff_ids"]))
    except BadInputError as error:
        raise ImageError(f"a layer's diff_ids: {error.detail}") from error
