"""At most one upload of each Attempt is under way: what is being sent counts nowhere yet, so two could pass its limit.

A newer one ends the older, which a runner that lost its connection has given up. Used on the event loop alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from anyio import CancelScope

from albatros.errors import OverloadedError


class Uploads:
    """The uploads of one server process."""

    def __init__(self) -> None:
        self._running: dict[str, CancelScope] = {}

    @contextmanager
    def only(self, attempt_id: str) -> Iterator[None]:
        """Run the block as this Attempt's one upload. Raises OverloadedError when a newer one takes its place.

        That error asks the runner to try again: of two requests, the one sent last may be seen first.
        """
        older = self._running.get(attempt_id)
        if older is not None:
            older.cancel()
        with CancelScope() as scope:
            self._running[attempt_id] = scope
            try:
                yield
            finally:
                if self._running.get(attempt_id) is scope:
                    del self._running[attempt_id]
        if scope.cancelled_caught:
            raise OverloadedError(f"another upload of attempt {attempt_id} came meanwhile; send this one again")
