"""Two `albatros serve` on one PostgreSQL, one blob store and one directory of keys, each with a data directory."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx
from sqlalchemy import Engine, create_engine, text

from tests.services.process import free_port
from tests.services.registry import RegistryServer
from tests.support.line import Line, Section, end_runners, make_line, to_toml, write_private
from tests.support.server_process import ServerProcess, eventually
from tests.support.work_tree import Project
from tests.tools import ROOT

PATIENCE = 300
"""Seconds that a Build may take, on a busy machine."""
OPEN = "('submitting', 'submitted', 'claimed')"
NOTHING_IS = {
    "builds that did not succeed": "SELECT id, state FROM builds WHERE state <> 'succeeded'",
    "jobs without exactly one committed result": (
        "SELECT j.id FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id AND a.state = 'succeeded' "
        "GROUP BY j.id, j.state HAVING count(a.id) <> 1 OR j.state <> 'succeeded'"
    ),
    "attempts left open": f"SELECT id, state FROM attempts WHERE state IN {OPEN}",
    "images with more or less than one publication a registry and tag": (
        "SELECT i.id, p.registry, p.tag FROM images i LEFT JOIN publications p ON p.image_id = i.id "
        "GROUP BY i.id, p.registry, p.tag HAVING count(p.id) <> 1"
    ),
    "publications that have not ended": (
        "SELECT id, state FROM publications WHERE state NOT IN ('published', 'superseded')"
    ),
    "builds without exactly one image": (
        "SELECT b.id FROM builds b LEFT JOIN images i ON i.build_id = b.id GROUP BY b.id HAVING count(i.id) <> 1"
    ),
    "builds that ended more or less than once": (
        "SELECT b.id FROM builds b LEFT JOIN events e ON e.build_id = b.id AND e.kind = 'build.succeeded' "
        "GROUP BY b.id HAVING count(e.id) <> 1"
    ),
    "statuses that are due": "SELECT id FROM status_reports WHERE sent < version",
}
"""What must be empty once everything is green."""


@dataclass(frozen=True)
class Running:
    """An Attempt that a runner holds."""

    job: int
    attempt: str
    executor: str


@dataclass
class Servers:
    """Two servers that nobody started yet; `line` has the first one, and everything that they share."""

    line: Line
    second: ServerProcess
    engine: Engine

    @property
    def second_data(self) -> Path:
        return self.line.paths.root / "second"

    @property
    def first(self) -> ServerProcess:
        return self.line.server

    def write_config(self, changes: Section) -> None:
        """Change the settings of both."""
        self.line.write_config(changes)
        shared = cast("Section", self.line.settings["server"])
        own = {"listen": self.second.url.removeprefix("http://"), "data": str(self.second_data)}
        write_private(self.second.config, to_toml({**self.line.settings, "server": {**shared, **own}}))

    def share_address(self, server: ServerProcess) -> None:
        """Have both say that they are reached at this one."""
        self.write_config({"server": {"url": server.url}})

    def start(self) -> None:
        """Start both, one after the other."""
        self.first.start()
        self.second.start()

    def sql(self, query: str) -> list[tuple[object, ...]]:
        """Ask the database, from outside."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    def tell(self) -> str:
        """What is known when something did not come."""
        rows = self.sql(
            "SELECT b.id, b.state, j.kind, j.state, a.number, a.executor, a.state, a.reason FROM builds b "
            "JOIN jobs j ON j.build_id = b.id LEFT JOIN attempts a ON a.job_id = j.id ORDER BY b.id, j.id, a.number"
        )
        listed = "\n".join(map(str, rows))
        return f"{listed}\n--- first\n{self.first.log}\n--- second\n{self.second.log}"

    def wait_for(self, look: Callable[[], object]) -> None:
        """Wait until it is so, for minutes if need be."""
        eventually(look, self.tell, PATIENCE)

    def wait_green(self, repo: Project, commit: str) -> None:
        """Wait until the forge shows that the commit is well."""
        self.wait_for(lambda: (status := repo.status(commit)) is not None and status.state == "success")

    def running(self, commit: str) -> Running:
        """Wait until a runner holds the Attempt of a commit's one package."""
        query = (
            "SELECT j.id, a.id, a.executor FROM attempts a JOIN jobs j ON j.id = a.job_id "
            "JOIN builds b ON b.id = j.build_id WHERE j.kind = 'build' AND a.state = 'claimed' "
            f"AND b.commit = '{commit}'"
        )
        self.wait_for(lambda: self.sql(query))
        ((job, attempt, executor),) = self.sql(query)
        return Running(cast("int", job), str(attempt), str(executor))

    def executors_of(self, job: int) -> list[str]:
        """Where each Attempt of a Job was, in order."""
        listed = self.sql(f"SELECT executor FROM attempts WHERE job_id = {job} ORDER BY number")
        return [str(executor) for (executor,) in listed]

    def whose(self, running: Running) -> ServerProcess:
        """The server whose local executor has this Attempt."""
        ours = f"local:{(self.line.paths.data / 'server-id').read_text()[:8]}"
        return self.first if running.executor == ours else self.second

    def other(self, server: ServerProcess) -> ServerProcess:
        """The one that is not this one."""
        return self.second if server is self.first else self.first

    def end_leases_of_pushes(self) -> int:
        """Let the time pass that a killed server's pushes are left to it; how many there were."""
        over = "UPDATE publications SET lease_until = lease_until - interval '1 hour' WHERE state = 'pushing'"
        with self.engine.begin() as connection:
            return connection.execute(text(over)).rowcount

    def ends_well(self) -> None:
        """Hold what everybody committed against everything that must be so."""
        for query in NOTHING_IS.values():
            self.wait_for(lambda query=query: not self.sql(query))  # type: ignore[misc]  # the default is the query


@contextmanager
def make_servers(
    registry: RegistryServer | None, database_url: str, changes: Mapping[str, Section] | None = None
) -> Iterator[Servers]:
    """Two servers as docs/how-to/several-servers.md sets them up; `changes` hold for both."""
    with make_line(registry, {**(changes or {}), "database": {"url": database_url}}) as line:
        root = line.paths.root
        second = ServerProcess(root / "second.toml", root / "second.log", f"http://127.0.0.1:{free_port()}")
        upgrade = [sys.executable, "-m", "albatros", "db", "upgrade", "--config", str(line.paths.config)]
        subprocess.run(upgrade, cwd=ROOT, check=True, capture_output=True)
        engine = create_engine(database_url)
        made = Servers(line, second, engine)
        made.write_config({"server": {"keys": str(root / "keys")}, "store": {"url": f"dir:{root / 'blobs'}"}})
        try:
            yield made
        finally:
            second.kill()
            end_runners(made.second_data)
            engine.dispose()


@contextmanager
def live_events(server: ServerProcess, path: str) -> Iterator[Iterator[tuple[str, dict[str, object]]]]:
    """A live stream of a server, as kind and data of each event."""
    with httpx.stream("GET", server.url + path, timeout=PATIENCE) as answer:
        assert answer.status_code == 200
        yield _events(answer.iter_lines())


def _events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, object]]]:
    kind = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)
