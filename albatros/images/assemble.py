"""From sources to one Image: each source is read once, several at a time; everything lands in the sink as a blob.

Equal sources and options give an equal index digest: nothing of the clock, the machine or the order of work enters it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from albatros.domain import media
from albatros.domain.platforms import Platform
from albatros.errors import AlbatrosError, ImageError, UsageError
from albatros.images.base import BlobSink, LayerCache, Source
from albatros.images.layers import Compression, LayerWriter
from albatros.images.model import Descriptor, Image, PlatformManifest, canonical_json
from albatros.images.readers.binary import ELF_MAGIC, read_binary
from albatros.images.readers.docker_archive import read_docker_archive
from albatros.images.readers.parts import ImageParts
from albatros.images.streams import BoundedReader, PeekReader, StoppedError, unpacked

ANNOTATION_PREFIX = "org.opencontainers.image."
ANNOTATIONS = ("source", "revision", "version", "licenses")
"""The annotations of the OCI image spec (annotations.md) that an Image carries beside `created`."""
DEFAULT_MAX_SIZE = 16 << 30


@dataclass(frozen=True, slots=True)
class AssembleOptions:
    """How an Image is made.

    `annotations` have the short names of ANNOTATIONS; `created` is the commit's time, else the newest that a source
    gives; `max_size` bounds the unpacked bytes of one source; `threads` sources are read at once (0: one a processor).
    """

    annotations: Mapping[str, str] = field(default_factory=dict)
    created: datetime | None = None
    compression: Compression = Compression.GZIP
    max_size: int = DEFAULT_MAX_SIZE
    threads: int = 0


def assemble(sources: Sequence[Source], sink: BlobSink, cache: LayerCache, options: AssembleOptions) -> Image:
    """Make one Image of all sources and keep its blobs, index and manifests included, in `sink`.

    Raises ImageError or TooLargeError, whose text begins with the source's label, and what the sink raises.
    """
    if not sources:
        raise ImageError("there is no source to make an image of")
    parts = _read_all(sources, LayerWriter(sink, cache, options.compression), options)
    _refuse_duplicates(sources, parts)
    created = _rfc3339(options.created or max(_moment(part.created) for part in parts))
    annotations = _annotations(options.annotations, created)
    manifests = tuple(_manifest(part, sink, created, annotations) for part in parts)
    image = Image.build(manifests, annotations)
    for data in (*(manifest.manifest_bytes for manifest in image.manifests), image.index_bytes):
        sink.put((data,))
    return image


def _read_all(sources: Sequence[Source], writer: LayerWriter, options: AssembleOptions) -> list[ImageParts]:
    stop = threading.Event()
    threads = min(len(sources), options.threads or os.cpu_count() or 1)

    def read(source: Source) -> ImageParts:
        try:
            return _read(source, writer, options.max_size, stop)
        except AlbatrosError as error:
            stop.set()
            raise type(error)(f"{source.label}: {error.detail}") from error
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(threads, thread_name_prefix="assemble") as pool:
        futures = [pool.submit(read, source) for source in sources]
    failures = [error for error in (future.exception() for future in futures) if error is not None]
    if failures:
        raise next((error for error in failures if not isinstance(error, StoppedError)), failures[0])
    return [future.result() for future in futures]


def _read(source: Source, writer: LayerWriter, max_size: int, stop: threading.Event) -> ImageParts:
    with source.open() as raw:
        stream = PeekReader(BoundedReader(unpacked(raw), max_size, stop))
        if stream.peek(len(ELF_MAGIC)) == ELF_MAGIC:
            return read_binary(stream, source, writer)
        return read_docker_archive(stream, source, writer)


def _refuse_duplicates(sources: Sequence[Source], parts: Sequence[ImageParts]) -> None:
    seen: dict[Platform, Source] = {}
    for source, part in zip(sources, parts, strict=True):
        other = seen.setdefault(part.platform, source)
        if other is not source:
            raise ImageError(
                f"{other.label} and {source.label} are both for {part.platform}; an image has one of each, drop one"
            )


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
