"""The lease: three heartbeats in the time of one, whatever the server says that is."""

import threading
from typing import cast

import pytest

from albatros.runner.children import Children
from albatros.runner.failure import LeaseLostError
from albatros.runner.lease import Lease
from albatros.runner.protocol import Beat, Server


class EndedError(Exception):
    """In place of the end of the process."""


class FakeServer:
    """Says that the lease is another, then that it is lost."""

    lease_seconds = 30.0

    def heartbeat(self) -> Beat:
        if self.lease_seconds == 90:
            raise LeaseLostError("The Attempt is closed.")
        self.lease_seconds = 90
        return Beat(90, None)


class FakeChildren:
    killed = False

    def kill_all(self) -> None:
        self.killed = True


def test_a_heartbeat_comes_three_times_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float | None] = []

    class Wake(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout)
            return False

    def end(_status: int) -> None:
        raise EndedError

    children = FakeChildren()
    lease = Lease(cast("Server", FakeServer()), cast("Children", children))
    monkeypatch.setattr(lease, "_wake", Wake())
    monkeypatch.setattr("albatros.runner.lease.os._exit", end)
    with pytest.raises(EndedError):
        lease._run()
    assert pauses == [10, 30]
    assert children.killed
