"""Wakes the loops of this process when a transaction made work for them; a lost wake-up costs one poll, never work."""

from __future__ import annotations

import threading
from collections import defaultdict
from enum import StrEnum


class Topic(StrEnum):
    """What there may be work for."""

    SCHEDULER = "scheduler"
    PUBLISHER = "publisher"
    REPORTER = "reporter"
    RECONCILER = "reconciler"
    WATCHERS = "watchers"


class Signals:
    """A counter a topic: `wait` returns as soon as somebody called `notify` since the caller's last look."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._counts: dict[str, int] = defaultdict(int)

    def notify(self, *topics: str) -> None:
        """Wake everyone who waits for one of `topics`; call it after the commit."""
        with self._changed:
            for topic in topics:
                self._counts[topic] += 1
            self._changed.notify_all()

    def seen(self, topic: str) -> int:
        """The topic's count now, to be passed to `wait` after looking for work."""
        with self._changed:
            return self._counts[topic]

    def wait(self, topic: str, seen: int, timeout: float) -> bool:
        """Sleep until the topic's count differs from `seen`, at most `timeout` seconds; True when it does."""
        with self._changed:
            return self._changed.wait_for(lambda: self._counts[topic] != seen, timeout)
