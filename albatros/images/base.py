"""What images are made of and kept in: sources, blobs by digest, the cache of compressed layers.

A sink hashes what it is given itself; nobody hands it a digest to believe.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from albatros.domain.platforms import PlatformHints
from albatros.domain.references import Blob, Digest


class BlobSource(Protocol):
    """Blobs that can be read by digest."""

    def open(self, digest: Digest) -> AbstractContextManager[BinaryIO]:
        """Open a blob's bytes from their start; every call opens anew. Raises NotFoundError or StoreError."""

    def size(self, digest: Digest) -> int | None:
        """A blob's size in bytes; None when it is not there."""


class BlobSink(BlobSource, Protocol):
    """Blobs that can also be written; safe to call from several threads."""

    def put(self, chunks: Iterable[bytes]) -> Blob:
        """Keep the bytes of `chunks` as they come, hashed in passing; when iteration raises, nothing is kept."""


class LayerCache(Protocol):
    """Which compressed blob a layer gave earlier, per Repo: saves the deflate, never the hash."""

    def lookup(self, diff_id: Digest, codec: str, /) -> Blob | None:
        """The blob that this layer became under this codec, if it is remembered."""

    def store(self, diff_id: Digest, codec: str, blob: Blob, /) -> None:
        """Remember what a layer became."""


class NullLayerCache:
    """Remembers nothing."""

    def lookup(self, _diff_id: Digest, _codec: str, /) -> Blob | None:
        """Nothing is known."""
        return None

    def store(self, _diff_id: Digest, _codec: str, _blob: Blob, /) -> None:
        """Forget it."""


class SourceMemory(Protocol):
    """What sources were read as earlier, per Repo or user: saves hashing and compression of bytes that are known."""

    def recall(self, digest: Digest, how: str, /) -> str | None:
        """What was remembered, if the layers are still there."""

    def remember(self, digest: Digest, how: str, parts: str, layers: Collection[Blob], /) -> None:
        """Remember what a source was read as, and the layers that it became."""


class NullSourceMemory:
    """Remembers nothing."""

    def recall(self, _digest: Digest, _how: str, /) -> str | None:
        """Nothing is known."""
        return None

    def remember(self, _digest: Digest, _how: str, _parts: str, _layers: Collection[Blob], /) -> None:
        """Forget it."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input of an image: a docker-archive, an OCI layout, or a static binary; which of them its first bytes say.

    `label` names it in errors (a flake attribute or a file), `size` is in bytes (None: not known beforehand, archives
    only), `entrypoint` is where a binary goes in the image, such as `/bin/hello`; `reopens`: may be read twice;
    `digest` stands for these very bytes, where that is known without reading them: their own, checked before, or one of
    where a file is and when it was changed.
    """

    label: str
    open: Callable[[], AbstractContextManager[BinaryIO]]
    size: int | None = None
    hints: PlatformHints = field(default_factory=PlatformHints)
    entrypoint: str = "/bin/app"
    reopens: bool = True
    digest: Digest | None = None
