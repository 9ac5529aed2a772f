"""What Nomad has of ours: one consumer of its events, which lists everything again whenever it may have missed some.

Events are kept by each server in memory, a hundred transactions of them; a stream may be silent and dead, or begin too
late. So the stream is opened first, then everything is listed, and again every half minute; what comes from both is
ordered by its ModifyIndex.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from albatros.errors import ConfigError, ExecutorError, ExecutorUnavailableError
from albatros.executors.nomad_api import NomadApi
from albatros.executors.nomad_job import ATTEMPT, INSTALLATION, PREFIX, SYSTEM
from albatros.executors.nomad_json import Document, number, rows, text, within
from albatros.executors.nomad_words import Allocation, Node, newest, read_allocation, read_node, wait_of
from albatros.log import get_logger

log = get_logger(__name__)
RELIST_SECONDS = 29.0
"""Looked at with each event or heartbeat, which come every 30 s at least."""
LONGEST_PAUSE = 30.0
MOST_DOUBLINGS = 5


@dataclass(frozen=True, slots=True)
class JobView:
    """One job of ours: its newest allocation, and why it has none."""

    system: str
    allocation: Allocation | None = None
    waits: str = ""
    dead: bool = False
    doubtful: bool = False
    """It was stopped, and may be gone: whoever wants to know has to ask."""
    modify_index: int = 0
    """Of the newest of its evaluations."""

    @property
    def running(self) -> bool:
        """Whether its task was started, and is not over."""
        return self.allocation is not None and self.allocation.running

    @property
    def waiting(self) -> bool:
        """Whether its task may start later."""
        return not self.dead and (self.allocation is None or self.allocation.client_status == "pending")


@dataclass(frozen=True, slots=True)
class Load:
    """Jobs of one system: those that run, those that do not yet, and how many of these Nomad has no place for."""

    running: int
    waiting: int
    blocked: int


class Cluster:
    """What is known of Nomad's side. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, JobView] = {}
        self._nodes: dict[str, Node] = {}
        self._known = False

    @property
    def known(self) -> bool:
        """Whether it was listed, and its events have been followed since."""
        return self._known

    def lose_sight(self) -> None:
        """From now on nothing is known until the next listing."""
        self._known = False

    def replace(self, jobs: Mapping[str, JobView], nodes: Iterable[Node]) -> None:
        """Take a full listing for the truth."""
        with self._lock:
            self._jobs = dict(jobs)
            self._nodes = {node.id: node for node in nodes}
            self._known = True

    def nodes(self) -> list[Node]:
        """Every node, also those that take no work now."""
        with self._lock:
            return list(self._nodes.values())

    def view(self, attempt_id: str) -> JobView | None:
        """The job of an Attempt, None when nothing is known of it."""
        with self._lock:
            return self._jobs.get(attempt_id)

    def put(self, attempt_id: str, view: JobView) -> JobView:
        """Note what was asked about one job, unless an event told more meanwhile; what is known now."""
        with self._lock:
            known = self._jobs.get(attempt_id)
            if known is not None and _is_newer(known.allocation, view.allocation):
                view = replace(view, allocation=known.allocation)
            self._jobs[attempt_id] = view
            return view

    def add(self, attempt_id: str, system: str) -> None:
        """Note a job that was just registered."""
        with self._lock:
            self._jobs.setdefault(attempt_id, JobView(system))

    def end(self, attempt_id: str) -> None:
        """Note that a job was stopped."""
        with self._lock:
            if attempt_id in self._jobs:
                self._jobs[attempt_id] = replace(self._jobs[attempt_id], dead=True)

    def alive(self) -> frozenset[str]:
        """Attempts whose jobs are not dead."""
        with self._lock:
            return frozenset(name for name, view in self._jobs.items() if not view.dead)

    def loads(self) -> dict[str, Load]:
        """How much there is of each system; evaluations are those of the system ''."""
        running, waiting, blocked = Counter[str](), Counter[str](), Counter[str]()
        with self._lock:
            views = list(self._jobs.values())
        for view in views:
            if not view.dead:
                running[view.system] += view.running
                waiting[view.system] += view.waiting
                blocked[view.system] += bool(view.waits)
        return {name: Load(running[name], waiting[name], blocked[name]) for name in running.keys() | waiting.keys()}

    def doubt(self, attempt_id: str) -> None:
        """A job was stopped, and may be gone: of one that was purged nothing more is told."""
        with self._lock:
            if attempt_id in self._jobs:
                self._jobs[attempt_id] = replace(self._jobs[attempt_id], doubtful=True)

    def see_job(self, attempt_id: str, system: str, *, dead: bool) -> None:
        """A job as an event shows it; one that is dead stays so."""
        with self._lock:
            view = self._jobs.get(attempt_id)
            if view is not None:
                self._jobs[attempt_id] = replace(view, dead=view.dead or dead)
            elif not dead:
                self._jobs[attempt_id] = JobView(system)

    def see_allocation(self, attempt_id: str, allocation: Allocation) -> None:
        """An allocation as an event shows it, if it is newer than what is known."""
        with self._lock:
            view = self._jobs.get(attempt_id)
            if view is None:
                return
            if _is_newer(allocation, view.allocation):
                self._jobs[attempt_id] = replace(view, allocation=allocation, waits="")

    def see_evaluation(self, attempt_id: str, index: int, waits: str) -> None:
        """Why a job has no place, as an evaluation shows it."""
        with self._lock:
            view = self._jobs.get(attempt_id)
            if view is not None and view.allocation is None and index >= view.modify_index:
                self._jobs[attempt_id] = replace(view, waits=waits, modify_index=index)

    def see_node(self, node: Node) -> None:
        """A node as an event shows it."""
        with self._lock:
            known = self._nodes.get(node.id)
            if known is None or node.modify_index >= known.modify_index:
                self._nodes[node.id] = node


def _is_newer(one: Allocation | None, other: Allocation | None) -> bool:
    if one is None or other is None:
        return other is None and one is not None
    return (one.create_index, one.modify_index) > (other.create_index, other.modify_index)


class Watcher:
    """A thread that keeps a `Cluster` like Nomad."""

    def __init__(
        self, nomad: NomadApi, cluster: Cluster, installation: str, without_acl: bool, on_change: Callable[[], None]
    ) -> None:
        """`installation` marks our jobs among others'; `on_change` is called when something of them changed."""
        self._nomad = nomad
        self._cluster = cluster
        self._installation = installation
        self._without_acl = without_acl
        self._on_change = on_change
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nomad-events", daemon=True)
        self._starting = threading.Lock()
        self._index = 0
        """What was listed last is of this index: an older event of a job is old news."""

    def ensure_started(self) -> None:
        """Begin, unless it has begun."""
        with self._starting:
            if self._thread.ident is None:
                self._thread.start()

    def stop(self) -> None:
        """End soon: the thread may be waiting for an event."""
        self._stopping.set()

    def check_acl(self) -> None:
        """Raise ConfigError when Nomad lets everybody do everything and the settings do not allow that."""
        if not self._without_acl and not self._nomad.has_acl():
            raise ConfigError(
                "Nomad has its ACLs off: whoever reaches it reads every token and runs what he likes on every node; "
                "turn them on, or set nomad.without_acl = true"
            )

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._follow()
            except (ExecutorError, ConfigError) as error:
                if not self._stopping.is_set():
                    log.warning("Nomad cannot be followed; it is tried again", error=error.detail)
            except Exception:
                log.exception("following Nomad failed; it is tried again")
            self._cluster.lose_sight()
            failures = 0 if time.monotonic() - began > LONGEST_PAUSE else failures + 1
            self._stopping.wait(min(2.0 ** min(failures, MOST_DOUBLINGS), LONGEST_PAUSE))

    def _follow(self) -> None:
        self.check_acl()
        with self._nomad.events() as stream:
            self._list()
            listed = time.monotonic()
            for document in stream:
                if self._stopping.is_set():
                    return
                if self._apply(document):
                    self._on_change()
                if time.monotonic() - listed > RELIST_SECONDS:
                    self._list()
                    listed = time.monotonic()
        raise ExecutorUnavailableError("the stream of events ended")

    def _list(self) -> None:
        known = {node.id: node for node in self._cluster.nodes()}
        nodes = [self._node(row, known.get(text(row, "ID"))) for row in self._nomad.nodes()]
        index, jobs = self._nomad.jobs(PREFIX, dead=False)
        ours = map(self._ours, (job for job in jobs if not is_over(job)))
        views = {attempt_id: JobView(system) for attempt_id, system in ours if attempt_id}
        found: dict[str, list[Allocation]] = {}
        for row in self._nomad.open_allocations(PREFIX):
            found.setdefault(text(row, "JobID").removeprefix(PREFIX), []).append(read_allocation(row))
        for row in self._nomad.blocked_evaluations(PREFIX):
            attempt_id = text(row, "JobID").removeprefix(PREFIX)
            if attempt_id in views:
                views[attempt_id] = replace(
                    views[attempt_id], waits=wait_of(row), modify_index=number(row, "ModifyIndex")
                )
        for attempt_id, view in views.items():
            allocation = newest(found.get(attempt_id, []))
            if allocation is not None:
                views[attempt_id] = replace(view, allocation=allocation, waits="")
        self._cluster.replace(views, nodes)
        self._index = index
        self._on_change()

    def _node(self, row: Document, known: Node | None) -> Node:
        """A node with its meta, asked for again only when the node changed."""
        if known is not None and known.modify_index == number(row, "ModifyIndex"):
            return known
        return read_node(self._nomad.node(text(row, "ID")))

    def _see_job(self, kind: str, job: Document) -> bool:
        attempt_id, system = self._ours(job)
        if not attempt_id:
            return False
        self._cluster.see_job(attempt_id, system, dead=is_over(job))
        if kind == "JobDeregistered":
            self._cluster.doubt(attempt_id)
        return True

    def _ours(self, job: Document) -> tuple[str, str]:
        """The Attempt and the system of a job of ours; empty for another's."""
        meta = within(job, "Meta")
        if text(meta, INSTALLATION) != self._installation or text(job, "ID") != PREFIX + text(meta, ATTEMPT):
            return "", ""
        return text(meta, ATTEMPT), text(meta, SYSTEM)

    def _apply(self, document: Document) -> bool:
        """Take in what came at once; whether something of it was about ours."""
        return sum(self._see(event) for event in rows(document.get("Events"))) > 0

    def _see(self, event: Document) -> bool:
        """Take one event in; whether it was about something of ours."""
        topic = text(event, "Topic")
        payload = within(event, "Payload", topic)
        if topic == "Node":
            self._cluster.see_node(read_node(payload))
            return True
        if topic == "Job":
            return number(event, "Index") > self._index and self._see_job(text(event, "Type"), payload)
        job_id = text(payload, "JobID")
        if not job_id.startswith(PREFIX):
            return False
        attempt_id = job_id.removeprefix(PREFIX)
        if topic == "Allocation":
            self._cluster.see_allocation(attempt_id, read_allocation(payload))
        elif topic == "Evaluation":
            self._cluster.see_evaluation(attempt_id, number(payload, "ModifyIndex"), wait_of(payload))
        return True


def is_over(job: Document) -> bool:
    """Whether nothing of a job will begin any more. One that was stopped on a silent node does not become dead."""
    return text(job, "Status") == "dead" or job.get("Stop") is True
