"""Pauses between tries, and the gate that holds a whole host's requests back."""

import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from albatros.errors import RegistryError
from albatros.registries.retry import HostGate, RetryPolicy, TryAgainError, parse_retry_after


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("9" * 30, None),
    ],
)
def test_seconds(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value) == seconds


def test_dates() -> None:
    soon = parse_retry_after(format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True))
    assert soon is not None
    assert 3600 < soon <= 7200
    assert parse_retry_after("Thu, 01 Jan 1970 00:00:00 GMT") == 0


def test_pauses_double_up_to_their_bound_and_spread() -> None:
    policy = RetryPolicy(first_pause=1, longest_pause=4)
    for attempt, longest in ((1, 1), (2, 2), (3, 4), (9, 4)):
        pauses = {policy.pause(attempt, None) for _ in range(50)}
        assert longest / 2 <= min(pauses) < max(pauses) <= longest


def test_a_wish_is_never_undercut() -> None:
    assert all(10 <= RetryPolicy().pause(1, 10) <= 12 for _ in range(50))


def test_only_what_passes_is_tried_again() -> None:
    tries: list[int] = []

    def work(attempt: int) -> str:
        tries.append(attempt)
        if attempt < 3:
            raise TryAgainError("not yet")
        return "done"

    gate = HostGate(RetryPolicy(sleep=lambda _: None), parallel=1)
    assert gate.run(work) == "done"
    assert tries == [1, 2, 3]

    def refused(attempt: int) -> None:
        tries.append(attempt)
        raise RegistryError("no")

    with pytest.raises(RegistryError):
        gate.run(refused)
    assert tries == [1, 2, 3, 1]


def test_a_wish_of_one_request_holds_the_others_back() -> None:
    slept: list[float] = []
    gate = HostGate(RetryPolicy(tries=2, sleep=slept.append), parallel=2)

    def limited(attempt: int) -> None:
        if attempt == 1:
            raise TryAgainError("slow down", retry_after=100)

    gate.run(limited)
    slept.clear()
    with gate.slot():
        pass
    assert len(slept) == 1
    assert 50 < slept[0] <= 100


def test_a_host_has_so_many_requests_and_no_more() -> None:
    gate = HostGate(RetryPolicy(), parallel=2)
    lock, under_way, most = threading.Lock(), 0, 0
    full = threading.Barrier(2, timeout=60)

    def request() -> None:
        nonlocal under_way, most
        with gate.slot():
            with lock:
                under_way += 1
                most = max(most, under_way)
            full.wait()
            with lock:
                under_way -= 1

    threads = [threading.Thread(target=request) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2
