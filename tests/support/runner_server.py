"""A small HTTP server that speaks the runner protocol to one real runner, records every call, and can misbehave."""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

TOKEN = "attempt-token-0123456789"


@dataclass(frozen=True, slots=True)
class Call:
    """One request, and the status it was answered with."""

    method: str
    path: str
    body: bytes
    status: int


@dataclass(slots=True)
class Fault:
    """Answers the next `times` matching requests wrongly: `status` 0 drops the connection before reading the body."""

    matches: Callable[[str, str], bool]
    status: int
    times: int
    after_work: bool = False


@dataclass
class RunnerServer:
    """State of the one Attempt that it knows."""

    order: dict[str, object]
    faults: list[Fault] = field(default_factory=list)
    known_blobs: set[str] = field(default_factory=set)
    stop: str | None = None
    closed: bool = False
    calls: list[Call] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    pieces: dict[int, bytes] = field(default_factory=dict)
    result: dict[str, object] | None = None
    nonce: str | None = None

    def __post_init__(self) -> None:
        state, self._lock = self, threading.Lock()

        class Handler(_Handler):
            server_state = state

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def log(self) -> str:
        return b"".join(data for _, data in sorted(self.pieces.items())).decode()

    def count(self, part: str) -> int:
        return sum(part in call.path for call in self.calls)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def fault(self, method: str, path: str, *, after_work: bool) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and fault.after_work == after_work and fault.matches(method, path):
                    fault.times -= 1
                    return fault
        return None

    def answer(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, object]]:
        """What a faultless server answers."""
        with self._lock:
            if headers.get("authorization") != f"Bearer {TOKEN}":
                return 401, {"detail": "bad token"}
            name = path.removeprefix("/runner/v1/").partition("?")[0].partition("/")[0]
            nonce = headers.get("x-albatros-nonce")
            document: dict[str, object] = {}
            if headers.get("content-type") == "application/json":
                document = cast("dict[str, object]", json.loads(body))
                nonce = cast("str", document["nonce"])
            if name == "claim":
                return self._claim(document)
            if self.closed:
                return 410, {"detail": "the attempt is closed"}
            if nonce != self.nonce:
                return 409, {"detail": "another runner has the attempt"}
            calls = {"heartbeat": self._heartbeat, "result": self._result, "log": self._log}
            if name == "blobs":
                return self._query(document) if method == "POST" else self._blob(path, body)
            return calls[name](path, body, document)

    def _claim(self, document: dict[str, object]) -> tuple[int, dict[str, object]]:
        if document["protocol"] != 1:
            return 426, {"detail": "another protocol"}
        if self.nonce not in {None, document["nonce"]}:
            return 409, {"detail": "claimed already"}
        self.nonce = cast("str", document["nonce"])
        return 200, self.order

    def _heartbeat(self, path: str, body: bytes, document: dict[str, object]) -> tuple[int, dict[str, object]]:
        return 200, {"lease_seconds": self.order["lease_seconds"], "stop": self.stop}

    def _result(self, path: str, body: bytes, document: dict[str, object]) -> tuple[int, dict[str, object]]:
        if self.result not in (None, document):
            return 410, {"detail": "another result is here"}
        self.result = document
        return 200, {}

    def _log(self, path: str, body: bytes, document: dict[str, object]) -> tuple[int, dict[str, object]]:
        place, _, offset = path.rpartition("/")[2].partition("?offset=")
        seq, size = int(place), sum(len(data) for data in self.pieces.values())
        if seq > len(self.pieces):
            return 409, {"detail": "a gap", "expected": len(self.pieces)}
        if seq == len(self.pieces):
            assert int(offset) == size, f"piece {seq} says offset {offset}, and {size} bytes are here"
            assert 0 < len(body) <= 64 << 10, f"piece {seq} has {len(body)} bytes"
            self.pieces[seq] = body
        return 204, {}

    def _query(self, document: dict[str, object]) -> tuple[int, dict[str, object]]:
        blobs = cast("list[dict[str, object]]", document["blobs"])
        have = self.known_blobs | self.blobs.keys()
        return 200, {"missing": [blob["digest"] for blob in blobs if blob["digest"] not in have]}

    def _blob(self, path: str, body: bytes) -> tuple[int, dict[str, object]]:
        digest = path.rpartition("/")[2]
        if digest != "sha256:" + hashlib.sha256(body).hexdigest():
            return 400, {"detail": "digest mismatch"}
        self.blobs[digest] = body
        return 201, {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: RunnerServer
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        state = self.server_state
        fault = state.fault(self.command, self.path, after_work=False)
        if fault is not None and fault.status == 0:
            self._drop()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        document: dict[str, object] = {"detail": "a fault of the test"}
        if fault is not None:
            status = fault.status
        else:
            received = {key.lower(): value for key, value in self.headers.items()}
            status, document = state.answer(self.command, self.path, body, received)
            late = state.fault(self.command, self.path, after_work=True)
            if late is not None:
                self._drop()
                return
        state.calls.append(Call(self.command, self.path, body, status))
        data = b"" if status == 204 else json.dumps(document).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _drop(self) -> None:
        self.server_state.calls.append(Call(self.command, self.path, b"", 0))
        self.close_connection = True

    do_POST = do_PUT = _serve  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
        return


def paths_of_calls(server: RunnerServer) -> Counter[str]:
    """How often each path was called."""
    return Counter(call.path.partition("?")[0] for call in server.calls)
