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
from typing import BinaryIO, NamedTuple, cast

from albatros.runner.archive import CHUNK, Member, Sink, TarWriter
from albatros.runner.failure import JobFailedError, Reason
from albatros.runner.storefiles import StoreFiles

JSON_LIMIT = 16 << 20
LAYER_LIMIT = 1000


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
    layers = image["layers"]
    if image["version"] != 1 or not isinstance(layers, list) or len(layers) > LAYER_LIMIT:
        text = (
            f"The nix2container image has version {image['version']!r} or too many layers; this runner knows version 1."
        )
        raise JobFailedError(Reason.BUILD_FAILED, text)
    sink = Sink(out, limit)
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        try:
            made = [_layer(_mapping(entry), files, folder, limit) for entry in layers]
        except (KeyError, TypeError, ValueError, re.error, zlib.error) as error:
            text = f"The nix2container image cannot be read: {error!r}."
            raise JobFailedError(Reason.BUILD_FAILED, text) from error
        _write(TarWriter(sink), _config(image, made), made)
    return sink


def _write(writer: TarWriter, config: bytes, layers: list[Layer]) -> None:
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    unique = {layer.diff_id.partition(":")[2]: layer for layer in layers}
    listed = [f"{layer.diff_id.partition(':')[2]}/layer.tar" for layer in layers]
    manifest = json.dumps([{"Config": name, "RepoTags": [], "Layers": listed}]).encode()
    for path, data in ((name, config), ("manifest.json", manifest)):
        writer.add(Member(path, 0o644, len(data)), io.BytesIO(data))
    for identity, layer in unique.items():
        with open(layer.file, "rb") as file:
            writer.add(Member(f"{identity}/layer.tar", 0o644, layer.size), file)
    writer.close()


def _config(image: dict[str, object], layers: list[Layer]) -> bytes:
    config: dict[str, object] = {"architecture": image["arch"], "os": "linux", "config": image["image-config"]}
    if image.get("created"):
        config["created"] = image["created"]
    config["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
    config["history"] = [layer.history for layer in layers]
    return json.dumps(config, separators=(",", ":")).encode()


def _layer(entry: dict[str, object], files: StoreFiles, folder: str, limit: int) -> Layer:
    descriptor, path = tempfile.mkstemp(dir=folder)
    with os.fdopen(descriptor, "wb") as file:
        sink = Sink(file, limit)
        if entry.get("layer-path"):
            _copy(files.open(str(entry["layer-path"])), sink)
        else:
            _write_paths(cast("list[object]", entry["paths"]), files, sink)
    history = entry.get("History")
    return Layer(path, sink.digest, sink.size, _mapping(history) if isinstance(history, dict) else {})


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


def _write_paths(paths: list[object], files: StoreFiles, sink: Sink) -> None:
    root = Node(None, (), {})
    for value in paths:
        entry = _mapping(value)
        options = _mapping(entry.get("options") or {})
        rewrite = _mapping(options.get("rewrite") or {})
        regex = re.compile(str(rewrite["regex"])) if rewrite.get("regex") else None
        replacement = re.sub(r"\$\{?(\w+)\}?", r"\\g<\1>", str(rewrite.get("repl", "")).replace("\\", "\\\\"))
        permissions = tuple(_permission(_mapping(item)) for item in cast("list[object]", options.get("perms") or []))
        for path in files.walk(str(entry["path"])):
            target = path if regex is None else regex.sub(replacement, path)
            if target:
                _plant(root, target, path, permissions)
    writer = TarWriter(sink)
    _write_node(writer, "", root, files)
    writer.close()


def _plant(root: Node, target: str, source: str, permissions: tuple[Permission, ...]) -> None:
    normal = os.path.normpath(target).replace("//", "/")
    *parents, last = [""] if normal == "/" else normal.split("/")
    current = root
    for part in parents:
        current = current.below.setdefault(part, Node(None, (), {}))
    below = current.below[last].below if last in current.below else {}
    current.below[last] = Node(source, permissions, below)


def _write_node(writer: TarWriter, base: str, node: Node, files: StoreFiles) -> None:
    for part in sorted(node.below, key=lambda text: text.encode("utf-8", "surrogateescape")):
        child = node.below[part]
        name = "/" if not part else os.path.join(base, part)
        if child.source is None:
            writer.add(Member(name, 0o755, kind=b"5"))
        else:
            _write_file(writer, name, child.source, child.permissions, files)
        _write_node(writer, name, child, files)


def _write_file(
    writer: TarWriter, name: str, source: str, permissions: tuple[Permission, ...], files: StoreFiles
) -> None:
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
        writer.add(member)
        return
    with files.open(source) as file:
        writer.add(member, file)


def _permission(value: dict[str, object]) -> Permission:
    mode = str(value.get("mode") or "")
    return Permission(
        re.compile(str(value["regex"])),
        int(mode, 8) & 0o7777 if mode else None,
        int(str(value.get("uid") or 0)),
        int(str(value.get("gid") or 0)),
        str(value.get("uname") or ""),
        str(value.get("gname") or ""),
    )


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r:.80} is not an object")
    return cast("dict[str, object]", value)
