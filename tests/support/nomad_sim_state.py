"""The simulated Nomad's state store: numbered transactions, blocking reads, a bounded buffer of events, and a clock."""

import heapq
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tests.support.nomad_sim_rows import SECOND, Allocation, Evaluation, Job, Json, Node, Row

_START = 1_790_000_000 * SECOND


class Clock:
    """The time of the simulated Nomad: it stands until a test moves it, unless it ticks along with the real one."""

    def __init__(self, *, ticking: bool) -> None:
        self.lock = threading.RLock()
        self.moved = threading.Condition(self.lock)
        self._ticking = ticking
        self._began = time.monotonic_ns()
        self._ahead = 0
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def now(self) -> int:
        """Nanoseconds of the epoch."""
        return _START + self._ahead + (time.monotonic_ns() - self._began if self._ticking else 0)

    def after(self, duration: int, do: Callable[[], None]) -> None:
        """Call this when so many nanoseconds have passed; never under a lock of its caller's own."""
        with self.lock:
            self._count += 1
            heapq.heappush(self._timers, (self.now() + duration, self._count, do))

    def advance(self, seconds: float) -> None:
        """Move on, stopping at each moment for which something is due."""
        with self.lock:
            target = self.now() + int(seconds * SECOND)
            while self._timers and self._timers[0][0] <= target:
                due, _, do = heapq.heappop(self._timers)
                self._ahead += max(0, due - self.now())
                do()
            self._ahead += max(0, target - self.now())
            self.moved.notify_all()

    def wait(self, until: Callable[[], bool], deadline: int) -> bool:
        """Wait for something that `moved` tells of, or for a time of this clock; whether it came. Holds `lock`."""
        while not until():
            left = deadline - self.now()
            if left <= 0:
                return False
            # What ticks is woken by a thread of its own, but a test may have stopped that.
            self.moved.wait(min(left / SECOND, 0.5) if self._ticking else 0.5)
        return True


class State:
    """All rows. `clock.lock` guards everything; `clock.moved` tells of each transaction."""

    def __init__(self, clock: Clock, seed: int, event_buffer: int) -> None:
        self.clock = clock
        self.index = 10
        self.jobs: dict[tuple[str, str], Job] = {}
        self.evals: dict[str, Evaluation] = {}
        self.allocs: dict[str, Allocation] = {}
        self.nodes: dict[str, Node] = {}
        self.variables: dict[tuple[str, str], Json] = {}
        self.tables = {"jobs": 0, "evals": 0, "allocs": 0, "nodes": 1, "variables": 1}
        self.events: deque[tuple[int, int, list[Json]]] = deque(maxlen=event_buffer)
        """Serial number, index and events of each transaction that a stream can still tell."""
        self.published = 0
        self._random = random.Random(seed)

    @contextmanager
    def locked(self) -> Iterator[None]:
        with self.clock.lock:
            yield

    def new_id(self) -> str:
        """A UUID, the same in each run."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def commit(self, kind: str, *groups: Sequence[Row]) -> int:
        """One transaction that made or changed these rows; each group is a line of the event stream."""
        self.index += 1
        now = self.clock.now()
        for group in groups:
            for row in group:
                row.touch(self.index, now)
                self.tables[row.table] = self.index
            if group:
                self._publish([self._event(kind, row) for row in group])
        self.clock.moved.notify_all()
        return self.index

    def commit_table(self, table: str) -> int:
        """One transaction that took rows away, or changed variables: it has no event here."""
        self.index += 1
        self.tables[table] = self.index
        self.clock.moved.notify_all()
        return self.index

    def forget_events(self) -> None:
        """What a restart of a server does to the buffer, which is in memory alone."""
        with self.locked():
            self.events.clear()

    def allocs_of(self, namespace: str, job_id: str) -> list[Allocation]:
        """A job's allocations, oldest first."""
        return [one for one in self.allocs.values() if (one.namespace, one.job.id) == (namespace, job_id)]

    def evals_of(self, namespace: str, job_id: str) -> list[Evaluation]:
        """A job's evaluations, by id as Nomad lists them."""
        found = [one for one in self.evals.values() if (one.namespace, one.job_id) == (namespace, job_id)]
        return sorted(found, key=lambda one: one.id)

    def summary_of(self, job: Job) -> Json:
        """How many of a job's allocations are in which state."""
        counts = dict.fromkeys(("Complete", "Failed", "Lost", "Queued", "Running", "Starting", "Unknown"), 0)
        words = {"pending": "Starting"}
        for alloc in self.allocs_of(job.namespace, job.id):
            counts[words.get(alloc.client_status, alloc.client_status.capitalize())] += 1
        blocked = any(one.status == "blocked" for one in self.evals_of(job.namespace, job.id))
        counts["Queued"] = int(blocked)
        children = [one for one in self.jobs.values() if one.spec["ParentID"] == job.id]
        states = [one.status for one in children]
        return {
            "Children": {word.capitalize(): states.count(word) for word in ("dead", "pending", "running")},
            "CreateIndex": job.create_index,
            "JobID": job.id,
            "ModifyIndex": job.modify_index,
            "Namespace": job.namespace,
            "Summary": {} if job.parameterized else {job.group["Name"]: counts},
        }

    def _event(self, kind: str, row: Row) -> Json:
        return {
            "FilterKeys": row.filter_keys(),
            "Index": self.index,
            "Key": row.id,
            "Namespace": "" if row.topic == "Node" else row.namespace,
            "Payload": {row.topic: row.document()},
            "Topic": row.topic,
            "Type": kind,
        }

    def _publish(self, events: list[Json]) -> None:
        self.published += 1
        self.events.append((self.published, self.index, events))
