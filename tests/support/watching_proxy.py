"""A proxy before a registry that sees every request, and kills the process that sends them at a chosen moment."""

import http.client
import json
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from albatros.domain import media

SECONDS = 60
TOO_LARGE = "send a blob that is too large"


class Stage(Enum):
    """How far a request is when its sender dies."""

    BEFORE = "before it reaches the registry"
    HALFWAY = "with half of its body there"
    AFTER = "done and not answered"


@dataclass(frozen=True, slots=True)
class Request:
    """One request: what it is for, and whether it brings a body."""

    kind: str
    path: str
    has_body: bool

    @property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(Stage) if self.has_body else (Stage.BEFORE, Stage.AFTER)


@dataclass(frozen=True, slots=True)
class Moment:
    """A stage of the request number `number`, from 0, of its kind: in this order alone are parallel requests alike."""

    kind: str
    number: int
    stage: Stage


def moments_of(requests: Sequence[Request], count: int) -> list[Moment]:
    """`count` moments spread evenly over the requests; each kind takes its stages in turn."""
    found: list[Moment] = []
    for index in range(count):
        position = index * len(requests) // count
        request = requests[position]
        number = sum(before.kind == request.kind for before in requests[:position])
        taken = sum(moment.kind == request.kind for moment in found)
        found.append(Moment(request.kind, number, request.stages[taken % len(request.stages)]))
    return found


@dataclass
class WatchingProxy:
    """`passed` are the requests that the registry was given whole; `limit` bounds the body of a PUT of a blob."""

    upstream: str
    limit: int
    host: str = ""
    requests: list[Request] = field(default_factory=list)
    passed: list[Request] = field(default_factory=list)
    moment: Moment | None = None
    _victim: "subprocess.Popen[bytes] | None" = None
    _started: threading.Event = field(default_factory=threading.Event)
    _state: threading.Condition = field(default_factory=threading.Condition)
    _counts: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    errors: list[BaseException] = field(default_factory=list)

    def watch(self, moment: Moment | None = None) -> None:
        """Forget what was seen, and wait for this moment of the process that `victim` will name."""
        self.requests, self.passed, self._counts = [], [], Counter()
        self.moment, self._victim = moment, None
        self._started.clear()

    def victim(self, process: "subprocess.Popen[bytes]") -> None:
        """Who sends the requests and is to be killed."""
        self._victim = process
        self._started.set()

    def settle(self) -> None:
        """Wait until the registry is done with everything that reached it, since its sender is gone."""
        with self._state:
            assert self._state.wait_for(lambda: self.connections == 0, SECONDS)
        assert self.errors == []

    def was_passed(self, kind: str, name: str) -> bool:
        """Whether the registry was given a whole request of this kind about an image."""
        return any(request.kind == kind and request.path.startswith(f"/v2/{name}/") for request in self.passed)

    def connected(self, change: int) -> None:
        """A connection came (1) or went (-1)."""
        with self._state:
            self.connections += change
            self._state.notify_all()

    def enter(self, request: Request) -> Stage | None:
        """Note a request; the stage at which its sender is to be killed."""
        with self._state:
            number = self._counts[request.kind]
            self._counts[request.kind] += 1
            self.requests.append(request)
            wanted = self.moment
        return wanted.stage if wanted and (wanted.kind, wanted.number) == (request.kind, number) else None

    def kill(self) -> None:
        """End the sender as nothing can be caught."""
        assert self._started.wait(SECONDS)
        assert self._victim is not None
        self._victim.kill()
        self._victim.wait()


@contextmanager
def watching_proxy(upstream: str, limit: int) -> Iterator[WatchingProxy]:
    """A running proxy on loopback to the registry at `HOST:PORT`."""
    proxy = WatchingProxy(upstream, limit=limit)

    class Handler(_Handler):
        state = proxy

    with _Server(("127.0.0.1", 0), Handler) as server:
        server.proxy = proxy
        proxy.host = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    proxy: WatchingProxy

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever was killed has broken connections; anything else is a fault of this proxy."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.proxy.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    state: WatchingProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.state.connected(1)

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self.state.connected(-1)

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return
        request = Request(self._kind(body), self.path, bool(body))
        self._pass_on(request, body, self.state.enter(request))

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names that http.server calls

    def _pass_on(self, request: Request, body: bytes, stage: Stage | None) -> None:
        if stage is Stage.BEFORE:
            self._end()
            return
        if request.kind == TOO_LARGE:
            if stage is not None:
                self._end()
                return
            self._answer(413, [], b"")
            return
        upstream = http.client.HTTPConnection(self.state.upstream, timeout=SECONDS)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for key, value in self.headers.items():
                upstream.putheader(key, value)
            upstream.endheaders()
            half = len(body) // 2
            upstream.send(body[:half])
            if stage is Stage.HALFWAY:
                self._end()
                return
            upstream.send(body[half:])
            self.state.passed.append(request)
            answer = upstream.getresponse()
            data = answer.read()
        finally:
            upstream.close()
        if stage is Stage.AFTER:
            self._end()
            return
        self._answer(answer.status, answer.getheaders(), data)

    def _end(self) -> None:
        self.state.kill()
        self.close_connection = True

    def _answer(self, status: int, headers: Sequence[tuple[str, str]], data: bytes) -> None:
        self.send_response_only(status)
        told = {key.lower() for key, _ in headers}
        for key, value in headers:
            self.send_header(key, value)
        if "content-length" not in told and status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _kind(self, body: bytes) -> str:
        what, method = urlsplit(self.path), self.command
        if "/blobs/uploads/" in what.path:
            return self._upload(what.query, len(body))
        if "/blobs/" in what.path:
            return f"{method} a blob"
        reference = what.path.rpartition("/")[2]
        if re.fullmatch(r"sha256-\w+(\.sig)?", reference):
            return f"{method} {'signature' if reference.endswith('.sig') else 'fallback'} tag"
        if not reference.startswith("sha256:"):
            return f"{method} tag"
        return f"{method} {self._document(body)} by digest" if method == "PUT" else f"{method} by digest"

    def _upload(self, query: str, size: int) -> str:
        if self.command == "POST":
            return "mount a blob" if "mount=" in query else "begin an upload"
        if self.command != "PUT":
            return f"{self.command} of a part"
        if size > self.state.limit:
            return TOO_LARGE
        return "send a blob whole" if size else "close an upload"

    def _document(self, body: bytes) -> str:
        if self.headers["Content-Type"] == media.INDEX:
            return "index"
        return "proof" if "subject" in json.loads(body) else "manifest"

    def log_message(self, *args: object) -> None:
        """Say nothing."""
