"""A proxy between Albatros and Nomad that loses, delays or repeats what was answered after it took effect."""

import http.client
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECONDS = 60
_PIECE = 64 << 10
_OWN = frozenset({"connection", "content-length", "transfer-encoding", "host", "date", "server"})


class Fault(Enum):
    """What happens to a call."""

    LOST = "Nomad did it, and the connection breaks before the answer"
    REFUSED = "it never reaches Nomad"
    REPEATED = "Nomad is given it twice, and the second answer comes back"
    LATE = "Nomad did it, and the answer comes after a second"
    BUSY = "429, and it never reaches Nomad"


@dataclass
class Rule:
    """The next `times` calls of this method whose path matches."""

    method: str
    path: str
    fault: Fault
    times: int = 1
    seen: int = 0
    """How many calls it met."""


@dataclass
class NomadProxy:
    """`rules` are looked at in their order; `silent` keeps event streams open, and nothing follows their first line."""

    upstream: str
    url: str = ""
    rules: list[Rule] = field(default_factory=list)
    silent: bool = False
    streams: int = 0
    """How many event streams were opened."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    def add(self, method: str, path: str, fault: Fault, times: int = 1) -> Rule:
        """A rule for calls whose path contains this pattern."""
        rule = Rule(method, path, fault, times)
        with self.lock:
            self.rules.append(rule)
        return rule

    def fault_of(self, method: str, path: str) -> Fault | None:
        """What is to happen to a call."""
        with self.lock:
            for rule in self.rules:
                if rule.times and rule.method == method and re.search(rule.path, path):
                    rule.times -= 1
                    rule.seen += 1
                    return rule.fault
        return None


@contextmanager
def nomad_proxy(upstream: str) -> Iterator[NomadProxy]:
    """A running proxy on loopback to the Nomad at this URL."""
    proxy = NomadProxy(upstream.removeprefix("http://"))

    class Handler(_Handler):
        state = proxy

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Broken connections are what it is for; a server that is killed breaks some too."""

    server = Server(("127.0.0.1", 0), Handler)
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: NomadProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/v1/event/stream"):
            self._stream()
            return
        fault = self.state.fault_of(self.command, self.path)
        if fault is Fault.REFUSED:
            self._break()
            return
        if fault is Fault.BUSY:
            self._answer(429, [("Content-Type", "text/plain")], b"slow down")
            return
        answer = self._ask(body)
        if fault is Fault.REPEATED:
            answer = self._ask(body)
        if fault is Fault.LATE:
            time.sleep(1)
        if fault is Fault.LOST:
            self._break()
            return
        self._answer(*answer)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the names that http.server calls

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection(self.state.upstream, timeout=SECONDS)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _OWN}
            upstream.request(self.command, self.path, body or None, headers)
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        except OSError:
            # Nomad is away: so is its proxy.
            self._break()
            raise
        finally:
            upstream.close()

    def _stream(self) -> None:
        """The bytes of an event stream as they come, both ways of ending included."""
        self.close_connection = True
        host, _, port = self.state.upstream.rpartition(":")
        with self.state.lock:
            self.state.streams += 1
        with socket.create_connection((host, int(port)), SECONDS) as upstream:
            lines = [f"{self.command} {self.path} HTTP/1.1", f"Host: {self.state.upstream}"]
            lines += [f"{name}: {value}" for name, value in self.headers.items() if name.lower() != "host"]
            upstream.sendall("\r\n".join([*lines, "", ""]).encode())
            upstream.settimeout(0.1)
            begun = False
            while not self.state.closing.is_set():
                try:
                    data = upstream.recv(_PIECE)
                except TimeoutError:
                    continue
                if not data:
                    return
                if self.state.silent and begun:
                    continue
                begun = begun or data.rstrip().endswith(b"{}")
                self.connection.sendall(data)

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _OWN:
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _break(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
        return
