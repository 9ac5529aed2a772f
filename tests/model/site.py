"""Servers on one database, each of which can die or be overtaken at any moment, and the runners that call them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar, cast

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from albatros.db.session import Database
from albatros.db.signals import Signals
from albatros.errors import ConflictError, GoneError
from albatros.flows import attempts
from albatros.flows.dispatch import Dispatcher
from albatros.flows.recover import recover
from albatros.forges.base import Forge
from albatros.roles import Scheduler
from albatros.settings import Settings, ShutdownMode
from tests.model.cluster import SYSTEM, Cluster, ClusterExecutor, Process
from tests.support.clock import Clock
from tests.support.flows import KEY, CloneForge, package, settings_of
from tests.support.stores import MemoryStore

T = TypeVar("T")
REFUSED = (ConflictError, GoneError)


class KilledError(BaseException):
    """The server's process ends here; nothing of ours catches it."""


class UnreachableError(Exception):
    """A runner got no answer."""


@dataclass
class Moments:
    """Counts the moments of a call, and lets something happen at one of them: the server dies, or others act."""

    left: int | None = None
    then: Callable[[], None] | None = None

    def arm(self, moment: int | None, then: Callable[[], None] | None = None) -> None:
        self.left, self.then = moment, then

    def pass_by(self, *, inside: bool = False) -> None:
        """`inside` a transaction nobody else can act on SQLite: they do at the next moment."""
        if self.left is None:
            return
        if self.left > 0 or (inside and self.then is not None):
            self.left = max(0, self.left - 1)
            return
        then, self.left = self.then, None
        if then is None:
            raise KilledError
        then()


class WatchedDatabase(Database):
    """Each transaction has three moments: before it, before its commit, and after."""

    def __init__(self, engine: Engine, moments: Moments) -> None:
        super().__init__(engine)
        self._moments = moments
        self.commits = 0

    @contextmanager
    def write(self) -> Iterator[Session]:
        self._moments.pass_by()
        with super().write() as session:
            yield session
            self._moments.pass_by(inside=True)
        self.commits += 1
        self._moments.pass_by()


@dataclass
class Server:
    """One server process after another, on one machine."""

    name: str
    cluster: Cluster
    executor_name: str
    database: WatchedDatabase
    moments: Moments
    shared: bool
    ahead: timedelta = timedelta(0)
    scheduler: Scheduler | None = None
    """None while no process runs."""


@dataclass
class Site:
    """Two servers that share a cluster, or have a machine each."""

    engine: Engine
    data: Path
    clock: Clock
    servers: list[Server] = field(default_factory=list)
    signals: Signals = field(default_factory=Signals)
    store: MemoryStore = field(default_factory=MemoryStore)
    orders_given: dict[str, set[str]] = field(default_factory=dict)
    """Nonces of the processes that were told what to do, by Attempt."""
    results_taken: dict[str, set[str]] = field(default_factory=dict)
    """Nonces of the processes whose result was taken, by Attempt."""
    results_refused: set[tuple[str, str]] = field(default_factory=set)
    """Attempts and nonces of the processes whose result was turned away."""

    def __post_init__(self) -> None:
        limits = {"attempts": 2, "lease_seconds": 30}
        self.settings: Settings = settings_of(self.data, registries=[], limits=limits)
        self.forges = cast("Mapping[str, Forge]", {"home": CloneForge()})

    def found(self, *, shared: bool, slots: int, enforce_index: bool) -> None:
        """Two machines, with a server process on each."""
        common = Cluster(slots, queue=1, enforce_index=enforce_index)
        for name in ("a", "b"):
            moments = Moments()
            cluster = common if shared else Cluster(slots, queue=0, enforce_index=enforce_index)
            executor_name = "shared" if shared else f"local:{name}"
            database = WatchedDatabase(self.engine, moments)
            self.servers.append(Server(name, cluster, executor_name, database, moments, shared=shared))
        for server in self.servers:
            self.start(server)

    @property
    def clusters(self) -> list[Cluster]:
        return list({id(server.cluster): server.cluster for server in self.servers}.values())

    @property
    def processes(self) -> list[Process]:
        """Runners that run."""
        for cluster in self.clusters:
            cluster.place()
        return [process for cluster in self.clusters for process in cluster.processes if not process.ended]

    def start(self, server: Server, moment: int | None = None) -> None:
        """A new server process, which takes up what the one before left."""
        executor = ClusterExecutor(server.executor_name, server.cluster, server.moments.pass_by, shared=server.shared)
        alive = None if server.shared else executor.alive()
        limits = self.settings.limits
        dispatcher = Dispatcher(server.database, self.signals, executor, limits, KEY, "http://127.0.0.1:1")
        server.scheduler = Scheduler(server.database, self.signals, dispatcher, executor, limits)
        self.act(server, lambda: recover(server.database, limits, executor.name, alive, server.name), moment)

    def act(
        self, server: Server, action: Callable[[], T], moment: int | None = None, then: Callable[[], None] | None = None
    ) -> T | None:
        """Have a server do something; it may die on the way, or `then` may happen meanwhile. None when it died."""
        ahead, self.clock.ahead = self.clock.ahead, server.ahead
        server.moments.arm(moment, then)
        try:
            return action()
        except KilledError:
            server.scheduler = None
            return None
        finally:
            server.moments.arm(None)
            self.clock.ahead = ahead

    def step(self, server: Server, moment: int | None = None, then: Callable[[], None] | None = None) -> bool:
        """A round of its scheduler."""
        return bool(server.scheduler and self.act(server, server.scheduler.step, moment, then))

    def drain(self, server: Server) -> None:
        """Stop it as Ctrl-C does."""
        if server.scheduler is not None:
            scheduler = server.scheduler
            self.act(server, lambda: scheduler.drain(ShutdownMode.HAND_BACK))
            server.scheduler = None

    def _call(self, server: Server, action: Callable[[], T], moment: int | None) -> T:
        """What a runner gets from a server. Raises UnreachableError when the server died before it could answer."""
        if server.scheduler is None:
            raise UnreachableError
        answers: list[T] = []
        self.act(server, lambda: answers.append(action()), moment)
        if server.scheduler is None:
            raise UnreachableError
        return answers[0]

    def claim(self, process: Process, server: Server, moment: int | None = None) -> None:
        """Ask for the order; whoever is turned away ends."""

        def action() -> dict[str, object]:
            return attempts.claim(
                server.database, self.signals, self.settings, self.forges, process.token, process.nonce, "a-host"
            )

        with self._runner(process):
            process.order = self._call(server, action, moment)
            process.heard_at = self.clock.time
            self.orders_given.setdefault(process.attempt_id, set()).add(process.nonce)

    def heartbeat(self, process: Process, server: Server, moment: int | None = None) -> None:
        """Renew the lease; one that is told to stop reports that next."""
        lease = self.settings.limits.lease_seconds

        def action() -> str | None:
            return attempts.heartbeat(server.database, process.token, process.nonce, lease)

        with self._runner(process):
            stop = self._call(server, action, moment)
            process.heard_at = self.clock.time
            if stop is not None and process.report is None:
                self.finish(process, {"outcome": "failed", "reason": stop})

    def finish(self, process: Process, report: Mapping[str, object]) -> None:
        """The work is over: from now on it tells the server so."""
        process.report = {"nonce": process.nonce, "message": "", "outputs": [], **report}

    def report(self, process: Process, server: Server, moment: int | None = None) -> None:
        """Say how it ended, and end when that was heard."""
        body = process.report or {}

        def action() -> None:
            attempts.report_result(server.database, self.store, self.signals, self.settings, process.token, body)

        with self._runner(process):
            try:
                self._call(server, action, moment)
            except REFUSED:
                self.results_refused.add((process.attempt_id, process.nonce))
                raise
            self.results_taken.setdefault(process.attempt_id, set()).add(process.nonce)
            process.ended = True

    @contextmanager
    def _runner(self, process: Process) -> Iterator[None]:
        try:
            yield
        except UnreachableError:
            pass
        except REFUSED:
            process.ended = True


def success(process: Process, *, packages: int, supersede: bool) -> dict[str, object]:
    """What a runner reports that did what it was told; an evaluation: so many packages, each needs the two before."""
    order = process.order or {}
    if order["kind"] != "evaluation":
        return {"outcome": "succeeded", "reason": None}
    names = [f"p{number}" for number in range(packages)]
    needs = [names[number - 2 : number] if number > 1 else [] for number in range(packages)]
    attributes = [package(name, *need, system=SYSTEM) for name, need in zip(names, needs, strict=True)]
    config = f"[on]\nsupersede = {str(supersede).lower()}\n"
    evaluation = {"config": config, "commit_time": 1, "attributes": attributes}
    return {"outcome": "succeeded", "reason": None, "evaluation": evaluation}
