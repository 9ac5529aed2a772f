"""A small image of two platforms."""

from albatros.images.assemble import AssembleOptions, assemble
from albatros.images.base import BlobSink, NullLayerCache
from albatros.images.model import Image
from tests.support.archives import Archive, elf, layer, source


def make_image(sink: BlobSink, text: bytes = b"hello") -> Image:
    """amd64 from a binary, arm from an archive."""
    archive = Archive([layer(hello=text * 3000)], {"architecture": "arm", "os": "linux"})
    sources = [source(elf("amd64", payload=text)), source(archive.tar())]
    return assemble(sources, sink, NullLayerCache(), AssembleOptions())
