"""A line on a Nomad behind a proxy, what breaks it, and what must hold afterwards whatever broke."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, create_engine, text

from tests.support.bare_repo import BareRepo
from tests.support.chaos_server import CHAOS, ORDERS
from tests.support.flakes import AMD64, hello, wait_for
from tests.support.line import Line, make_line
from tests.support.nomad_exchanges import Talk
from tests.support.nomad_proxy import NomadProxy, nomad_proxy
from tests.support.nomad_sim import NomadSim
from tests.support.nomad_sim_rows import Allocation, Json
from tests.support.nomad_sim_tasks import Calls
from tests.support.nomad_worlds import RealWorld, SimulatedWorld, nomad_world
from tests.support.scripted_runner import ScriptedRunners
from tests.support.server_process import eventually
from tests.tools import ROOT

LEASE = 200
"""Seconds after which a silent runner is lost: more than a machine under load keeps one waiting."""
SHORT_LEASE = 15
"""For one that is gone for good."""
CHAOTIC = ("-m", "tests.support.chaos_server")
OPEN = "state IN ('submitting', 'submitted', 'claimed')"
GATE = "build"
NOTHING_IS = {
    "deliveries without a build": (
        "SELECT d.id FROM deliveries d LEFT JOIN builds b ON b.delivery_id = d.id "
        "WHERE b.id IS NULL AND d.reason NOT LIKE '%is already known at%'"
    ),
    "jobs without exactly one committed result": (
        "SELECT j.id FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id AND a.state = 'succeeded' "
        "WHERE j.state = 'succeeded' GROUP BY j.id HAVING count(a.id) <> 1"
    ),
    "jobs that did not succeed": "SELECT id, state FROM jobs WHERE state <> 'succeeded'",
    "images with more or less than one publication a registry and tag": (
        "SELECT i.id, p.registry, p.tag FROM images i LEFT JOIN publications p ON p.image_id = i.id "
        "GROUP BY i.id, p.registry, p.tag HAVING count(p.id) <> 1"
    ),
    "publications that are not published": "SELECT id, state FROM publications WHERE state <> 'published'",
    "builds without an image": "SELECT b.id FROM builds b LEFT JOIN images i ON i.build_id = b.id WHERE i.id IS NULL",
    "attempts left open": f"SELECT id, state FROM attempts WHERE {OPEN}",
}
"""What must be empty."""


@dataclass
class Chaos:
    """A line, its Nomad, and the proxy between them; `runners` are the scripted ones of a simulated Nomad."""

    line: Line
    world: RealWorld | SimulatedWorld
    proxy: NomadProxy
    runners: ScriptedRunners | None
    engine: Engine
    repo: BareRepo
    commit: str = ""

    @property
    def sim(self) -> NomadSim:
        assert isinstance(self.world, SimulatedWorld)
        return self.world.sim

    @property
    def _orders(self) -> Path:
        return self.line.paths.root / "orders"

    @property
    def talk(self) -> Talk:
        return Talk(self.world)

    def start(self, wrong: str = "none") -> None:
        """Start the server, with something wrong in it if named (see chaos_server)."""
        self.line.server.start(CHAOTIC, {CHAOS: wrong, ORDERS: str(self._orders)})

    def shorten_lease(self) -> None:
        """Give silent runners up soon, from the next start on."""
        self.line.write_config({"limits": {"lease_seconds": SHORT_LEASE}})

    def push(self, *, held: bool = False) -> None:
        """Push a commit of one package, whose build waits for `release` if held."""
        if held and self.runners is not None:
            self.runners.close_gate("work")
        script = wait_for(self.line.paths.gate / GATE) if held else ""
        self.commit = self.repo.push_files(hello("in chaos", (AMD64,), script))

    def release(self) -> None:
        """Let builds go on."""
        if self.runners is not None:
            self.runners.gates["work"].set()
        self.line.open_gate(GATE)

    def sql(self, query: str) -> list[tuple[object, ...]]:
        """Ask the database, from outside."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    def building(self) -> tuple[str, Json]:
        """Wait until a build's runner holds its Attempt; the Attempt and its allocation in Nomad."""
        query = (
            "SELECT a.id FROM attempts a JOIN jobs j ON j.id = a.job_id WHERE j.kind = 'build' AND a.state = 'claimed'"
        )
        ((attempt,),) = eventually(lambda: self.sql(query), self.tell)
        self.talk.until(lambda: bool(self._running(str(attempt))))
        return str(attempt), self._running(str(attempt))[0]

    def _running(self, attempt: str) -> list[Json]:
        return [one for one in self.talk.allocs(f"alb-{attempt}") if one["ClientStatus"] == "running"]

    def attempts(self) -> list[tuple[object, ...]]:
        """Kind of the Job, number, state and reason of each Attempt."""
        return self.sql(
            "SELECT j.kind, a.number, a.state, a.reason FROM attempts a JOIN jobs j ON j.id = a.job_id "
            "ORDER BY j.kind DESC, a.number"
        )

    def tell(self) -> str:
        """What is known when something did not come."""
        return f"{self.attempts()}\n{self.line.server.log}"

    def ends_well(self) -> None:
        """Wait for the end, and hold it against everything that must be so."""
        self.line.wait_green(self.repo, self.commit)
        for what, query in NOTHING_IS.items():
            eventually(lambda query=query: not self.sql(query), lambda what=what: f"{what}: {self.tell()}")  # type: ignore[misc]
        assert self.sql('SELECT state, "commit" FROM builds') == [("succeeded", self.commit)]
        assert self.orders_given_twice() == {}
        eventually(lambda: not self.left_in_nomad(), lambda: f"{self.left_in_nomad()}\n{self.tell()}")

    def orders_given_twice(self) -> dict[str, int]:
        """Attempts whose order the servers gave to more than one runner; the same one may ask again."""
        given = set(self._orders.read_text().splitlines()) if self._orders.exists() else set()
        counts = Counter(line.split()[0] for line in given)
        return {attempt: count for attempt, count in counts.items() if count > 1}

    def left_in_nomad(self) -> list[str]:
        """Jobs of ours that nobody stopped, tasks that run or will, and tokens, as Nomad tells."""
        jobs = self.talk.say("GET", "/v1/jobs?prefix=alb-").response["body"]
        allocs = self.talk.say("GET", "/v1/allocations").response["body"]
        tokens = self.talk.say("GET", "/v1/vars?prefix=nomad/jobs/alb-").response["body"]
        alive = [one["ID"] for one in jobs if one["Status"] != "dead" and not one["Stop"]]
        tasks = [f"{one['JobID']} {one['ID']}" for one in allocs if one["ClientStatus"] in ("pending", "running")]
        return [*alive, *tasks, *(one["Path"] for one in tokens)]


@contextmanager
def open_chaos(kind: str, database_url: str) -> Iterator[Chaos]:
    """Everything but a started server: a Nomad of two clients, and a database."""
    runners = ScriptedRunners() if kind == "simulated" else None
    with nomad_world(kind, clients=2) as world, nomad_proxy(world.url) as proxy:
        if runners is not None:
            assert isinstance(world, SimulatedWorld)
            world.sim.outcome = scripted(runners)
        nomad = {"addresses": [proxy.url], "without_acl": True, "cpu_mhz": 50, "memory_mb": 256}
        changes: dict[str, dict[str, object]] = {
            "executor": {"kind": "nomad", "nix_store": "private"},
            "nomad": nomad,
            **({"database": {"url": database_url}} if database_url else {}),
        }
        with make_line(None, changes) as line:
            line.paths.data.mkdir(mode=0o700, exist_ok=True)
            if database_url:
                _make_tables(line)
            engine = create_engine(database_url or f"sqlite:///{line.paths.data / 'albatros.sqlite3'}")
            try:
                yield Chaos(line, world, proxy, runners, engine, line.repo())
            finally:
                engine.dispose()


def _make_tables(line: Line) -> None:
    """What an operator does once with PostgreSQL."""
    command = [sys.executable, "-m", "albatros", "db", "upgrade", "--config", str(line.paths.config)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)


def scripted(runners: ScriptedRunners) -> Callable[[Allocation], Calls]:
    """What a simulated Nomad's tasks do: they are these runners."""
    return lambda alloc: Calls(runners.function)
