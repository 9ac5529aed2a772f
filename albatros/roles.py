"""The loops of a server. Each claims work, runs one flow, and sleeps until it is woken.

A loop never dies of an error: it says what happened and goes on, more slowly the more often it happens.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from types import MappingProxyType

from albatros.db.session import Database
from albatros.db.signals import Signals, Topic
from albatros.domain.states import AttemptState, Reason
from albatros.errors import DatabaseUnavailableError, ExecutorError, ExecutorUnavailableError, StoreError
from albatros.executors.base import Executor, RunnerEnded, RunnerNews, RunnerPlaced, RunnerUnseen
from albatros.flows import attempts, plan, settle
from albatros.flows.assemble import Assembler
from albatros.flows.dispatch import Dispatcher
from albatros.flows.publish import Publisher, Push
from albatros.flows.script_images import ScriptImages
from albatros.images.publish import Observer
from albatros.log import get_logger
from albatros.settings import ForgeSettings, LimitSettings, ShutdownMode

log = get_logger(__name__)
LONGEST_PAUSE = 30.0
MOST_DOUBLINGS = 5
REST = 20
"""Seconds that a loop rests for each second of processor time, while somebody waits for an answer."""
LONGEST_REST = 0.25
RENEW_SECONDS = 30.0
HAND_BACK_SECONDS = 20.0
LEFT_OVER_SECONDS = 30.0
DRAIN_PAUSE = 0.1


class Role(StrEnum):
    """What a server process does; `serve --roles` names them."""

    WEB = "web"
    SCHEDULER = "scheduler"
    PUBLISHER = "publisher"


class Loop:
    """A thread that calls `step` while it has work, then sleeps until `topic` is notified or `idle` seconds passed.

    While `is_busy` says that somebody waits for an answer, it rests after each step, so that it takes a small part of
    the interpreter only, however often it is woken.
    """

    def __init__(
        self,
        name: str,
        signals: Signals,
        topic: str,
        step: Callable[[], bool],
        idle: float,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._signals = signals
        self._topic = topic
        self._step = step
        self._idle = idle
        self._is_busy = is_busy
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the loop to end after its current step."""
        self._stopping.set()
        self._signals.notify(self._topic)

    def join(self, timeout: float) -> bool:
        """Wait for the end, at most `timeout` seconds; True when it came, or when it never began."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            seen = self._signals.seen(self._topic)
            began = time.thread_time()
            try:
                busy = self._step()
                failures = 0
            except (DatabaseUnavailableError, StoreError) as error:
                failures += 1
                log.error("a step cannot be done now and is tried again", loop=self._thread.name, error=error.detail)
                busy = False
            except Exception:
                failures += 1
                log.exception("a step failed and is tried again", loop=self._thread.name)
                busy = False
            if failures:
                self._stopping.wait(min(2.0 ** min(failures, MOST_DOUBLINGS), LONGEST_PAUSE))
                continue
            if self._is_busy():
                self._stopping.wait(min((time.thread_time() - began) * REST, LONGEST_REST))
            if not busy:
                self._signals.wait(self._topic, seen, self._idle)


class Scheduler:
    """Plans, dispatches, and hears of runners that ended or fell silent."""

    def __init__(
        self,
        database: Database,
        signals: Signals,
        dispatcher: Dispatcher,
        executor: Executor,
        limits: LimitSettings,
        forges: Mapping[str, ForgeSettings] = MappingProxyType({}),
    ) -> None:
        self._database = database
        self._signals = signals
        self._dispatcher = dispatcher
        self._executor = executor
        self._limits = limits
        self._forges = forges
        self._told_to_stop: set[str] = set()
        self._news: deque[RunnerNews] = deque()
        self._left_over: dict[str, float] = {}

    def step(self) -> bool:
        """One round; True when there may be more to do at once."""
        # First, since a person waits for it; what the rest of the round makes ready is sent in the next one.
        started = self._dispatcher.dispatch_due()
        self._dispatcher.start_again()
        planned = plan.plan_due(self._database, self._signals, self._limits, self._forges)
        ended = self._note_news()
        expired = settle.expire_leases(self._database, self._signals, self._limits)
        self._stop_unwanted()
        self._kill_left_over()
        return bool(planned or expired or started or ended)

    def drain(self, mode: ShutdownMode) -> None:
        """Start nothing new; have running Attempts handed back, or wait for them, while `step` goes on being called.

        Those of a shared executor go on: another server, or the next start, hears of them.
        """
        self._dispatcher.pause()
        if self._executor.shared:
            return
        try:
            self._drain(mode)
        except DatabaseUnavailableError as error:
            log.error("running attempts go on, to be adopted at the next start", error=error.detail)

    def _drain(self, mode: ShutdownMode) -> None:
        deadline = math.inf
        if mode is ShutdownMode.HAND_BACK:
            attempts.hand_back(self._database, self._executor.name)
            self._signals.notify(Topic.SCHEDULER)
            deadline = time.monotonic() + HAND_BACK_SECONDS
        while left := attempts.running(self._database, self._executor.name):
            if time.monotonic() > deadline:
                self._kill(left)
                return
            time.sleep(DRAIN_PAUSE)

    def _kill(self, left: Collection[str]) -> None:
        for attempt_id in left:
            try:
                self._executor.stop(attempt_id, kill=True)
            except ExecutorError as error:
                log.error("a runner could not be killed", attempt=attempt_id, error=error.detail)
            message = "handed back: its runner did not end in time and was killed"
            settle.close_attempt(
                self._database, self._signals, self._limits, attempt_id, AttemptState.HANDED_BACK, None, message
            )

    def _note_news(self) -> int:
        """Take note of runners that were placed or ended, without losing one; how many ended."""
        self._news += self._executor.poll(attempts.running(self._database, self._executor.name))
        placed = {news.attempt_id: news for news in self._news if isinstance(news, RunnerPlaced)}
        if placed:
            attempts.note_placements(self._database, self._signals, placed)
        unseen = [news.attempt_id for news in self._news if isinstance(news, RunnerUnseen)]
        if unseen:
            settle.give_time(self._database, unseen)
        noted = 0
        while self._news:
            if isinstance(news := self._news[0], RunnerEnded):
                self._note_end(news)
                noted += 1
            self._news.popleft()
        return noted

    def _note_end(self, runner: RunnerEnded) -> None:
        """A runner that reported has a closed Attempt; for one that died before it could, this speaks."""
        state = AttemptState.LOST if runner.reason is Reason.NODE_LOST else AttemptState.FAILED
        settle.close_attempt(
            self._database, self._signals, self._limits, runner.attempt_id, state, runner.reason, runner.detail
        )

    def _stop_unwanted(self) -> None:
        """A heartbeat would tell the runner too, up to a third of a lease later."""
        unwanted = attempts.unwanted(self._database, self._executor.name)
        self._told_to_stop &= unwanted
        for attempt_id in unwanted - self._told_to_stop:
            try:
                self._executor.stop(attempt_id, kill=False)
            except ExecutorUnavailableError as error:
                log.warning("a runner could not be told to stop", attempt=attempt_id, error=error.detail)
                return
            self._told_to_stop.add(attempt_id)

    def _kill_left_over(self) -> None:
        """A runner ends itself when it hears that its Attempt is closed; one that cannot must not keep its slot."""
        at = time.monotonic()
        closed = self._executor.alive() - attempts.running(self._database, self._executor.name).keys()
        self._left_over = {attempt_id: self._left_over.get(attempt_id, at) for attempt_id in closed}
        for attempt_id, since in self._left_over.items():
            if at - since > LEFT_OVER_SECONDS:
                log.warning("a runner outlived its attempt and is killed", attempt=attempt_id)
                try:
                    self._executor.stop(attempt_id, kill=True)
                except ExecutorUnavailableError as error:
                    log.warning("a runner could not be killed now", attempt=attempt_id, error=error.detail)
                    return


class PublisherRole:
    """Assembles images and pushes them, to each registry one after the other; several loops may share one.

    With more loops than registries, one that hangs holds up neither the others nor the assembling.
    """

    def __init__(
        self, assembler: Assembler, script_images: ScriptImages, publisher: Publisher, observe: Observer
    ) -> None:
        self._assembler = assembler
        self._script_images = script_images
        self._publisher = publisher
        self._observe = observe
        self._claiming = threading.Lock()
        self._busy: set[str] = set()

    def step(self) -> bool:
        """Do what is due first; True when something was."""
        build = self._assembler.claim()
        if build is not None:
            with _renewing(lambda: self._assembler.renew(build)):
                self._assembler.assemble(build)
            return True
        request = self._script_images.claim()
        if request is not None:
            with _renewing(lambda: self._script_images.renew(request)):
                self._script_images.make(request)
            return True
        push = self._claim()
        if push is None:
            return False
        try:
            with _renewing(lambda: self._publisher.renew(push)):
                self._publisher.push(push, self._observe)
        finally:
            with self._claiming:
                self._busy.remove(push.first.registry_name)
        return True

    def _claim(self) -> Push | None:
        with self._claiming:
            push = self._publisher.claim(self._busy)
            if push is not None:
                self._busy.add(push.first.registry_name)
        return push


@contextmanager
def _renewing(renew: Callable[[], bool]) -> Iterator[None]:
    """Renew a lease in the background for as long as the block runs."""
    done = threading.Event()

    def keep() -> None:
        while not done.wait(RENEW_SECONDS):
            try:
                if not renew():
                    log.warning("a lease was lost: the work was taken over")
                    return
            except DatabaseUnavailableError as error:
                log.warning("a lease could not be renewed", error=error.detail)

    thread = threading.Thread(target=keep, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def stop_all(loops: Sequence[Loop], timeout: float) -> bool:
    """Ask every loop to end and wait for them, each at most `timeout` seconds; False when one did not."""
    for loop in loops:
        loop.stop()
    return [loop for loop in loops if not loop.join(timeout)] == []
