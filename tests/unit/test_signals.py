"""Waking the loops: a signal between the look and the wait is not lost."""

import threading

from albatros.db.signals import Signals, Topic


def test_a_wake_up_after_the_look_is_seen() -> None:
    signals = Signals()
    seen = signals.seen(Topic.SCHEDULER)
    signals.notify(Topic.SCHEDULER)
    assert signals.wait(Topic.SCHEDULER, seen, timeout=60)


def test_a_wake_up_before_the_look_is_not_seen_again() -> None:
    signals = Signals()
    signals.notify(Topic.SCHEDULER)
    assert not signals.wait(Topic.SCHEDULER, signals.seen(Topic.SCHEDULER), timeout=0)


def test_topics_do_not_wake_each_other() -> None:
    signals = Signals()
    seen = signals.seen(Topic.REPORTER)
    signals.notify(Topic.SCHEDULER, Topic.PUBLISHER)
    assert not signals.wait(Topic.REPORTER, seen, timeout=0)


def test_everybody_who_waits_is_woken() -> None:
    signals = Signals()
    woken: list[bool] = []
    started = threading.Barrier(4)

    def wait() -> None:
        seen = signals.seen(Topic.WATCHERS)
        started.wait()
        woken.append(signals.wait(Topic.WATCHERS, seen, timeout=60))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    started.wait()
    signals.notify(Topic.WATCHERS)
    for thread in threads:
        thread.join()
    assert woken == [True, True, True]
