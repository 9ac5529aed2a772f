"""Trying again: backoff with jitter, `Retry-After`, and one gate per host that every thread waits at."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPMessage
from typing import TypeVar

from albatros.errors import RegistryUnavailableError
from albatros.log import get_logger

_log = get_logger(__name__)
Result = TypeVar("Result")
_UNIX_TIMES = 1_000_000_000
"""Larger numbers of seconds are moments since 1970."""


class TryAgainError(RegistryUnavailableError):
    """A request failed in a way that passes; `retry_after` is the host's own wish in seconds, if it has one."""

    def __init__(self, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long: `tries` in all, pauses in seconds that double from `first_pause` up to `longest_pause`.

    A host that wishes a pause over `longest_wish` seconds is left at once: the caller has a queue for such times.
    """

    tries: int = 6
    first_pause: float = 0.5
    longest_pause: float = 20.0
    longest_wish: float = 120.0
    sleep: Callable[[float], None] = time.sleep

    def pause(self, attempt: int, wish: float | None) -> float:
        """Seconds to wait after try number `attempt` (from 1), at least as long as the host wishes."""
        backoff = min(self.longest_pause, self.first_pause * 2.0 ** (attempt - 1))
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients over time, protects nothing
        return max(backoff * jitter, (wish or 0.0) * (1 + 0.1 * jitter))


class HostGate:
    """Bounds the requests under way to one host, and holds all of them back when the host asks for a pause."""

    def __init__(self, policy: RetryPolicy, parallel: int) -> None:
        self._policy = policy
        self._slots = threading.BoundedSemaphore(parallel)
        self._lock = threading.Lock()
        self._closed_until = 0.0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """One request's place."""
        with self._slots:
            with self._lock:
                wait = self._closed_until - time.monotonic()
            if wait > 0:
                self._policy.sleep(wait)
            yield

    def run(self, work: Callable[[int], Result]) -> Result:
        """Call `work(attempt)`, from 1, until it returns. Raises the last TryAgainError, or at once any other error."""
        for attempt in range(1, self._policy.tries):
            try:
                return work(attempt)
            except TryAgainError as error:
                wish = error.retry_after
                if wish is not None and wish > self._policy.longest_wish:
                    raise
                pause = self._policy.pause(attempt, wish)
                if wish is not None:
                    with self._lock:
                        self._closed_until = max(self._closed_until, time.monotonic() + wish)
                _log.info("registry request is tried again", attempt=attempt, pause=round(pause, 2), cause=error.detail)
                self._policy.sleep(pause)
        return work(self._policy.tries)


def parse_retry_after(value: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for (RFC 9110, 10.2.3); None when it is missing or unreadable."""
    if value is None:
        return None
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def wished_pause(headers: HTTPMessage) -> float | None:
    """Seconds that an answer asks for: `Retry-After`, else when its rate limit begins anew; None when it says nothing.

    RateLimit-Reset counts seconds (IETF draft "RateLimit header fields"); GitHub's X-RateLimit-Reset and Docker Hub's
    X-Retry-After name the moment in Unix time.
    """
    wish = parse_retry_after(headers.get("Retry-After"))
    for name in ("RateLimit-Reset", "X-RateLimit-Reset", "X-Retry-After"):
        told = headers.get(name, "")
        if wish is None and told.isascii() and told.isdigit() and len(told) < 12:
            wish = max(0.0, int(told) - time.time()) if int(told) > _UNIX_TIMES else float(told)
    return wish
