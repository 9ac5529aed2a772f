"""Whether every destination of a push has a blob already.

Only saves work, so nobody waits for long: a destination that is slow or does not answer is taken to have nothing, and
what comes of it is said by its own push.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from functools import partial

from albatros.cli.image_target import open_target
from albatros.domain.references import Blob, RegistryUrl
from albatros.errors import AlbatrosError
from albatros.registries.base import BlobOpener, Registry
from albatros.registries.retry import RetryPolicy

_PATIENCE_SECONDS = 5.0
_ASKED_AT_ONCE = 32
"""Questions under way; those to a host that is silent end when the connection does."""


class Everywhere:
    """Destinations and names that a push goes to. Once one did not answer, nothing is found any more."""

    def __init__(self, registries: Sequence[Registry], names: Sequence[str], pool: ThreadPoolExecutor) -> None:
        self._registries = registries
        self._names = names
        self._pool = pool
        self._answering = bool(registries)

    def find(self, blob: Blob) -> BlobOpener | None:
        """An opener for the blob at one destination, when all have it under every name."""
        if not self._answering:
            return None
        asked = [
            self._pool.submit(registry.blob_size, name, blob.digest)
            for registry in self._registries
            for name in self._names
        ]
        answers, late = wait(asked, _PATIENCE_SECONDS, FIRST_EXCEPTION)
        try:
            there = all(answer.result() == blob.size for answer in answers)
        except AlbatrosError:
            self._answering = False
            return None
        if late:
            self._answering = False
        return partial(self._registries[0].open_blob, self._names[0], blob) if there and not late else None


@contextmanager
def open_everywhere(destinations: Sequence[RegistryUrl], names: Sequence[str]) -> Iterator[Everywhere]:
    """Open all of them; where one cannot be opened, nothing is known to be there, and its own push says why."""
    pool = ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="there")
    with ExitStack() as stack:
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        try:
            registries = [stack.enter_context(open_target(url, RetryPolicy(tries=1))) for url in destinations]
        except AlbatrosError:
            registries = []
        yield Everywhere(registries, names, pool)
