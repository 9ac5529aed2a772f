"""`albatros serve` as an operator starts it: a process of its own, told by signals, judged by its log and its API."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tests.tools import ROOT

T = TypeVar("T")
STARTED = " recovered="
START_SECONDS = 180
STOP_SECONDS = 180
WAIT_SECONDS = 240
SERVE = ("-m", "albatros", "serve")


def eventually(look: Callable[[], T | None], what: Callable[[], str], seconds: float = WAIT_SECONDS) -> T:
    """What `look` gives as soon as it is something; AssertionError with `what()` when it stays nothing."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"nothing after {seconds} s: {what()}")
        time.sleep(0.05)


class ServerProcess:
    """One server on one config file; it may be started, ended and killed again and again."""

    def __init__(self, config: Path, log: Path, url: str) -> None:
        self.url = url
        self.token = ""
        """A token to read with, where not everybody may."""
        self.config = config
        self._log = log
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What the newest start has logged so far."""
        return self._log.read_bytes()[self._log_start :].decode("utf-8", "replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def launch(self, program: Sequence[str] = SERVE, environment: Mapping[str, str] | None = None) -> None:
        """Start it, and do not wait."""
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *program, "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, "PYTHONFAULTHANDLER": "1", **(environment or {})},
                start_new_session=True,
            )

    def start(self, program: Sequence[str] = SERVE, environment: Mapping[str, str] | None = None) -> None:
        """Start it, and wait until it serves."""
        self.launch(program, environment)
        eventually(lambda: self.has_ended() or STARTED in self.log, lambda: self.log, START_SECONDS)
        if STARTED not in self.log:
            raise AssertionError(f"the server ended at its start:\n{self.log}")

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for its end; the exit status."""
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            # Python's fault handler writes where each thread stands.
            self._process.send_signal(signal.SIGABRT)
            self._process.wait()
            raise AssertionError(f"the server did not end:\n{self.log}") from None

    def interrupt(self) -> None:
        """Ctrl-C."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)

    def stop(self) -> int:
        """Ctrl-C, and wait; the exit status."""
        self.interrupt()
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def call(self, method: str, path: str, body: object = None, token: str = "") -> tuple[int, dict[str, object]]:
        """Call the REST API; the status and the JSON object."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        return self.send(urllib.request.Request(self.url + path, data, headers, method=method))

    def send(self, request: urllib.request.Request) -> tuple[int, dict[str, object]]:
        """Send a request as it is; the status and the JSON object of the answer."""
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.request.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"{}")

    def get(self, path: str) -> dict[str, object]:
        """Read something of the API."""
        status, found = self.call("GET", path, token=self.token)
        assert status == 200, (path, status, found)
        return found

    def read(self, path: str) -> bytes:
        """Read some bytes of the API."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers), timeout=60) as answer:
            return bytes(answer.read())

    def text(self, path: str) -> str:
        """Read some text of the API."""
        return self.read(path).decode("utf-8", "replace")
