"""The one place where adapters are built from settings and wired into a server."""

from __future__ import annotations

import fcntl
import os
import secrets
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import TextIOWrapper
from pathlib import Path

from albatros import __version__
from albatros.db.logs import seal_finished
from albatros.db.migrate import prepare
from albatros.db.session import Database, connect
from albatros.db.signals import Signals, Topic
from albatros.db.writer import Writer
from albatros.domain.references import RegistryUrl
from albatros.errors import ConfigError
from albatros.executors.local import LocalExecutor
from albatros.flows.assemble import Assembler
from albatros.flows.collect import collect
from albatros.flows.dispatch import Dispatcher
from albatros.flows.proofs import signing_key
from albatros.flows.publish import Publisher
from albatros.flows.reconcile import reconcile
from albatros.flows.recover import Recovered, recover
from albatros.flows.report import deliver_one
from albatros.flows.schedule import run_due
from albatros.forges.base import ForgeAdapter, Hooks, Login
from albatros.forges.git import GitForge
from albatros.forges.git_hooks import GitHooks
from albatros.forges.gitea import GiteaForge
from albatros.forges.gitea_hooks import GiteaHooks
from albatros.forges.github import GithubForge
from albatros.forges.github_hooks import GithubHooks
from albatros.forges.gitlab import GitlabForge
from albatros.forges.gitlab_hooks import GitlabHooks
from albatros.forges.oauth import OAuthLogin
from albatros.http.app import create_app
from albatros.http.deps import AppContext, RunnerBundle
from albatros.http.serving import WebServer, bind
from albatros.images.publish import Observer, ignore
from albatros.log import get_logger, register_secrets
from albatros.registries.base import Credentials, Registry
from albatros.registries.opening import open_registry
from albatros.roles import Loop, PublisherRole, Role, Scheduler, stop_all
from albatros.runner.bundle import build_bundle
from albatros.settings import ExecutorKind, ForgeKind, ForgeSettings, NomadDriver, RegistrySettings, Settings
from albatros.store.base import BlobStore
from albatros.store.files import FileStore

log = get_logger(__name__)
MOST_PUBLISHERS = 8
REPORTERS = 2
KEY_BYTES = 32
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
    executor: LocalExecutor
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
        self._lock = _lock_data(settings.server.data)
        self._parts = parts = _build_parts(settings, private)
        self._web = WebServer(create_app(_context(parts)), bind(settings.server.listen)) if self._is(Role.WEB) else None
        self._scheduler = _scheduler(parts, self.local_url)
        self._loops = self._scheduler_loops() + self._publisher_loops(observe)

    def _is(self, role: Role) -> bool:
        return role in self._roles

    @property
    def local_url(self) -> str:
        """How a program on this machine reaches the server."""
        return self._web.local_url if self._web is not None else self._parts.settings.server.url

    @property
    def url(self) -> str:
        """How everybody else reaches it."""
        return (self._parts.settings.server.url or self.local_url).rstrip("/")

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
        if self._web is not None:
            self._web.stop()
        parts.writer.close()
        parts.executor.close()
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
        registries = {item.name: registry_opener(item) for item in settings.registries}
        publisher = Publisher(
            parts.database, parts.store, parts.signals, registries, settings.limits, parts.holder, key
        )
        role = PublisherRole(assembler, publisher, observe)
        publishers = min(len(registries) + 1, MOST_PUBLISHERS)
        return [self._loop(f"publisher-{n}", Topic.PUBLISHER, role.step, IDLE_SECONDS) for n in range(publishers)]

    def _loop(self, name: str, topic: str, step: Callable[[], bool], idle: float) -> Loop:
        return Loop(name, self._parts.signals, topic, step, idle, self._parts.writer.is_busy)


def _build_parts(settings: Settings, private: Sequence[Path]) -> _Parts:
    if settings.executor.kind is ExecutorKind.NOMAD:
        raise ConfigError("executor.kind = 'nomad' is not there yet; use 'local'")
    data = settings.server.data
    prepare(settings.database_url)
    database = connect(settings.database_url)
    signals = Signals()
    bundle = _Bundle(*build_bundle())
    holder = _secret_file(data / "keys" / "server-id", _new_id).decode()
    return _Parts(
        settings=settings,
        database=database,
        store=open_store(settings),
        signals=signals,
        writer=Writer(database, signals),
        forges={item.name: build_forge(item) for item in settings.forges},
        executor=LocalExecutor(
            holder, settings.executor, data, bundle.content, private, lambda: signals.notify(Topic.SCHEDULER)
        ),
        bundle=bundle,
        key=_secret_file(data / "keys" / "attempt.key", _new_key),
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


def _scheduler(parts: _Parts, local_url: str) -> Scheduler:
    limits = parts.settings.limits
    takes_strangers = parts.executor.isolated and parts.settings.executor.sandbox
    dispatcher = Dispatcher(
        parts.database,
        parts.signals,
        parts.executor,
        limits,
        parts.key,
        local_url,
        takes_strangers=takes_strangers,
        takes_scripts=_isolates_jobs(parts.settings) or parts.settings.executor.allow_unisolated_scripts,
    )
    forges = {item.name: item for item in parts.settings.forges}
    return Scheduler(parts.database, parts.signals, dispatcher, parts.executor, limits, forges)


def _isolates_jobs(settings: Settings) -> bool:
    """Whether a Job can reach nothing of another one on its machine."""
    return settings.executor.kind is ExecutorKind.NOMAD and settings.nomad.driver is not NomadDriver.RAW_EXEC


def open_store(settings: Settings) -> BlobStore:
    """The blob store that the settings name. Raises ConfigError or StoreError."""
    scheme, _, path = settings.store_url.partition(":")
    if scheme != "dir" or not path:
        raise ConfigError(f"store.url = {settings.store_url!r} is not supported; use dir:PATH")
    return FileStore(Path(path))


def build_forge(item: ForgeSettings) -> ForgeAdapter:
    """The adapter of a configured forge."""
    match item.kind:
        case ForgeKind.GIT:
            return GitForge(item)
        case ForgeKind.GITEA | ForgeKind.FORGEJO:
            return GiteaForge(item)
        case ForgeKind.GITHUB:
            return GithubForge(item)
        case ForgeKind.GITLAB:
            return GitlabForge(item)


def build_logins(items: Sequence[ForgeSettings]) -> dict[str, Login]:
    """What people log in with."""
    return {item.name: OAuthLogin(item) for item in items if item.oauth_client_id}


def build_hooks(item: ForgeSettings) -> Hooks:
    """What manages the webhooks of a configured forge."""
    match item.kind:
        case ForgeKind.GIT:
            return GitHooks(item)
        case ForgeKind.GITEA | ForgeKind.FORGEJO:
            return GiteaHooks(item)
        case ForgeKind.GITHUB:
            return GithubHooks(item)
        case ForgeKind.GITLAB:
            return GitlabHooks(item)


def registry_opener(item: RegistrySettings) -> Callable[[], Registry]:
    """Opens a configured registry. Raises UsageError for an unusable address."""
    url = RegistryUrl.parse(item.url)
    credentials = None
    if item.username:
        origin = f"[[registries]] {item.name}"
        credentials = Credentials(item.username, item.password.get_secret_value(), origin)
    return partial(open_registry, url, credentials)


def _lock_data(data: Path) -> TextIOWrapper:
    """Make the data directory and hold it: two servers on one SQLite, one set of keys and runners would fight."""
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o711)
        lock = (data / "lock").open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"server.data = {data} cannot be used: {error.strerror}; set it elsewhere") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise ConfigError(f"another server runs on {data}; stop it, or set server.data to another directory") from error
    return lock


def _new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def _new_id() -> bytes:
    return uuid.uuid4().hex.encode()


def _secret_file(path: Path, make: Callable[[], bytes]) -> bytes:
    """Read a file that only this user can read, made whole at the first start."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        return path.read_bytes()
