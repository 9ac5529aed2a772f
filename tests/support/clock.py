"""A clock that a test moves, in place of the computer's: what a busy machine does meanwhile takes no time."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

import pytest

from albatros.db import session


@dataclass
class Clock:
    """The one true time, and how far the server that acts now is ahead of it."""

    time: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    ahead: timedelta = timedelta(0)

    def now(self, zone: tzinfo | None = None) -> datetime:
        """In place of `datetime.now`."""
        return (self.time + self.ahead).astimezone(zone)

    def monotonic(self) -> float:
        """In place of `time.monotonic`; no server's clock moves it."""
        return (self.time - Clock.time).total_seconds()

    def sleep(self, seconds: float) -> None:
        """In place of `time.sleep`."""
        self.time += timedelta(seconds=seconds)


def stopped_clock(patches: pytest.MonkeyPatch) -> Clock:
    """The clock behind every `now()` of server and test, which stands still from here on."""
    clock = Clock(datetime.now(UTC))
    patches.setattr(session, "datetime", clock)
    return clock
