"""A Nomad for a test, simulated or real, with the same things that can be done to it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.services.nomad import Agent, NomadServer, start_cluster, start_dev
from tests.support.nomad_sim import MANAGEMENT, NomadSim, simulated_nomad
from tests.support.nomad_sim_rows import SECOND
from tests.tools import require

SECRET = "5ecced00-0000-4000-8000-000000000001"
KINDS = ("simulated", "real")


@dataclass(frozen=True)
class RealWorld:
    """Agents that run."""

    nomad: NomadServer

    @property
    def url(self) -> str:
        return self.nomad.url

    @property
    def token(self) -> str:
        return self.nomad.token

    def lose(self, name: str) -> None:
        self._agent(name).kill()

    def bring_back(self, name: str) -> None:
        self._agent(name).start()

    def reboot(self, name: str) -> None:
        self._agent(name).reboot()

    def power_off(self, name: str) -> None:
        """The machine is gone, and its tasks with it."""
        self._agent(name).kill()
        self._agent(name).end_tasks()

    def restart_server(self) -> None:
        """The server's process ends and starts again."""
        server = self.nomad.agents["server"]
        server.kill()
        server.start()

    def _agent(self, name: str) -> Agent:
        return self.nomad.agents[name]


@dataclass(frozen=True)
class SimulatedWorld:
    """The simulated Nomad."""

    sim: NomadSim

    @property
    def url(self) -> str:
        return self.sim.url

    @property
    def token(self) -> str:
        return next(iter(self.sim.tokens), "")

    def lose(self, name: str) -> None:
        self.sim.disconnect(name)

    def bring_back(self, name: str) -> None:
        self.sim.reconnect(name)

    def reboot(self, name: str) -> None:
        self.sim.power_off(name)
        self.sim.power_on(name)

    def power_off(self, name: str) -> None:
        """The machine is gone, and its tasks with it."""
        self.sim.power_off(name)

    def restart_server(self) -> None:
        """Its connections break, and its buffer of events is empty."""
        self.sim.restart_server()


@contextmanager
def nomad_world(kind: str, *, clients: int, acl: bool = False) -> Iterator[RealWorld | SimulatedWorld]:
    """A fresh Nomad with these clients, whose silence is noticed within seconds; one real client is a dev agent."""
    if kind == "simulated":
        with tempfile.TemporaryDirectory() as home, simulated_nomad(Path(home), nodes=clients) as sim:
            sim.node_patience = SECOND
            sim.tokens = {SECRET: MANAGEMENT} if acl else {}
            yield SimulatedWorld(sim)
        return
    require("nomad")

    with start_dev(acl=acl) if clients == 1 else start_cluster(acl=acl, clients=clients) as nomad:
        yield RealWorld(nomad)
