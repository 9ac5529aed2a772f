"""Keeps the lease by heartbeats, and tells the Job when the server says stop or has let the Attempt go."""

import os
import signal
import sys
import threading
from types import FrameType

from albatros.runner.children import Children
from albatros.runner.failure import EXIT_LOST, JobFailedError, LeaseLostError, Reason
from albatros.runner.protocol import Server

STOPS = {str(reason): reason for reason in (Reason.CANCELLED, Reason.SUPERSEDED, Reason.HANDBACK)}


class Lease:
    """A thread that sends a heartbeat three times a lease."""

    def __init__(self, server: Server, children: Children) -> None:
        self._server = server
        self._children = children
        self._wake = threading.Event()
        self._asked_to_end = False
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        """Begin; and take SIGTERM and SIGINT as a wish to end, whose reason the server is asked for."""
        signal.signal(signal.SIGTERM, self._signalled)
        signal.signal(signal.SIGINT, self._signalled)
        self._thread.start()

    def _signalled(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signal module's signature
        self._asked_to_end = True
        self._wake.set()

    def _run(self) -> None:
        try:
            while True:
                self._wake.wait(self._server.lease_seconds / 3)
                self._wake.clear()
                if self._asked_to_end:
                    # An executor that ends us without a word wants the Attempt back.
                    self._children.stop(STOPS.get(self._server.heartbeat().stop or "", Reason.HANDBACK))
                    self._asked_to_end = False
                    continue
                stop = self._server.heartbeat().stop
                if stop is not None:
                    self._children.stop(STOPS.get(stop, Reason.CANCELLED))
        except (LeaseLostError, JobFailedError) as error:
            print(f"albatros-runner: {error} Ending.", file=sys.stderr, flush=True)
            self._children.kill_all()
            # The main thread may be in the middle of anything; nothing that it could still do is wanted.
            os._exit(EXIT_LOST)
