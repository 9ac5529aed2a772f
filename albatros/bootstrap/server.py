"""A server: everything it is made of, wired, started and ended in order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from albatros import __version__
from albatros.bootstrap.adapters import (
    ServerExecutor,
    ServerIdentity,
    build_builder,
    build_executor,
    build_forge,
    build_hooks,
    build_logins,
    open_store,
    registry_opener,
)
from albatros.bootstrap.data import lock_data, new_id, shared_keys
from albatros.db.logs import seal_finished
from albatros.db.migrate import prepare
from albatros.db.session import Database, connect
from albatros.db.shared_keys import check_store
from albatros.db.signals import Signals, Topic
from albatros.db.writer import Writer
from albatros.errors import ConfigError
from albatros.executors.builder_base import Builder
from albatros.flows.assemble import Assembler
from albatros.flows.builders import BuilderFollower
from albatros.flows.collect import collect
from albatros.flows.dispatch import Dispatcher
from albatros.flows.proofs import signing_key
from albatros.flows.publish import Publisher
from albatros.flows.reconcile import reconcile
from albatros.flows.recover import Recovered, recover
from albatros.flows.report import deliver_one
from albatros.flows.schedule import run_due
from albatros.flows.script_images import ScriptImages
from albatros.forges.base import ForgeAdapter
from albatros.http.app import create_app
from albatros.http.deps import AppContext, RunnerBundle
from albatros.http.serving import WebServer, bind
from albatros.http.sessions import secret_file
from albatros.images.publish import Observer, ignore
from albatros.log import get_logger, register_secrets
from albatros.roles import Loop, PublisherRole, Role, Scheduler, stop_all
from albatros.runner.bundle import build_bundle
from albatros.settings import ExecutorKind, NomadDriver, Settings
from albatros.store.base import BlobStore

log = get_logger(__name__)
MOST_PUBLISHERS = 8
REPORTERS = 2
STOP_SECONDS = 30.0
IDLE_SECONDS = 5.0
SCHEDULER_IDLE_SECONDS = 1.0
RECONCILE_SECONDS = 600.0
SEAL_SECONDS = 30.0
SCHEDULE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Bundle:
    content: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class _Parts:
    """Everything a server is made of."""

    settings: Settings
    database: Database
    store: BlobStore
    signals: Signals
    writer: Writer
    forges: Mapping[str, ForgeAdapter]
    executor: ServerExecutor
    builders: Mapping[str, Builder]
    bundle: RunnerBundle
    key: bytes
    holder: str


class Server:
    """One server process on one data directory: its web part and its loops."""

    def __init__(
        self,
        settings: Settings,
        *,
        roles: Collection[Role] = frozenset(Role),
        observe: Observer = ignore,
        private: Sequence[Path] = (),
    ) -> None:
        """Build everything, take the data directory's lock, and listen; nothing runs yet. Raises ConfigError.

        `private` are files that hold secrets and lie outside the data directory.
        """
        register_secrets(settings.secrets())
        self._roles = frozenset(roles)
        if self._is(Role.SCHEDULER) and not self._is(Role.WEB) and not settings.server.url:
            raise ConfigError(
                "a scheduler without a web part has nothing that its runners could report to: set server.url to the "
                "address of the servers with role web, or add that role"
            )
        self._lock = lock_data(settings.server.data)
        self._parts = parts = _build_parts(settings, private)
        self._web = WebServer(create_app(_context(parts)), bind(settings.server.listen)) if self._is(Role.WEB) else None
        self._scheduler = _scheduler(parts, self.url_for_runners)
        self._follower = BuilderFollower(
            parts.database, parts.signals, settings, parts.builders, parts.forges, parts.holder
        )
        self._loops = self._scheduler_loops() + self._publisher_loops(observe)

    def _is(self, role: Role) -> bool:
        return role in self._roles

    @property
    def has_web(self) -> bool:
        """Whether it listens; without, it only works off what others took in."""
        return self._web is not None

    @property
    def local_url(self) -> str:
        """How a program on this machine reaches the server."""
        return self._web.local_url if self._web is not None else self._parts.settings.server.url

    @property
    def url(self) -> str:
        """How everybody else reaches it."""
        return (self._parts.settings.server.url or self.local_url).rstrip("/")

    @property
    def url_for_runners(self) -> str:
        """How runners reach it: a shared executor's are on other machines, and outlive the server that started them."""
        return self.url if self._parts.executor.shared else self.local_url

    @property
    def database(self) -> Database:
        """Its database."""
        return self._parts.database

    @property
    def store(self) -> BlobStore:
        """Its blobs."""
        return self._parts.store

    @property
    def signals(self) -> Signals:
        """What wakes its loops, and whoever watches."""
        return self._parts.signals

    def start(self) -> Recovered:
        """Recover what a dead process left, answer, and run the loops."""
        parts = self._parts
        executor = parts.executor
        alive = None if executor.shared else executor.alive()
        recovered = recover(parts.database, parts.settings.limits, executor.name, alive, parts.holder)
        if self._web is not None:
            self._web.start()
        for loop in self._loops:
            loop.start()
        return recovered

    def warnings(self) -> list[str]:
        """What an operator should know at the start."""
        return self._parts.executor.warnings()

    def stop(self) -> None:
        """End in order: nothing new, runners handed back or finished as configured, the loops, then the web part."""
        parts = self._parts
        if self._is(Role.SCHEDULER):
            self._scheduler.drain(parts.settings.executor.shutdown)
        if not stop_all(self._loops, STOP_SECONDS):
            log.warning("a loop did not end in time; what it held is taken up at the next start")
        elif self._is(Role.SCHEDULER):
            self._follower.let_go()
        if self._web is not None:
            self._web.stop()
        parts.writer.close()
        parts.executor.close()
        for builder in parts.builders.values():
            builder.close()
        parts.database.dispose()
        self._lock.close()

    def _scheduler_loops(self) -> list[Loop]:
        if not self._is(Role.SCHEDULER):
            return []
        parts = self._parts

        def find_missed_heads() -> bool:
            reconcile(parts.settings, parts.database, parts.writer, parts.forges)
            return False

        def keep_to_schedules() -> bool:
            return run_due(parts.settings, parts.database, parts.writer, parts.forges) > 0

        def report() -> bool:
            return deliver_one(parts.database, parts.forges, self.url, parts.holder)

        def seal() -> bool:
            return seal_finished(parts.database, parts.store) > 0

        def take_away() -> bool:
            collect(parts.database, parts.store, parts.settings.retention)
            return False

        return [
            self._loop("scheduler", Topic.SCHEDULER, self._scheduler.step, SCHEDULER_IDLE_SECONDS),
            self._loop("builders", Topic.SCHEDULER, self._follower.step, SCHEDULER_IDLE_SECONDS),
            self._loop("reconciler", Topic.RECONCILER, find_missed_heads, RECONCILE_SECONDS),
            self._loop("timetable", "timetable", keep_to_schedules, SCHEDULE_SECONDS),
            *(self._loop(f"reporter-{n}", Topic.REPORTER, report, IDLE_SECONDS) for n in range(REPORTERS)),
            self._loop("sealer", "seal", seal, SEAL_SECONDS),
            self._loop("collector", "collect", take_away, float(parts.settings.retention.interval_seconds)),
        ]

    def _publisher_loops(self, observe: Observer) -> list[Loop]:
        if not self._is(Role.PUBLISHER):
            return []
        parts = self._parts
        settings = parts.settings
        key = signing_key(settings.signing)
        assembler = Assembler(parts.database, parts.store, parts.signals, settings, parts.holder, key)
        script_images = ScriptImages(parts.database, parts.store, parts.signals, settings, parts.holder, key)
        registries = {item.name: registry_opener(item) for item in settings.registries}
        publisher = Publisher(
            parts.database, parts.store, parts.signals, registries, settings.limits, parts.holder, key
        )
        role = PublisherRole(assembler, script_images, publisher, observe)
        publishers = min(len(registries) + 1, MOST_PUBLISHERS)
        return [self._loop(f"publisher-{n}", Topic.PUBLISHER, role.step, IDLE_SECONDS) for n in range(publishers)]

    def _loop(self, name: str, topic: str, step: Callable[[], bool], idle: float) -> Loop:
        return Loop(name, self._parts.signals, topic, step, idle, self._parts.writer.is_busy)


def _build_parts(settings: Settings, private: Sequence[Path]) -> _Parts:
    data = settings.server.data
    prepare(settings.database_url)
    database = connect(settings.database_url)
    signals = Signals()
    bundle = _Bundle(*build_bundle())
    key = shared_keys(settings, database)
    store = open_store(settings)
    check_store(database, settings.store_url, store.identity())
    keys_elsewhere = [] if settings.keys.is_relative_to(data) else [settings.keys]
    holder = secret_file(data / "server-id", new_id).decode()
    identity = ServerIdentity(holder, key)
    return _Parts(
        settings=settings,
        database=database,
        store=store,
        signals=signals,
        writer=Writer(database, signals),
        forges={item.name: build_forge(item) for item in settings.forges},
        executor=build_executor(
            settings, identity, bundle, [*private, *keys_elsewhere], lambda: signals.notify(Topic.SCHEDULER)
        ),
        builders={item.name: build_builder(settings, item) for item in settings.builders},
        bundle=bundle,
        key=key,
        holder=holder,
    )


def _context(parts: _Parts) -> AppContext:
    return AppContext(
        settings=parts.settings,
        database=parts.database,
        store=parts.store,
        forges=parts.forges,
        permissions=parts.forges,
        writer=parts.writer,
        signals=parts.signals,
        hooks={item.name: build_hooks(item) for item in parts.settings.forges},
        runner=parts.bundle,
        version=__version__,
        logins=build_logins(parts.settings.forges),
    )


def _scheduler(parts: _Parts, url_for_runners: str) -> Scheduler:
    limits = parts.settings.limits
    takes_strangers = parts.executor.takes_strangers and parts.settings.executor.sandbox
    dispatcher = Dispatcher(
        parts.database,
        parts.signals,
        parts.executor,
        limits,
        parts.key,
        url_for_runners,
        takes_strangers=takes_strangers,
        takes_scripts=isolates_jobs(parts.settings) or parts.settings.executor.allow_unisolated_scripts,
    )
    forges = {item.name: item for item in parts.settings.forges}
    return Scheduler(parts.database, parts.signals, dispatcher, parts.executor, limits, forges)


def isolates_jobs(settings: Settings) -> bool:
    """Whether a Job can reach nothing of another one on its machine."""
    return settings.executor.kind is ExecutorKind.NOMAD and settings.nomad.driver is not NomadDriver.RAW_EXEC
