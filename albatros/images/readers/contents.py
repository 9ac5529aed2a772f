"""What an image archive holds, taken in one pass: layers are kept when they come by, small documents stay in memory.

Which of them count is said by a document that may come last. What a file is, its first bytes say.
"""

from __future__ import annotations

import posixpath
import re
import threading
from collections.abc import Mapping

from albatros.domain import media
from albatros.domain.references import Digest
from albatros.errors import ImageError, TooLargeError
from albatros.images.layers import Layer, LayerWriter
from albatros.images.streams import GZIP_MAGIC, ZSTD_MAGIC, BoundedReader, PeekReader, Reader, blocks, unpacked
from albatros.images.tarstream import RECORD, Member, MemberKind, looks_like_tar, safe_name

_MAX_DOCUMENTS = 32 << 20
_MAX_LINKS = 16
_HEX_DIGEST = re.compile(r"(?:^|/)([0-9a-f]{64})(?:/layer\.tar|\.tar)?$")


class Contents:
    """Kept layers, small documents and links, by name.

    Without a writer, layers are passed over; `promised` says the diff_id that a layer should have, by its name;
    `max_size` bounds the bytes of all layers unpacked.
    """

    def __init__(self, writer: LayerWriter | None, promised: Mapping[str, Digest], max_size: int) -> None:
        self._writer = writer
        self._max_size = max_size
        self._left = max_size
        self._promised = promised
        self._layers: dict[str, Layer] = {}
        self._documents: dict[str, bytes] = {}
        self._links: dict[str, str] = {}
        self._document_bytes = 0

    def take(self, member: Member, content: PeekReader) -> None:
        """Take in one member of the archive."""
        if member.kind in (MemberKind.SYMBOLIC_LINK, MemberKind.HARD_LINK):
            self._links[member.name] = member.target
        if member.kind is not MemberKind.FILE:
            return
        if member.name in self._layers or member.name in self._documents:
            raise ImageError(f"the archive holds {member.name!r} twice")
        head = content.peek(RECORD)
        if _is_layer(member.name, head):
            if self._writer is not None:
                self._layers[member.name] = self._keep_layer(self._writer, member.name, content)
        elif member.name.endswith(".json") or head.lstrip()[:1] in (b"{", b"["):
            self._take_document(member, content)

    def _keep_layer(self, writer: LayerWriter, name: str, content: PeekReader) -> Layer:
        bounded = BoundedReader(unpacked(content), self._left, threading.Event())
        try:
            return writer.write(blocks(bounded), self._promised.get(name) or _promised_diff_id(name))
        except TooLargeError as error:
            if bounded.left >= 0:
                raise
            raise TooLargeError(
                f"its layers unpack to more than {self._max_size} bytes; raise the limit if that is meant to be"
            ) from error
        finally:
            self._left = bounded.left

    def _take_document(self, member: Member, content: Reader) -> None:
        if member.size > media.MAX_MANIFEST:
            raise TooLargeError(
                f"{member.name!r} has {member.size} bytes; a manifest or config may have {media.MAX_MANIFEST}"
            )
        self._document_bytes += member.size
        if self._document_bytes > _MAX_DOCUMENTS:
            raise TooLargeError(f"the archive's JSON files have more than {_MAX_DOCUMENTS} bytes together")
        self._documents[member.name] = b"".join(blocks(content))

    def document(self, name: str) -> bytes | None:
        """A JSON file, along links; None when there is none of this name."""
        return self._documents.get(self.resolved(name))

    def layer(self, name: str) -> Layer | None:
        """A kept layer, along links; None when there is none of this name."""
        return self._layers.get(self.resolved(name))

    def resolved(self, name: str) -> str:
        """Where a name leads. Raises ImageError for links in circles and names outside the archive."""
        name = safe_name(name)
        for _ in range(_MAX_LINKS):
            if name not in self._links:
                return name
            name = self._links[name]
        raise ImageError(f"the links of the archive lead in circles at {name!r}")


def _is_layer(name: str, head: bytes) -> bool:
    packed = head.startswith((GZIP_MAGIC, ZSTD_MAGIC))
    return looks_like_tar(head) or packed or (not head and name.endswith(".tar"))


def _promised_diff_id(name: str) -> Digest | None:
    """Layered archives name a layer after its diff_id, `<hex>/layer.tar`; others use such names for something else."""
    match = _HEX_DIGEST.search(posixpath.normpath(name))
    return Digest(f"sha256:{match[1]}") if match else None
