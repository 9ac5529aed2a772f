"""Debian's docker-registry (distribution 2.8), empty, on a free loopback port."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.services.process import answers, free_port, private_dir, running, unprivileged
from tests.tools import find, require

_CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: false}}}}
storage:
  {storage}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
"""
_ACCESS_LINE = re.compile(r'"(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[\d.]+" (?P<status>\d{3}) ')


@dataclass(frozen=True, slots=True)
class Request:
    """One request that the registry answered."""

    method: str
    path: str
    status: int


@dataclass(frozen=True, slots=True)
class RegistryServer:
    """A running registry that speaks plain HTTP and asks for no credential."""

    host: str
    root: Path
    log: Path

    @property
    def url(self) -> str:
        """The URL of a configured registry: `docker://HOST`."""
        return f"docker://{self.host}"

    def requests(self) -> list[Request]:
        """What it answered since it started, in order, without the readiness checks."""
        found = (_ACCESS_LINE.search(line) for line in self.log.read_text(errors="replace").splitlines())
        every = [Request(m["method"], m["path"], int(m["status"])) for m in found if m]
        return [request for request in every if request.path != "/v2/"]


@contextmanager
def start_registry(port: int | None = None, *, in_memory: bool = False) -> Iterator[RegistryServer]:
    """A registry of its own, for a test that counts requests or stops it; on a free port if none is given.

    `in_memory`: nothing on the disk, for a test that pushes very often.
    """
    require("docker-registry")
    account = unprivileged()
    with private_dir("registry", account) as home:
        port = port or free_port()
        config = home / "config.yml"
        storage = "inmemory: {}" if in_memory else f"filesystem: {{rootdirectory: {home / 'data'}}}"
        config.write_text(_CONFIG.format(storage=storage, port=port))
        log = home / "log"
        command = [find("docker-registry"), "serve", str(config)]
        with running(command, log=log, ready=answers(f"http://127.0.0.1:{port}/v2/"), account=account):
            yield RegistryServer(f"127.0.0.1:{port}", home / "data", log)


@pytest.fixture
def registry_server() -> Iterator[RegistryServer]:
    """An empty registry for one test."""
    with start_registry() as server:
        yield server
