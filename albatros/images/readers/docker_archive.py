"""docker-archive, as `docker save` and nixpkgs' dockerTools write it (moby image spec v1.2, "Combined Image JSON").

One pass: a layer is hashed and kept when it comes by, since `manifest.json`, which says what is a layer, may come last.
What a file is, its first bytes say. A layer under two names is a link or the same bytes again.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping

from albatros.domain import media, platforms
from albatros.domain.references import Digest
from albatros.errors import ImageError, TooLargeError
from albatros.images.base import Source
from albatros.images.layers import Layer, LayerWriter
from albatros.images.model import JsonObject, parse_json_object
from albatros.images.readers.parts import ImageParts
from albatros.images.streams import GZIP_MAGIC, ZSTD_MAGIC, PeekReader, Reader, blocks, unpacked
from albatros.images.tarstream import RECORD, Member, MemberKind, TarStream, looks_like_tar, safe_name

_MANIFEST = "manifest.json"
_MAX_DOCUMENTS = 32 << 20
_MAX_LINKS = 16
_HEX_DIGEST = re.compile(r"(?:^|/)([0-9a-f]{64})(?:/layer\.tar|\.tar)?$")


def read_docker_archive(raw: Reader, source: Source, writer: LayerWriter) -> ImageParts:
    """Read an archive of exactly one image. Raises ImageError or TooLargeError."""
    contents = _Contents(writer)
    archive = TarStream(raw)
    for member in archive:
        contents.take(member, PeekReader(archive))
    entry = contents.manifest_entry()
    config_name, layer_names = _entry_fields(entry)
    config = parse_json_object(contents.document(config_name), f"config {config_name}")
    layers = tuple(contents.layer(name) for name in layer_names)
    _check_diff_ids(config, layers)
    platform = platforms.resolve(
        _text(config, "os"), _text(config, "architecture"), _text(config, "variant"), source.hints
    )
    return ImageParts(platform, config, layers)


class _Contents:
    """What an archive held: kept layers, small documents and links, by name."""

    def __init__(self, writer: LayerWriter) -> None:
        self._writer = writer
        self._layers: dict[str, Layer] = {}
        self._documents: dict[str, bytes] = {}
        self._links: dict[str, str] = {}
        self._document_bytes = 0

    def take(self, member: Member, content: PeekReader) -> None:
        if member.kind in (MemberKind.SYMBOLIC_LINK, MemberKind.HARD_LINK):
            self._links[member.name] = member.target
        if member.kind is not MemberKind.FILE:
            return
        if member.name in self._layers or member.name in self._documents:
            raise ImageError(f"the archive holds {member.name!r} twice")
        head = content.peek(RECORD)
        if (
            looks_like_tar(head)
            or head.startswith((GZIP_MAGIC, ZSTD_MAGIC))
            or (not head and member.name.endswith(".tar"))
        ):
            self._layers[member.name] = self._writer.write(blocks(unpacked(content)), _promised_diff_id(member.name))
        elif member.name.endswith(".json") or head.lstrip()[:1] in (b"{", b"["):
            self._take_document(member, content)

    def _take_document(self, member: Member, content: Reader) -> None:
        if member.size > media.MAX_MANIFEST:
            raise TooLargeError(
                f"{member.name!r} has {member.size} bytes; a manifest or config may have {media.MAX_MANIFEST}"
            )
        self._document_bytes += member.size
        if self._document_bytes > _MAX_DOCUMENTS:
            raise TooLargeError(f"the archive's JSON files have more than {_MAX_DOCUMENTS} bytes together")
        self._documents[member.name] = b"".join(blocks(content))

    def manifest_entry(self) -> JsonObject:
        """The one image that `manifest.json` describes."""
        try:
            entries = json.loads(self.document(_MANIFEST))
        except (ValueError, RecursionError) as error:
            raise ImageError(f"{_MANIFEST} is not JSON: {str(error)[:200]}") from error
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ImageError(f"{_MANIFEST} is not a list of images")
        if len(entries) != 1:
            raise ImageError(f"the archive holds {len(entries)} images; write one archive for each")
        return dict(entries[0])

    def document(self, name: str) -> bytes:
        found = self._documents.get(self._resolved(name))
        if found is not None:
            return found
        if name == _MANIFEST:
            raise ImageError(f"it has no {_MANIFEST}, so it is not a docker-archive")
        raise ImageError(f"{_MANIFEST} names the config {name!r}, which is not a JSON file of the archive")

    def layer(self, name: str) -> Layer:
        found = self._layers.get(self._resolved(name))
        if found is None:
            raise ImageError(f"{_MANIFEST} names the layer {name!r}, which is not a tar of the archive")
        return found

    def _resolved(self, name: str) -> str:
        name = safe_name(name)
        for _ in range(_MAX_LINKS):
            if name not in self._links:
                return name
            name = self._links[name]
        raise ImageError(f"the links of the archive lead in circles at {name!r}")


def _promised_diff_id(name: str) -> Digest | None:
    """Layered archives name a layer after its diff_id, `<hex>/layer.tar`; others use such names for something else."""
    match = _HEX_DIGEST.search(posixpath.normpath(name))
    return Digest(f"sha256:{match[1]}") if match else None


def _entry_fields(entry: Mapping[str, object]) -> tuple[str, list[str]]:
    config, layers = entry.get("Config"), entry.get("Layers")
    if not isinstance(config, str) or not isinstance(layers, list) or not all(isinstance(name, str) for name in layers):
        raise ImageError(f"{_MANIFEST} lacks a usable Config or Layers")
    return config, [str(name) for name in layers]


def _text(config: Mapping[str, object], key: str) -> str:
    value = config.get(key) or ""
    if not isinstance(value, str):
        raise ImageError(f"{key!r} in the config is not text")
    return value


def _check_diff_ids(config: Mapping[str, object], layers: tuple[Layer, ...]) -> None:
    rootfs = config.get("rootfs")
    claimed = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(claimed, list):
        raise ImageError("the config has no rootfs.diff_ids")
    if len(claimed) != len(layers):
        raise ImageError(f"the config names {len(claimed)} layers, {_MANIFEST} {len(layers)}")
    for number, (diff_id, layer) in enumerate(zip(claimed, layers, strict=True), start=1):
        if diff_id != layer.diff_id:
            raise ImageError(
                f"layer {number} has the bytes of {layer.diff_id}, but the config says {str(diff_id)[:80]}: "
                "the archive is damaged or was changed"
            )
