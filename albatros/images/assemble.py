"""From sources to one Image: each source is read once, several at a time; everything lands in the sink as a blob.

Equal sources and options give an equal index digest: nothing of the clock, the machine or the order of work enters it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import BinaryIO

from albatros.domain import media
from albatros.domain.platforms import Platform
from albatros.domain.references import Digest
from albatros.errors import AlbatrosError, ImageError, UsageError
from albatros.images.base import BlobSink, LayerCache, NullLayerCache, NullSourceMemory, Source, SourceMemory
from albatros.images.layers import Compression, LayerWriter
from albatros.images.model import Descriptor, Image, PlatformManifest, canonical_json
from albatros.images.readers import script
from albatros.images.readers.archive import look_ahead, read_archive
from albatros.images.readers.binary import ELF_MAGIC, read_binary
from albatros.images.readers.parts import ImageParts
from albatros.images.remembered import read_remembered
from albatros.images.streams import BoundedReader, PeekReader, StoppedError, unpacked
from albatros.images.tarstream import RECORD, looks_like_tar

ANNOTATION_PREFIX = "org.opencontainers.image."
ANNOTATIONS = ("source", "revision", "version", "licenses")
"""The annotations of the OCI image spec (annotations.md) that an Image carries beside `created`."""
DEFAULT_MAX_SIZE = 16 << 30
_FORGETFUL = NullSourceMemory()


@dataclass(frozen=True, slots=True)
class AssembleOptions:
    """How an Image is made.

    `annotations` have the short names of ANNOTATIONS; `created` is the commit's time, else the newest that a source
    gives; `max_size` bounds the unpacked bytes of one source; `threads` sources are read at once (0: one a processor);
    `made` hears the label of the source that a platform came from.
    """

    annotations: Mapping[str, str] = field(default_factory=dict)
    created: datetime | None = None
    compression: Compression = Compression.GZIP
    max_size: int = DEFAULT_MAX_SIZE
    threads: int = 0
    made: Callable[[str, Platform], None] = lambda _label, _platform: None


def assemble(
    sources: Sequence[Source],
    sink: BlobSink,
    cache: LayerCache,
    options: AssembleOptions,
    memory: SourceMemory = _FORGETFUL,
) -> Image:
    """Make one Image of all sources and keep its blobs, index and manifests included, in `sink`.

    A source with a digest that `memory` knows is not read again.

    Raises ImageError or TooLargeError, whose text begins with the source's label, and what the sink raises.
    """
    if not sources:
        raise ImageError("there is no source to make an image of")
    with closing(LayerWriter(sink, cache, options.compression)) as writer:
        read = _read_all(sources, _SourceReader(sink, cache, memory, options, writer), options.threads)
    _refuse_duplicates(sources, read)
    for source, found in zip(sources, read, strict=True):
        for part in found:
            options.made(source.label, part.platform)
    parts = [part for found in read for part in found]
    created = _rfc3339(options.created or max(_moment(part.created) for part in parts))
    annotations = _annotations(options.annotations, created)
    manifests = tuple(_manifest(part, sink, created, annotations) for part in parts)
    image = Image.build(manifests, annotations)
    for data in (*(manifest.manifest_bytes for manifest in image.manifests), image.index_bytes):
        sink.put((data,))
    return image


class _SourceReader:
    """Reads sources in several threads; the first that fails stops the others."""

    def __init__(
        self, sink: BlobSink, cache: LayerCache, memory: SourceMemory, options: AssembleOptions, writer: LayerWriter
    ) -> None:
        self._sink = sink
        self._memory = memory
        self._codec = options.compression.codec
        self._writer = writer
        self._remembers = not isinstance(cache, NullLayerCache)
        self._max_size = options.max_size
        self._stop = threading.Event()

    def read(self, source: Source) -> list[ImageParts]:
        try:
            return read_remembered(source, self._codec, self._sink, self._memory, self._read)
        except AlbatrosError as error:
            self._stop.set()
            raise type(error)(f"{source.label}: {error.detail}") from error
        except BaseException:
            self._stop.set()
            raise

    def _read(self, source: Source) -> list[ImageParts]:
        with source.open() as raw:
            stream = self._unpacked(raw)
            head = stream.peek(script.HEAD)
            if head.startswith(ELF_MAGIC):
                return [read_binary(stream, source, self._writer)]
            if head.startswith(script.MAGIC):
                raise script.refused(source.label)
            if not looks_like_tar(head[:RECORD]):
                raise ImageError("it is not a tar archive, nor a program (ELF)")
            return read_archive(stream, source, self._writer, self._max_size, self._promised(source))

    def _promised(self, source: Source) -> dict[str, Digest]:
        """Unpacking a second time costs far less than the compression that it may save."""
        if not self._remembers or not source.reopens:
            return {}
        with source.open() as raw:
            return look_ahead(self._unpacked(raw))

    def _unpacked(self, raw: BinaryIO) -> PeekReader:
        return PeekReader(BoundedReader(unpacked(raw), self._max_size, self._stop))


def _read_all(sources: Sequence[Source], reader: _SourceReader, threads: int) -> list[list[ImageParts]]:
    with ThreadPoolExecutor(min(len(sources), threads or os.cpu_count() or 1), thread_name_prefix="assemble") as pool:
        futures = [pool.submit(reader.read, source) for source in sources]
    failures = [error for error in (future.exception() for future in futures) if error is not None]
    if failures:
        raise next((error for error in failures if not isinstance(error, StoppedError)), failures[0])
    return [future.result() for future in futures]


def _refuse_duplicates(sources: Sequence[Source], read: Sequence[Sequence[ImageParts]]) -> None:
    seen: dict[Platform, str] = {}
    for source, parts in zip(sources, read, strict=True):
        for part in parts:
            if part.platform in seen:
                raise ImageError(
                    f"{seen[part.platform]} and {source.label} are both for {part.platform}; "
                    "an image has one of each, drop one"
                )
            seen[part.platform] = source.label


def _manifest(part: ImageParts, sink: BlobSink, created: str, annotations: Mapping[str, str]) -> PlatformManifest:
    data = canonical_json(part.finished_config(created), f"the config of {part.platform}")
    config = sink.put((data,))
    descriptor = Descriptor(media.CONFIG, config.digest, config.size)
    return PlatformManifest.build(
        part.platform, descriptor, tuple(layer.descriptor for layer in part.layers), annotations
    )


def _annotations(given: Mapping[str, str], created: str) -> dict[str, str]:
    unknown = set(given) - set(ANNOTATIONS)
    if unknown:
        raise UsageError(f"{min(unknown)!r} is not an annotation of an image; known are {', '.join(ANNOTATIONS)}")
    named = {**given, "created": created}
    return {f"{ANNOTATION_PREFIX}{key}": value for key, value in named.items() if value}


_NO_MOMENT = datetime.min.replace(tzinfo=UTC)


def _moment(text: str) -> datetime:
    """A config's `created` (RFC 3339); the least moment for none or an unreadable one."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _NO_MOMENT
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _rfc3339(moment: datetime) -> str:
    return "" if moment == _NO_MOMENT else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
