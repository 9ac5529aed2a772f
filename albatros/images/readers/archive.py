"""An image archive of either kind, told apart by what is in it; many have both `manifest.json` and `index.json`."""

from __future__ import annotations

from collections.abc import Mapping

from albatros.domain.references import Digest
from albatros.errors import ImageError, TooLargeError
from albatros.images.base import Source
from albatros.images.layers import LayerWriter
from albatros.images.readers.contents import Contents
from albatros.images.readers.docker_archive import MANIFEST, docker_parts, promised_layers
from albatros.images.readers.oci_layout import INDEX, layout_parts
from albatros.images.readers.parts import ImageParts
from albatros.images.streams import PeekReader, Reader
from albatros.images.tarstream import TarStream


def read_archive(
    raw: Reader, source: Source, writer: LayerWriter, max_size: int, promised: Mapping[str, Digest]
) -> list[ImageParts]:
    """Read the images of a docker-archive or an OCI layout in one pass. Raises ImageError or TooLargeError.

    `max_size` bounds the bytes of its layers unpacked; `promised` are diff_ids by the layers' names: hints for the
    writer's cache, not believed.
    """
    contents = _take(raw, Contents(writer, promised, max_size))
    if contents.document(MANIFEST) is not None:
        return [docker_parts(contents, source)]
    if contents.document(INDEX) is not None:
        return layout_parts(contents, source)
    raise ImageError(f"it has neither {MANIFEST} nor {INDEX}, so it is no docker-archive and no OCI layout")


def look_ahead(raw: Reader) -> dict[str, Digest]:
    """What the archive promises of its layers, which are passed over; nothing where it cannot be read.

    Archives of `dockerTools.buildImage` name layers after something else, and say their diff_ids behind them.
    """
    try:
        return promised_layers(_take(raw, Contents(None, {}, 0)))
    except (ImageError, TooLargeError):
        return {}


def _take(raw: Reader, contents: Contents) -> Contents:
    archive = TarStream(raw)
    for member in archive:
        contents.take(member, PeekReader(archive))
    return contents
