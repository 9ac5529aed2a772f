"""A Nomad executor for tests, with something that serves its runner to the nodes."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

from albatros.executors import nomad
from albatros.executors.nomad import NomadExecutor
from albatros.executors.nomad_job import RunnerSource
from albatros.settings import NomadSettings

T = TypeVar("T")

# A machine under load takes its time, which is no sign that Nomad has too much to do.
nomad.SLOW_SECONDS = 200.0


@contextmanager
def serve_zipapp(content: bytes) -> Iterator[str]:
    """A server whose every answer is this file; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def do_PUT(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def open_nomad(url: str, token: str, zipapp: bytes, installation: str = "tests", **changes: object) -> NomadExecutor:
    """An executor that knows its cluster."""
    document = {"addresses": [url], "token": token, "without_acl": not token, "cpu_mhz": 50, "memory_mb": 64, **changes}
    source = RunnerSource(hashlib.sha256(zipapp).hexdigest(), "")
    executor = NomadExecutor(NomadSettings.model_validate(document), source, installation)
    wait_until(lambda: executor.slots() or None)
    return executor


def wait_until(ask: Callable[[], T | None]) -> T:
    """The first answer that is not None; the test's timeout ends a wait for nothing."""
    while (answer := ask()) is None:
        time.sleep(0.02)
    return answer
