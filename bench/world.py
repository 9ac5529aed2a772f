"""What measurements stand on: a server in a process of its own, and the native program that plays what is around it."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TypeVar

from bench.report import ROOT
from tests.services.process import answers, free_port
from tests.support.line import Line

T = TypeVar("T")
POLL_SECONDS = 0.001
SETTLE_SECONDS = 5.0
ZEROS = "0" * 40


@cache
def load_program() -> Path:
    """The native program, compiled once for this run, where the runner's user can execute it."""
    directory = Path(mkdtemp(prefix="albatros-bench-"))
    directory.chmod(0o755)
    program = directory / "load"
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-trimpath"}
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=ROOT / "bench" / "load", env=environment, check=True)
    return program


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a process."""

    pid: int

    def resident(self) -> float:
        """MiB now."""
        return self._status("VmRSS")

    def peak(self) -> float:
        """MiB at most since the start, or since `forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Begin a new peak (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")

    def _status(self, key: str) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key + ":"))


class Rows:
    """The server's database, read from outside over one connection."""

    def __init__(self, line: Line) -> None:
        path = line.paths.data / "albatros.sqlite3"
        self._connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=20, isolation_level=None)

    def value(self, query: str, *parameters: object) -> int:
        """The first number of the first row, 0 without one."""
        row = self._connection.execute(query, parameters).fetchone()
        return 0 if row is None or row[0] is None else int(row[0])


def wait_for(look: Callable[[], T], what: str, seconds: float = 120, pause: float = POLL_SECONDS) -> T:
    """What `look` gives as soon as it is something. Raises RuntimeError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds:.0f} s: {what}")
        time.sleep(pause)
    return found


class PlayedForge:
    """A Gitea as far as the server can tell, played by the native program; its pushes are webhooks alone."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.port = free_port()
        self._heads: dict[str, str] = {}

    def configure(self) -> None:
        """Name this forge in the server's config, which must not have been started yet."""
        forge = {
            "name": "played",
            "kind": "gitea",
            "url": f"http://127.0.0.1:{self.port}",
            "repos": ["bench/*"],
            "webhook_secret_file": str(self._line.paths.secret),
        }
        self._line.write_config({"forges": [forge]})

    @property
    def webhook(self) -> str:
        return f"{self._line.server.url}/webhooks/played"

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Take statuses while the block lasts."""
        command = [str(load_program()), "forge", "-listen", f"127.0.0.1:{self.port}"]
        with subprocess.Popen(command) as process:
            try:
                wait_for(answers(f"http://127.0.0.1:{self.port}/"), "the played forge", 10, 0.02)
                yield
            finally:
                process.kill()

    def push(self, name: str) -> None:
        """A webhook for a new commit on the main branch of `bench/NAME`."""
        commit = secrets.token_hex(20)
        owner = {"login": "bench"}
        repository = {"name": name, "full_name": f"bench/{name}", "owner": owner, "private": False}
        body = json.dumps(
            {
                "ref": "refs/heads/main",
                "before": self._heads.get(name, ZEROS),
                "after": commit,
                "repository": {**repository, "default_branch": "main"},
                "pusher": owner,
                "head_commit": {"id": commit, "message": "bench"},
            }
        ).encode()
        headers = {"X-Gitea-Event": "push", "X-Gitea-Delivery": commit, "X-Gitea-Signature": sign(self._line, body)}
        send(self.webhook, body, headers)
        self._heads[name] = commit


def sign(line: Line, body: bytes) -> str:
    """The webhook signature of a body, hexadecimal."""
    return hmac.new(line.secret.encode(), body, hashlib.sha256).hexdigest()


def send(url: str, body: bytes, headers: dict[str, str]) -> dict[str, object]:
    """Post a webhook; its answer. Raises HTTPError unless it is taken."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=30) as answer:
        document: dict[str, object] = json.loads(answer.read())
    return document


def play_runners(line: Line, *arguments: str) -> None:
    """From now on the executor starts the bench's own runners: they speak the protocol, and neither clone nor build."""
    program = str(load_program())
    script = f"import os\nos.execv({program!r}, {[program, 'runner', *arguments]!r})\n"
    zipapp = line.paths.data / "runner" / "albatros-runner.pyz"
    draft = zipapp.with_suffix(".bench")
    draft.write_text(script, encoding="utf-8")
    draft.chmod(0o644)
    draft.replace(zipapp)
