"""Whether every destination of a push has a blob already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from albatros.cli.image_target import open_target
from albatros.domain.references import Blob, RegistryUrl
from albatros.errors import AlbatrosError
from albatros.registries.base import BlobOpener, Registry


class Everywhere:
    """Destinations and names that a push goes to; one that does not answer has nothing."""

    def __init__(self, registries: Sequence[Registry], names: Sequence[str]) -> None:
        self._registries = registries
        self._names = names

    def find(self, blob: Blob) -> BlobOpener | None:
        """An opener for the blob at one destination, when all have it under every name."""
        try:
            sizes = [
                registry.blob_size(name, blob.digest) == blob.size
                for registry in self._registries
                for name in self._names
            ]
        except AlbatrosError:
            return None
        return partial(self._registries[0].open_blob, self._names[0], blob) if sizes and all(sizes) else None


@contextmanager
def open_everywhere(destinations: Sequence[RegistryUrl], names: Sequence[str]) -> Iterator[Everywhere]:
    """Open all of them; where one cannot be opened, nothing is known to be there, and its own push says why."""
    with ExitStack() as stack:
        try:
            registries = [stack.enter_context(open_target(url)) for url in destinations]
        except AlbatrosError:
            registries = []
        yield Everywhere(registries, names)
