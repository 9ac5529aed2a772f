"""Turns an image that nix2container describes in JSON into a docker-archive, since the server has no /nix.

The format is types.Image of nlewo/nix2container: layers name store paths and how to rewrite them, or a layer's own
file. Layers are written as its nix/tar.go writes them, so their digests come out as recorded; the archive's config is
made from the digests that were computed here.
"""

import hashlib
import io
import json
import os
import re
import stat
import tempfile
import zlib
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple, cast

from albatros.runner.archive import CHUNK, END, Member, Sink, TarWriter, member_bytes
from albatros.runner.failure import JobFailedError, Reason
from albatros.runner.storefiles import StoreFiles

JSON_LIMIT = 16 << 20
LAYER_LIMIT = 1000
NO_TIME = "0001-01-01T00:00:00Z"
"""What nix2container writes for an image that was given no time."""


class Layer(NamedTuple):
    """A layer that lies in a file of its own: its bytes' digest without compression."""

    file: str
    diff_id: str
    size: int
    history: dict[str, object]


class Permission(NamedTuple):
    """Owner and mode of the files whose store path matches."""

    regex: re.Pattern[str]
    mode: int | None
    uid: int
    gid: int
    user: str
    group: str


class Node(NamedTuple):
    """A place in the layer: the file it comes from, None for a directory that only leads to others."""

    source: str | None
    permissions: tuple[Permission, ...]
    below: dict[str, "Node"]


def read_image(data: bytes) -> dict[str, object] | None:
    """The description when `data` is one of nix2container's, else None."""
    if len(data) > JSON_LIMIT or not data.lstrip().startswith(b"{"):
        return None
    try:
        document: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not {"version", "image-config", "layers", "arch"} <= document.keys():
        return None
    return cast("dict[str, object]", document)


def write_archive(image: dict[str, object], files: StoreFiles, directory: str, out: BinaryIO, limit: int) -> Sink:
    """Write the image as an uncompressed docker-archive; its digest and size. Raises JobFailedError, OverflowError."""
    sink = Sink(out, limit)
    with tempfile.TemporaryDirectory(dir=directory) as folder, readable():
        made = [_layer(entry, files, folder, limit) for entry in layers_of(image)]
        _write(TarWriter(sink), image, made)
    return sink


@contextmanager
def readable() -> Iterator[None]:
    """What a damaged description leads to is raised as JobFailedError (build_failed)."""
    try:
        yield
    except (KeyError, TypeError, ValueError, re.error, zlib.error) as error:
        text = f"The nix2container image cannot be read: {error!r}."
        raise JobFailedError(Reason.BUILD_FAILED, text) from error


def layers_of(image: dict[str, object]) -> list[dict[str, object]]:
    """The layers that a description lists. Raises JobFailedError, TypeError."""
    layers = image["layers"]
    if image["version"] != 1 or not isinstance(layers, list) or len(layers) > LAYER_LIMIT:
        text = f"The nix2container image has version {image['version']!r} or too many layers; only version 1 is known."
        raise JobFailedError(Reason.BUILD_FAILED, text)
    return [_mapping(entry) for entry in layers]


def documents(image: dict[str, object], layers: list[tuple[str, dict[str, object]]]) -> list[tuple[str, bytes]]:
    """The archive's small files by name: config and manifest.json. `layers` are diff_ids with what made them."""
    config: dict[str, object] = {"architecture": image["arch"], "os": "linux", "config": image["image-config"]}
    if image.get("created") not in {None, "", NO_TIME}:
        config["created"] = image["created"]
    config["rootfs"] = {"type": "layers", "diff_ids": [diff_id for diff_id, _ in layers]}
    config["history"] = [history for _, history in layers]
    data = json.dumps(config, separators=(",", ":")).encode()
    name = f"{hashlib.sha256(data).hexdigest()}.json"
    listed = [layer_name(diff_id) for diff_id, _ in layers]
    manifest = json.dumps([{"Config": name, "RepoTags": [], "Layers": listed}]).encode()
    return [(name, data), ("manifest.json", manifest)]


def layer_name(diff_id: str) -> str:
    """Where the archive has a layer."""
    return f"{diff_id.partition(':')[2]}/layer.tar"


def history_of(layer: dict[str, object]) -> dict[str, object]:
    """What the config says of how a layer was made."""
    history = layer.get("History")
    return _mapping(history) if isinstance(history, dict) else {}


def _write(writer: TarWriter, image: dict[str, object], layers: list[Layer]) -> None:
    for path, data in documents(image, [(layer.diff_id, layer.history) for layer in layers]):
        writer.add(Member(path, 0o644, len(data)), io.BytesIO(data))
    for diff_id, layer in {layer.diff_id: layer for layer in layers}.items():
        with open(layer.file, "rb") as file:
            writer.add(Member(layer_name(diff_id), 0o644, layer.size), file)
    writer.close()


def _layer(entry: dict[str, object], files: StoreFiles, folder: str, limit: int) -> Layer:
    descriptor, path = tempfile.mkstemp(dir=folder)
    with os.fdopen(descriptor, "wb") as file:
        sink = Sink(file, limit)
        if entry.get("layer-path"):
            _copy(files.open(str(entry["layer-path"])), sink)
        else:
            for data in layer_bytes(cast("list[object]", entry["paths"]), files):
                sink.write(data)
    return Layer(path, sink.digest, sink.size, history_of(entry))


def _copy(file: BinaryIO, sink: Sink) -> None:
    """Copy a layer's own file, without its gzip compression."""
    with file:
        first = file.read(CHUNK)
        inflate = zlib.decompressobj(zlib.MAX_WBITS | 16) if first.startswith(b"\x1f\x8b") else None
        if first.startswith(b"\x28\xb5\x2f\xfd"):
            text = "A layer of the nix2container image is compressed with zstd; use a base image with gzip layers."
            raise JobFailedError(Reason.BUILD_FAILED, text)
        data = first
        while data:
            while inflate is not None and data:
                sink.write(inflate.decompress(data, CHUNK))
                data = inflate.unconsumed_tail
            if data:
                sink.write(data)
            data = file.read(CHUNK)


def layer_bytes(paths: list[object], files: StoreFiles) -> Iterator[bytes]:
    """The tar of a layer that names store paths. Raises JobFailedError, OSError; KeyError and its like if damaged."""
    root = Node(None, (), {})
    for value in paths:
        entry = _mapping(value, {"path", "options"})
        options = _mapping(entry.get("options") or {}, {"rewrite", "perms"})
        rewrite = _mapping(options.get("rewrite") or {}, {"regex", "repl"})
        regex = re.compile(str(rewrite["regex"])) if rewrite.get("regex") else None
        replacement = re.sub(r"\$\{?(\w+)\}?", r"\\g<\1>", str(rewrite.get("repl", "")).replace("\\", "\\\\"))
        permissions = tuple(_permission(item) for item in cast("list[object]", options.get("perms") or []))
        for path in files.walk(str(entry["path"])):
            target = path if regex is None else regex.sub(replacement, path)
            if target:
                _plant(root, target, path, permissions)
    yield from _node_bytes("", root, files)
    yield END


def _plant(root: Node, target: str, source: str, permissions: tuple[Permission, ...]) -> None:
    normal = os.path.normpath(target).replace("//", "/")
    *parents, last = [""] if normal == "/" else normal.split("/")
    current = root
    for part in parents:
        current = current.below.setdefault(part, Node(None, (), {}))
    below = current.below[last].below if last in current.below else {}
    current.below[last] = Node(source, permissions, below)


def _node_bytes(base: str, node: Node, files: StoreFiles) -> Iterator[bytes]:
    for part in sorted(node.below, key=lambda text: text.encode("utf-8", "surrogateescape")):
        child = node.below[part]
        name = "/" if not part else os.path.join(base, part)
        if child.source is None:
            yield from member_bytes(Member(name, 0o755, kind=b"5"))
        else:
            yield from _file_bytes(name, child.source, child.permissions, files)
        yield from _node_bytes(name, child, files)


def _file_bytes(name: str, source: str, permissions: tuple[Permission, ...], files: StoreFiles) -> Iterator[bytes]:
    info = files.lstat(source)
    mode, kind, link, size = stat.S_IMODE(info.st_mode), b"0", "", info.st_size
    if stat.S_ISLNK(info.st_mode):
        mode, kind, link, size = 0o777, b"2", files.readlink(source), 0
    elif stat.S_ISDIR(info.st_mode):
        kind, size = b"5", 0
    elif not stat.S_ISREG(info.st_mode):
        raise JobFailedError(Reason.BUILD_FAILED, f"{source} is neither a file, a directory nor a link.")
    member = Member(name, mode, size, kind, link)
    for permission in permissions:
        if permission.regex.search(source):
            member = member._replace(uid=permission.uid, gid=permission.gid)
            member = member._replace(
                mode=member.mode if permission.mode is None else permission.mode,
                user=permission.user or member.user,
                group=permission.group or member.group,
            )
    if kind != b"0":
        yield from member_bytes(member)
        return
    with files.open(source) as file:
        yield from member_bytes(member, file)


def _permission(value: object) -> Permission:
    fields = _mapping(value, {"regex", "mode", "uid", "gid", "uname", "gname"})
    mode = str(fields.get("mode") or "")
    return Permission(
        re.compile(str(fields["regex"])),
        int(mode, 8) & 0o7777 if mode else None,
        int(str(fields.get("uid") or 0)),
        int(str(fields.get("gid") or 0)),
        str(fields.get("uname") or ""),
        str(fields.get("gname") or ""),
    )


def _mapping(value: object, known: AbstractSet[str] = frozenset()) -> dict[str, object]:
    """An object, whose keys are all `known` where those are named: what is ignored could change the layer."""
    if not isinstance(value, dict):
        raise TypeError(f"{value!r:.80} is not an object")
    unknown = set(value) - known if known else set()
    if unknown:
        raise ValueError(f"it uses {min(unknown)!r:.80}, which this version of Albatros does not know")
    return cast("dict[str, object]", value)
