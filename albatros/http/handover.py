"""What another thread has done is handed to the event loop together.

`asyncio.wrap_future` wakes the loop once for each future, by a byte through a socket, while the other thread still has
the rest of a batch to tell: the two then take the interpreter's lock from each other for every single one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Handover(Generic[T]):
    """One event loop's waiters for futures that other threads end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ended: deque[tuple[asyncio.Future[T], Future[T]]] = deque()
        self._awake = False

    async def wait(self, future: Future[T], seconds: float) -> T:
        """The future's result, or what it raised. Raises TimeoutError; what has not begun by then is cancelled."""
        waiter: asyncio.Future[T] = self._loop.create_future()
        future.add_done_callback(lambda ended: self._hand_over(waiter, ended))
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        finally:
            future.cancel()

    def _hand_over(self, waiter: asyncio.Future[T], future: Future[T]) -> None:
        """Called in any thread."""
        self._ended.append((waiter, future))
        if self._awake or self._loop.is_closed():
            return
        self._awake = True
        self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        # Before the first is taken: whoever adds one after the last look wakes the loop again.
        self._awake = False
        while self._ended:
            waiter, future = self._ended.popleft()
            if waiter.done() or future.cancelled():
                continue
            error = future.exception()
            if error is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(future.result())
