"""A world whose repo is built by a builder of the operator's own, and the servers that follow it."""

from datetime import timedelta
from pathlib import Path
from typing import cast

from sqlalchemy import select, update

from albatros.db import logs
from albatros.db.builds import NewBuild, create_build
from albatros.db.models import Attempt, BuilderRun, Job
from albatros.db.session import Database, now
from albatros.domain.states import Trigger
from albatros.executors.builder_base import Builder
from albatros.flows.builders import BuilderFollower
from albatros.forges.base import Forge
from tests.support.flows import HOLDER, MAIN, World, settings_of
from tests.support.rows import COMMIT

BUILDER = "house"


class Server:
    """One server's following of builders; each `step` is that of a process that was just started."""

    def __init__(self, world: World, builder: Builder | None, holder: str = HOLDER) -> None:
        self._world = world
        self._builders = {} if builder is None else {BUILDER: builder}
        self._holder = holder

    def start(self) -> BuilderFollower:
        world = self._world
        forges = cast("dict[str, Forge]", {"home": world.forge})
        return BuilderFollower(world.database, world.signals, world.settings, self._builders, forges, self._holder)

    def step(self) -> None:
        self.start().step()


class BuilderWorld(World):
    """What its Builds, Attempts and logs are."""

    @classmethod
    def on(cls, database: Database, data: Path, **limits: int) -> "BuilderWorld":
        house = {"name": BUILDER, "job": "build", "forge": "home", "repos": ["alba/*"], "slots": 2}
        return cls(database, settings_of(data, builders=[house], limits=limits))

    def push(self, ref: str = MAIN, flavor: str = "") -> int:
        """A Build that is given to the builder."""
        repo_id = self.repo()
        with self.database.write() as session:
            new = NewBuild(ref, COMMIT, 1, Trigger.PUSH, flavor=flavor, builder=BUILDER)
            return create_build(session, repo_id, new)

    def attempts(self, build_id: int) -> list[Attempt]:
        with self.database.read() as session:
            statement = select(Attempt).join(Job).where(Job.build_id == build_id).order_by(Attempt.number)
            return list(session.scalars(statement))

    def attempt(self, build_id: int) -> Attempt:
        return self.attempts(build_id)[-1]

    def run(self, build_id: int) -> BuilderRun:
        with self.database.read() as session:
            return session.get_one(BuilderRun, self.attempt(build_id).id)

    def log(self, build_id: int) -> str:
        return logs.read(self.database, self.store, self.attempt(build_id).id, 0, logs.READ_BYTES).decode()

    def let_pass(self, build_id: int, **columns: object) -> None:
        """Let an Attempt's times be others."""
        with self.database.write() as session:
            session.execute(update(Attempt).where(Attempt.id == self.attempt(build_id).id).values(**columns))

    def fall_silent(self, build_id: int, seconds: int) -> None:
        at = now() - timedelta(seconds=seconds)
        self.let_pass(build_id, claimed_at=at)
        with self.database.write() as session:
            session.execute(update(BuilderRun).values(heard_at=at))

    def forget_leases(self) -> None:
        """Let what a dead server follows be free for another."""
        with self.database.write() as session:
            session.execute(update(BuilderRun).values(lease_until=None))
