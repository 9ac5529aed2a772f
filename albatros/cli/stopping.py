"""How a command that runs for long is asked to end."""

from __future__ import annotations

import signal
import threading
from types import FrameType


def stop_event() -> threading.Event:
    """An event that the first SIGINT or SIGTERM sets; the second one acts as it does by default."""
    stop = threading.Event()

    def once(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    signal.signal(signal.SIGINT, once)
    signal.signal(signal.SIGTERM, once)
    return stop
