"""A simulated Nomad on loopback: its HTTP API, nodes that run tasks, and whatever happens to clusters.

It does what tests/fixtures/nomad-2.0.6 recorded of a real one, for jobs of one group and one task. It does not restart
or reschedule failed tasks (`Attempts` above 0), rotate logs, check ACL policies (a token may all or nothing), or keep
several regions and servers apart. Its scheduler works at once, where a real one takes its time.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.nomad_sim_client import Client
from tests.support.nomad_sim_http import Ask, RefusedError, Reply, close_sockets, serve
from tests.support.nomad_sim_routes import Routes
from tests.support.nomad_sim_rows import SECOND, Allocation, Job, Json, Node
from tests.support.nomad_sim_scheduler import Scheduler
from tests.support.nomad_sim_state import Clock, State
from tests.support.nomad_sim_tasks import Outcome, Process

MANAGEMENT: Json = {
    "AccessorID": "acce5500-0000-4000-8000-000000000001",
    "CreateIndex": 7,
    "Global": True,
    "Hash": "none",
    "ModifyIndex": 7,
    "Name": "Bootstrap Token",
    "Policies": None,
    "Type": "management",
}
SYSTEM = "x86_64-linux"
_TICK = 0.02


class NomadSim:
    """One simulated cluster. `outcome` says how each task runs; by default its command is really started."""

    def __init__(
        self,
        home: Path,
        *,
        ticking: bool = True,
        seed: int = 1,
        event_buffer: int = 100,
        outcome: Callable[[Allocation], Outcome] = lambda alloc: Process(),
    ) -> None:
        """`home` is an empty directory for its tasks; a clock that does not tick is moved by `clock.advance`."""
        self.clock = Clock(ticking=ticking)
        self.state = State(self.clock, seed, event_buffer)
        self.scheduler = Scheduler(self.state, self._placed, self._unwanted)
        self.clients: dict[str, Client] = {}
        self.outcome = outcome
        self.calls: list[str] = []
        self.tokens: dict[str, Json] = {}
        """Secret ids that may everything; with none, ACLs are off."""
        self.namespaces = {"default"}
        self.node_pools = {"default", "all"}
        self.heartbeat = 30 * SECOND
        self.node_patience = 10 * SECOND
        """How long a node may be silent before the servers give it up."""
        self.stream_silent = False
        self.overloaded = False
        """Every call is answered 429."""
        self.leaderless = False
        self.max_connections = 100
        self.connections = 0
        self.sockets: set[Any] = set()
        self.counting = threading.Lock()
        self.generation = 0
        """Counts the starts of the server: streams of an earlier one end."""
        self.port = 0
        self._home = home
        self._routes = Routes(self)
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add_node(
        self,
        name: str,
        *,
        meta: Json | None = None,
        attributes: Json | None = None,
        cpu: int = 4000,
        memory: int = 8000,
        **more: Any,
    ) -> Node:
        """A client joins; `more` are fields of `Node`."""
        known = {"kernel.name": "linux", "cpu.arch": "amd64", "unique.hostname": name, **(attributes or {})}
        own = {"nix_system": SYSTEM} if meta is None else meta
        with self.state.locked():
            node = Node(id=self.state.new_id(), name=name, meta=own, attributes=known, cpu=cpu, memory=memory, **more)
            self.state.nodes[node.id] = node
            self.clients[node.id] = Client(node, self.state, self.scheduler, self._home, self._outcome_of)
            self.state.commit("NodeRegistration", [node])
            self.scheduler.unblock()
        return node

    def answer(self, ask: Ask) -> Reply:
        """What an HTTP request is answered. Raises RefusedError."""
        if self.overloaded:
            raise RefusedError(429, "Too Many Requests")
        if self.leaderless and ask.query.get("stale") is None:
            raise RefusedError(500, "No cluster leader")
        return self._routes.answer(ask)

    # What happens to clients.

    def disconnect(self, name: str) -> None:
        """The servers do not hear a client any more; its tasks run on, and after a while it is given up."""
        with self.state.locked():
            client = self._client(name)
            client.heard = False
        self.clock.after(self.node_patience, lambda: self._silent(client))

    def reconnect(self, name: str) -> None:
        """The servers hear it again."""
        with self.state.locked():
            client = self._client(name)
            client.reconnect()
            self._ready(client)

    def power_off(self, name: str) -> None:
        """Its machine is gone with every task."""
        with self.state.locked():
            self._client(name).lose_tasks()
        self.disconnect(name)

    def power_on(self, name: str) -> None:
        """Its machine starts: tasks that should run are run again, in their allocations."""
        with self.state.locked():
            client = self._client(name)
            client.heard = True
            client.come_back()
            client.reconnect()
            self._ready(client)

    def begin_drain(self, node: Node, deadline: int) -> int:
        """Drain a node: what runs may end until the deadline (nanoseconds, below 0 for at once). State is locked."""
        node.drain = {"Deadline": deadline, "IgnoreSystemJobs": False}
        node.eligible = False
        index = self.state.commit("NodeDrain", [node])
        client = self.clients[node.id]
        if deadline < 0:
            self._drained(client)
        else:
            self.clock.after(deadline, lambda: self._drained(client))
        return index

    def end_drain(self, node: Node, *, eligible: bool) -> int:
        """Stop draining. State is locked."""
        node.drain, node.eligible = None, eligible
        index = self.state.commit("NodeDrain", [node])
        self.scheduler.unblock()
        return index

    # What happens to servers.

    def restart_server(self) -> None:
        """Its connections and streams break, and its buffer of events is empty: that is in memory alone."""
        with self.state.locked():
            self.generation += 1
            self.state.forget_events()
            self.clock.moved.notify_all()
        close_sockets(self)

    def collect(self) -> None:
        """Garbage collection of every dead job, with no threshold."""
        with self.state.locked():
            for job in [one for one in self.state.jobs.values() if one.status == "dead"]:
                if all(alloc.ended for alloc in self.state.allocs_of(job.namespace, job.id)):
                    self.forget(job)
                    for evaluation in self.state.evals_of(job.namespace, job.id):
                        del self.state.evals[evaluation.id]

    def forget(self, job: Job) -> None:
        """Take a job and its allocations away: clients end those, and no answer shows them. State is locked."""
        gone = self.state.allocs_of(job.namespace, job.id)
        del self.state.jobs[(job.namespace, job.id)]
        for alloc in gone:
            del self.state.allocs[alloc.id]
        for table in ("jobs", "allocs"):
            self.state.tables[table] = self.state.index
        for alloc in gone:
            client = self.clients[alloc.node_id]
            if client.heard and alloc.id in client.runs:
                client.kill(client.runs[alloc.id])

    def variable_changed(self) -> None:
        """Tasks that wait for a variable look again. State is locked."""
        for client in self.clients.values():
            for run in [one for one in client.runs.values() if one.status == "pending" and one.task is None]:
                client.prepare(run)

    def run_of(self, job_id: str) -> Any:
        """The newest run of a job's allocation, on whichever node."""
        found = [run for client in self.clients.values() for run in client.runs.values() if run.alloc.job.id == job_id]
        return max(found, key=lambda run: run.alloc.create_index)

    def start(self) -> None:
        """Begin to listen, and to tick."""
        server = self._server = serve(self)
        self.port = int(server.server_address[1])
        work = (lambda: server.serve_forever(0.02), self._tick)
        self._threads = [threading.Thread(target=one, daemon=True) for one in work]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop listening, and end every task."""
        self._stopped.set()
        self.restart_server()
        self._server.shutdown()
        for thread in self._threads:
            thread.join()
        self._server.server_close()
        with self.state.locked():
            for client in self.clients.values():
                client.heard = False
                client.lose_tasks()

    def _outcome_of(self, alloc: Allocation) -> Outcome:
        return self.outcome(alloc)

    def _tick(self) -> None:
        while not self._stopped.wait(_TICK):
            self.clock.advance(0)

    def _placed(self, alloc: Allocation) -> None:
        client = self.clients[alloc.node_id]
        if client.heard:
            client.receive(alloc)

    def _unwanted(self, alloc: Allocation) -> None:
        client = self.clients[alloc.node_id]
        if client.heard and alloc.id in client.runs:
            client.kill(client.runs[alloc.id])

    def _silent(self, client: Client) -> None:
        with self.state.locked():
            if client.heard:
                return
            held = [one for one in self.state.allocs.values() if one.node_id == client.node.id and not one.ended]
            waits = any((one.job.group["Disconnect"] or {}).get("LostAfter") for one in held)
            client.node.status = "disconnected" if waits else "down"
            self.state.commit("NodeEvent", [client.node])
            self.scheduler.node_changed(client.node)

    def _ready(self, client: Client) -> None:
        client.node.status = "ready"
        self.state.commit("NodeRegistration", [client.node])
        self.scheduler.node_changed(client.node)

    def _drained(self, client: Client) -> None:
        with self.state.locked():
            node = client.node
            if node.drain is None:
                return
            held = [one for one in self.state.allocs.values() if one.node_id == node.id and not one.ended]
            for alloc in held:
                # Nomad says so of batch jobs alone: they are stopped, and not placed again.
                alloc.transition = {"Migrate": True, "MigrateDisablePlacement": True}
            made = [
                self.scheduler.evaluate(job, "node-drain") for job in {one.job.id: one.job for one in held}.values()
            ]
            if made:
                self.state.commit("AllocationUpdateDesiredStatus", held, made)
            node.drain = None
            if node.last_drain is not None:
                node.last_drain = {**node.last_drain, "Status": "complete"}
            self.state.commit("NodeDrain", [node])
            self.scheduler.work()

    def _client(self, name: str) -> Client:
        return next(one for one in self.clients.values() if one.node.name == name)


@contextmanager
def simulated_nomad(
    home: Path,
    *,
    nodes: int = 1,
    ticking: bool = True,
    event_buffer: int = 100,
    outcome: Callable[[Allocation], Outcome] = lambda alloc: Process(),
) -> Iterator[NomadSim]:
    """A running simulated Nomad with nodes `client-1`, `client-2`… that are alike."""
    sim = NomadSim(home, ticking=ticking, event_buffer=event_buffer, outcome=outcome)
    for number in range(1, nodes + 1):
        sim.add_node(f"client-{number}")
    sim.start()
    try:
        yield sim
    finally:
        sim.close()
