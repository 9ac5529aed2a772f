"""Real Nomad agents on loopback: `nomad agent -dev`, and a cluster of one server and two clients.

`nomad` is in no package registry: put it on PATH, see docs/testing.md.
"""

import json
import os
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.services.process import START_SECONDS, Account, free_port, private_dir
from tests.support.tls import Files
from tests.tools import find, require

NO_CLOUD = "env_aws,env_gce,env_azure,env_digitalocean"
"""Fingerprints that ask addresses of clouds, which nobody answers here, for many seconds."""
META = {"nix_system": "x86_64-linux"}
TLS_HOSTS = ("127.0.0.1", "localhost", "server.global.nomad", "client.global.nomad")
"""What the certificate of a dev agent has to be for."""


@dataclass
class Agent:
    """One agent: a server, a client or both; it keeps its data when it is stopped and started."""

    home: Path
    config: Mapping[str, object]
    url: str
    dev: bool = False
    context: ssl.SSLContext | None = None
    """What its HTTP API is asked with, when it speaks TLS."""
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it, and wait until its HTTP API answers and, for a server, until there is a leader."""
        path = self.home / "agent.json"
        path.write_text(json.dumps(self.config))
        # A CA of the machine's own for AWS would be read by a fingerprint that is off.
        env = {key: value for key, value in os.environ.items() if key != "AWS_CA_BUNDLE" and "NOMAD" not in key}
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [find("nomad"), "agent", *(["-dev"] if self.dev else []), "-config", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={**env, "TMPDIR": str(self.home)},
                start_new_session=True,
            )
        wait_for(self._answers, self.home / "log")

    def stop(self) -> None:
        """End it in an orderly way; tasks of a client that is no dev agent run on."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would, its tasks running on: see `reboot` for those."""
        self._end(signal.SIGKILL)

    def reboot(self) -> None:
        """What a restart of the machine is to Nomad: the agent and every task of it are gone, then the agent starts."""
        self.kill()
        self.end_tasks()
        self.start()

    def end_tasks(self) -> None:
        """Kill what runs still of this agent: its directory is in the environment or the command of each."""
        mark = str(self.home).encode()
        for pid in [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]:
            if pid != os.getpid() and any(mark in _read(pid, part) for part in ("environ", "cmdline")):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            try:
                self.process.wait(START_SECONDS)
            finally:
                self.process.kill()
                self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"nomad ended with {self.process.returncode}:\n{(self.home / 'log').read_text()}")
        try:
            with urllib.request.urlopen(f"{self.url}/v1/status/leader", timeout=30, context=self.context) as answer:
                return bool(json.load(answer))
        except (OSError, ValueError):
            return False


@dataclass(frozen=True)
class NomadServer:
    """A Nomad that tests talk to: its address, a management token when ACLs are on, and its agents by name."""

    url: str
    token: str = field(repr=False)
    agents: Mapping[str, Agent]
    context: ssl.SSLContext | None = None

    def call(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """One call; status and text of the answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"X-Nomad-Token": self.token}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=START_SECONDS, context=self.context) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def ready_nodes(self) -> int:
        """How many nodes take work."""
        status, text = self.call("GET", "/v1/nodes")
        return sum(node["Status"] == "ready" for node in json.loads(text)) if status == 200 else 0


@contextmanager
def start_dev(
    *, acl: bool = False, meta: Mapping[str, str] = META, tls: Files | None = None, **client: object
) -> Iterator[NomadServer]:
    """`nomad agent -dev` with raw_exec, and one ready node with this meta; `client` adds to its client block.

    With `tls` it speaks TLS everywhere, and only with who has a certificate of the same authority.
    """
    with ExitStack() as stack:
        block = {"meta": dict(meta), **client}
        agent = stack.enter_context(_agent("dev", dev=True, acl=acl, server={}, client=block, tls=tls))
        agent.start()
        yield _ready(agent, acl, {"dev": agent}, 1)


@contextmanager
def start_cluster(*, acl: bool = False, clients: int = 2) -> Iterator[NomadServer]:
    """One server and clients in processes of their own, `server`, `client-1`…; a silent node is soon down."""
    with ExitStack() as stack:
        timing = {"heartbeat_grace": "1s", "min_heartbeat_ttl": "1s", "max_heartbeats_per_second": 1000}
        block = {"enabled": True, "bootstrap_expect": 1, **timing}
        server = stack.enter_context(_agent("server", dev=False, acl=acl, server=block, client=None))
        agents = {"server": server}
        for number in range(1, clients + 1):
            name = f"client-{number}"
            ports = server.config["ports"]
            assert isinstance(ports, dict)
            join = {"enabled": True, "servers": [f"127.0.0.1:{ports['rpc']}"], "meta": META}
            agents[name] = stack.enter_context(_agent(name, dev=False, acl=acl, server=None, client=join))
        for agent in agents.values():
            agent.start()
        yield _ready(server, acl, agents, clients)


def _ready(server: Agent, acl: bool, agents: Mapping[str, Agent], nodes: int) -> NomadServer:
    token = ""
    if acl:
        request = urllib.request.Request(f"{server.url}/v1/acl/bootstrap", method="POST")
        with urllib.request.urlopen(request, timeout=START_SECONDS, context=server.context) as answer:
            token = json.load(answer)["SecretID"]
    nomad = NomadServer(server.url, token, agents, server.context)
    wait_for(lambda: nomad.ready_nodes() == nodes, server.home / "log")
    return nomad


@contextmanager
def _agent(
    name: str,
    *,
    dev: bool,
    acl: bool,
    server: Mapping[str, object] | None,
    client: Mapping[str, object] | None,
    tls: Files | None = None,
) -> Iterator[Agent]:
    # Nomad isolates tasks as root; for anybody else raw_exec works, and that is what the tests use.
    with private_dir(f"nomad-{name}", Account()) as home:
        ports = {kind: free_port() for kind in ("http", "rpc", "serf")}
        config: dict[str, object] = {
            "name": name,
            "bind_addr": "127.0.0.1",
            "advertise": dict.fromkeys(("http", "rpc", "serf"), "127.0.0.1"),
            "ports": ports,
            "disable_update_check": True,
            "disable_anonymous_signature": True,
            "acl": {"enabled": acl},
            "limits": {"http_max_conns_per_client": 100},
            "plugin": [{"raw_exec": [{"config": [{"enabled": True}]}]}],
        }
        if tls is not None:
            files = {"ca_file": str(tls.ca), "cert_file": str(tls.certificate), "key_file": str(tls.key)}
            config["tls"] = {
                "http": True,
                "rpc": True,
                "verify_server_hostname": True,
                "verify_https_client": True,
                **files,
            }
        if not dev:
            config["data_dir"] = str(home / "data")
        if server:
            config["server"] = server
        if client is not None:
            config["client"] = {**client, "options": {"fingerprint.denylist": NO_CLOUD}}
        url = f"{'https' if tls else 'http'}://127.0.0.1:{ports['http']}"
        agent = Agent(home, config, url, dev, tls.context() if tls else None)
        try:
            yield agent
        finally:
            agent.stop()
            agent.end_tasks()
            _unmount(home)


def _unmount(home: Path) -> None:
    """Nomad mounts each task's secrets directory when it is root, and a killed agent leaves them mounted."""
    mounts = [line.split(" ")[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{home}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=True)


def wait_for(check: Callable[[], bool], log: Path) -> None:
    """Wait until something is so; RuntimeError with the agent's log when it does not come."""
    deadline = time.monotonic() + START_SECONDS
    while not check():
        if time.monotonic() > deadline:
            raise RuntimeError(f"Nomad is not ready:\n{log.read_text(errors='replace')[-20000:]}")
        time.sleep(0.05)


def _read(pid: int, part: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{part}").read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="session")
def nomad_dev() -> Iterator[NomadServer]:
    """One dev agent for the session: a test's jobs have names of their own."""
    require("nomad")
    with start_dev() as nomad:
        yield nomad
