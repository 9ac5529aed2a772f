"""A server without its web part and its threads: a test calls each step itself, and is the runner where it wants to."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import cast

from sqlalchemy import func, select, update

from albatros.db.builds import NewBuild, create_build
from albatros.db.models import Artifact, Attempt, Build, Event, ImageRequest, Job, Publication, Repo
from albatros.db.session import Database, now
from albatros.db.signals import Signals
from albatros.domain.references import Blob
from albatros.domain.states import BuildState, JobState, Trigger
from albatros.errors import ForgeError
from albatros.flows import attempts, plan
from albatros.flows.assemble import Assembler
from albatros.flows.dispatch import Dispatcher
from albatros.flows.proofs import signing_key
from albatros.flows.publish import Publisher
from albatros.flows.script_images import ScriptImages
from albatros.forges.base import CloneSource, Forge
from albatros.images.publish import ignore
from albatros.registries.base import Registry
from albatros.roles import Scheduler
from albatros.settings import Settings
from albatros.store.base import BlobStore
from tests.support.fake_executor import FakeExecutor, FakeMachine
from tests.support.memory_registry import MemoryRegistry
from tests.support.rows import add_repo
from tests.support.stores import MemoryStore

KEY = b"k" * 32
MAIN = "refs/heads/main"
HOLDER = "server-a"


def settings_of(data: Path, **changes: object) -> Settings:
    """One forge `home`, two registries, and what a test changes."""
    document: dict[str, object] = {
        "server": {"data": str(data)},
        "forges": [{"name": "home", "kind": "git", "url": str(data / "git"), "webhook_secret": "not-a-secret"}],
        "registries": [
            {"name": "hub", "url": "docker://hub.example.org/team", "names": ["{repo}"]},
            {"name": "static", "url": f"dir:{data / 'registry'}", "names": ["{repo}"]},
        ],
    }
    return Settings.model_validate(document | changes)


class CloneForge:
    """The part of a forge that an order needs."""

    def __init__(self, error: ForgeError | None = None) -> None:
        self.error = error

    def clone_source(self, owner: str, name: str, *, credential: bool = True) -> CloneSource:
        if self.error is not None:
            raise self.error
        url = f"https://git.example.org/{owner}/{name}.git"
        return CloneSource(url, "albatros", "clone-token") if credential else CloneSource(url)


@dataclass
class World:
    """Everything that a Build passes through; `registries` are opened by name."""

    database: Database
    settings: Settings
    store: BlobStore = field(default_factory=MemoryStore)
    signals: Signals = field(default_factory=Signals)
    machine: FakeMachine = field(default_factory=FakeMachine)
    registries: dict[str, Registry] = field(default_factory=dict)
    slots: int = 100
    systems: frozenset[str] = frozenset({"x86_64-linux"})
    forge: CloneForge = field(default_factory=CloneForge)

    def __post_init__(self) -> None:
        for item in self.settings.registries:
            self.registries.setdefault(item.name, MemoryRegistry())
        self.start_again()

    def start_again(self, holder: str = HOLDER) -> None:
        """A fresh server process on the same rows, blobs and runners."""
        self.key = signing_key(self.settings.signing)
        self.executor = FakeExecutor(self.machine, self.slots, self.systems)
        self.dispatcher = Dispatcher(
            self.database, self.signals, self.executor, self.settings.limits, KEY, "http://127.0.0.1:1"
        )
        self.scheduler = Scheduler(self.database, self.signals, self.dispatcher, self.executor, self.settings.limits)
        self.assembler = Assembler(self.database, self.store, self.signals, self.settings, holder, self.key)
        self.script_images = ScriptImages(self.database, self.store, self.signals, self.settings, holder, self.key)
        self.publisher = self.publisher_of(holder)

    def publisher_of(self, holder: str) -> Publisher:
        openers = {name: partial(self.registries.__getitem__, name) for name in self.registries}
        return Publisher(self.database, self.store, self.signals, openers, self.settings.limits, holder, self.key)

    def repo(self, name: str = "hello", *, private: bool = False) -> int:
        """A repo's id; made when it is asked for first."""
        with self.database.write() as session:
            found = session.scalar(select(Repo.id).where(Repo.name == name))
            if found is not None:
                return found
            repo = add_repo(session, name)
            repo.private = private
            return repo.id

    def build(
        self, repo: str = "hello", *, ref: str = MAIN, sequence: int = 0, trusted: bool = True, flavor: str = ""
    ) -> int:
        """A queued Build of a new commit, next in its ref unless a sequence is given."""
        repo_id = self.repo(repo)
        with self.database.write() as session:
            newest = select(func.max(Build.sequence)).where(Build.repo_id == repo_id, Build.ref == ref)
            place = sequence or (session.scalar(newest.where(Build.flavor == flavor)) or 0) + 1
            trigger = Trigger.TAG if ref.startswith("refs/tags/") else Trigger.PUSH
            new = NewBuild(ref, secrets.token_hex(20), place, trigger, flavor=flavor, trusted=trusted)
            return create_build(session, repo_id, new)

    def dispatch(self) -> "list[Runner]":
        """Start what is due; the new runners, which have not claimed yet."""
        before = len(self.machine.started)
        self.dispatcher.dispatch_due()
        return [Runner(self, order.attempt_id, order.token) for order in self.machine.started[before:]]

    def dispatch_one(self) -> "Runner":
        runners = self.dispatch()
        assert len(runners) == 1, f"{len(runners)} runners were started"
        return runners[0]

    def evaluate(self, attributes: Sequence[Mapping[str, object]], config: str | None = None) -> None:
        """Run the one evaluation that is due, and plan what it reports."""
        runner = self.dispatch_one()
        runner.claim()
        runner.evaluated(attributes, config)
        plan.plan_due(self.database, self.signals, self.settings.limits)

    def built(
        self, attributes: Sequence[Mapping[str, object]], files: Mapping[str, bytes], config: str | None = None
    ) -> None:
        """Evaluate, then let every Job succeed; `files` are the outputs by the derivation's name."""
        self.evaluate(attributes, config)
        while runners := self.dispatch():
            for runner in runners:
                order = runner.claim()
                runner.built(files[runner.job().name], binaries=order_binaries(order))

    def assemble(self) -> bool:
        """Assemble one Build, if one is due."""
        build = self.assembler.claim()
        if build is not None:
            self.assembler.assemble(build)
        return build is not None

    def publish(self) -> int:
        """Push everything that is due now; how many groups."""
        count = 0
        while push := self.publisher.claim():
            self.publisher.push(push, ignore)
            count += 1
        return count

    def finish(self) -> None:
        """Assemble and publish until nothing is due."""
        while self.assemble():
            pass
        self.publish()

    def of(self, build_id: int) -> Build:
        with self.database.read() as session:
            return session.get_one(Build, build_id)

    def state(self, build_id: int) -> BuildState:
        return self.of(build_id).state

    def jobs(self, build_id: int) -> dict[str, Job]:
        """Jobs by name."""
        with self.database.read() as session:
            return {job.name: job for job in session.scalars(select(Job).where(Job.build_id == build_id))}

    def job_states(self, build_id: int) -> dict[str, JobState]:
        return {name: job.state for name, job in self.jobs(build_id).items()}

    def publications(self, build_id: int) -> list[Publication]:
        with self.database.read() as session:
            statement = select(Publication).join(Publication.image).order_by(Publication.id)
            return [row for row in session.scalars(statement) if row.image.build_id == build_id]

    def events(self, build_id: int) -> list[str]:
        with self.database.read() as session:
            return list(session.scalars(select(Event.kind).where(Event.build_id == build_id).order_by(Event.id)))

    def artifacts(self, build_id: int) -> list[Artifact]:
        with self.database.read() as session:
            statement = select(Artifact).join(Job).where(Job.build_id == build_id).order_by(Artifact.id)
            return list(session.scalars(statement))

    def make_due(self) -> None:
        """Let every waiting time be over, leases excepted."""
        with self.database.write() as session:
            past = now() - timedelta(seconds=1)
            session.execute(update(Job).values(not_before=None))
            session.execute(update(Build).values(not_before=None))
            session.execute(update(Publication).values(next_try_at=past))

    def lapse(self) -> None:
        """Let every lease have run out."""
        with self.database.write() as session:
            past = now() - timedelta(seconds=1)
            for table in (Attempt, Build, ImageRequest, Publication):
                session.execute(update(table).where(table.lease_until.is_not(None)).values(lease_until=past))


@dataclass
class Runner:
    """The program at the other end of an Attempt."""

    world: World
    attempt_id: str
    token: str
    nonce: str = field(default_factory=lambda: secrets.token_hex(16))

    def claim(self) -> dict[str, object]:
        world = self.world
        forges = cast("dict[str, Forge]", {"home": world.forge})
        return attempts.claim(world.database, world.signals, world.settings, forges, self.token, self.nonce, "a-host")

    def heartbeat(self) -> str | None:
        return attempts.heartbeat(self.world.database, self.token, self.nonce, 30)

    def upload(self, data: bytes) -> Blob:
        blob = self.world.store.put([data])
        with self.world.database.write() as session:
            attempts.record_upload(session, self.token, self.nonce, blob)
        return blob

    def report(self, **body: object) -> None:
        world = self.world
        document = {"nonce": self.nonce, "outcome": "succeeded", "reason": None, "message": "", "outputs": []} | body
        attempts.report_result(world.database, world.store, world.signals, world.settings, self.token, document)

    def failed(self, reason: str, message: str = "") -> None:
        self.report(outcome="failed", reason=reason, message=message)

    def evaluated(self, attributes: Sequence[Mapping[str, object]], config: str | None = None) -> None:
        self.report(evaluation={"config": config, "commit_time": 1_700_000_000, "attributes": list(attributes)})

    def built(self, data: bytes, *, binaries: Sequence[str] = (), kind: str = "file") -> None:
        """Succeed with one output: a file, or the binaries of a directory, each with the same bytes."""
        digest = self.upload(data).digest
        files = [
            {"path": path, "kind": "binary" if path else kind, "digest": digest, "size": len(data), "executable": True}
            for path in binaries or [""]
        ]
        self.report(outputs=[output_of(files)])

    def attempt(self) -> Attempt:
        with self.world.database.read() as session:
            return session.get_one(Attempt, self.attempt_id)

    def job(self) -> Job:
        return self.attempt().job


def output_of(files: Sequence[Mapping[str, object]], name: str = "out") -> dict[str, object]:
    """One output as a runner reports it."""
    return {
        "output": name,
        "store_path": f"/nix/store/{'0' * 32}-hello",
        "nar_hash": f"sha256:{'0' * 64}",
        "nar_size": 1,
        "closure": [{"path": f"/nix/store/{'0' * 32}-hello", "nar_hash": f"sha256:{'0' * 64}", "nar_size": 1}],
        "files": list(files),
    }


def order_binaries(order: Mapping[str, object]) -> list[str]:
    build = order["build"]
    assert isinstance(build, dict)
    return [str(path) for path in build["binaries"]]


def drv(name: str) -> str:
    """A derivation path for a name."""
    return f"/nix/store/{name.encode().hex()[:32]:0<32}-{name}.drv"


def package(
    name: str, *needs: str, system: str = "x86_64-linux", attribute: str = "", placed: str = "x86_64-linux"
) -> dict[str, object]:
    """`packages.SYSTEM.ATTRIBUTE` (the name, unless given) as evaluation reports it, placed by its own system."""
    return {
        "attribute": f"packages.{system}.{attribute or name}",
        "drv_path": drv(name),
        "system": placed,
        "name": name,
        "error": None,
        "needs": [drv(need) for need in needs],
    }


def broken(name: str, error: str) -> dict[str, object]:
    """An attribute that does not evaluate."""
    return {"attribute": f"packages.x86_64-linux.{name}", "drv_path": None, "error": error}
