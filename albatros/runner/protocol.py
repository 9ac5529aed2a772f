"""The runner's side of the runner protocol: HTTP/JSON over kept-alive connections, one a thread.

Connection errors, 5xx and 429 are tried again until the lease plus a restart's allowance has passed since the server
last answered anything; then, and on 401, 409 and 410, the Attempt is lost.
"""

import http.client
import json
import random
import threading
import time
from typing import NamedTuple, Protocol
from urllib.parse import quote, urlsplit

from albatros.runner import PROTOCOL_VERSION
from albatros.runner.failure import JobFailedError, LeaseLostError, Reason

RESTART_ALLOWANCE = 600.0
"""Seconds beyond the lease in which a server may be restarted."""
SOCKET_TIMEOUT = 60.0
ANSWER_LIMIT = 4 << 20
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


class Upload(Protocol):
    """A request's body that can be read from its start more than once."""

    size: int

    def open(self) -> "ReadableBody":
        """Open it at its start."""


class ReadableBody(Protocol):
    """What http.client reads from, and closes itself through us."""

    def read(self, size: int = -1, /) -> bytes:
        """Read at most `size` bytes."""

    def close(self) -> None:
        """Close the body."""


class Answer(NamedTuple):
    """An answer of the server: its status, and its JSON object (empty when it has none)."""

    status: int
    document: dict[str, object]

    @property
    def detail(self) -> str:
        """The sentence of a problem+json answer."""
        return str(self.document.get("detail") or self.document.get("title") or f"HTTP {self.status}")


class Beat(NamedTuple):
    """The answer to a heartbeat: the lease in seconds, and why to stop, or None."""

    lease_seconds: float
    stop: str | None


class Server:
    """The server, as one Attempt sees it. Safe to use from several threads."""

    def __init__(self, url: str, token: str, nonce: str, *, allowance: float = RESTART_ALLOWANCE) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url!r} is not an http or https URL")
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self.url, self.token = url, token
        self._prefix = parts.path.rstrip("/") + "/runner/v1"
        self._allowance = allowance
        self._local = threading.local()
        self._last_answer = time.monotonic()
        self._rng = random.Random()  # noqa: S311 - spreads retries, guards nothing
        self.nonce = nonce
        self.lease_seconds = 30.0
        self.lost = threading.Event()
        """Set when the Attempt is no longer ours; every call then ends with LeaseLostError."""

    def claim(self, host: str, pid: int, allocation: str | None = None) -> dict[str, object]:
        """Claim the Attempt; the order. `allocation` is what Nomad calls this run.

        Raises LeaseLostError when somebody else has it, or it is closed.
        """
        body = {"protocol": PROTOCOL_VERSION, "nonce": self.nonce, "host": host, "pid": pid, "allocation": allocation}
        answer = self._json("POST", "/claim", body)
        if answer.status != 200:
            raise self._lose(f"The claim was refused: {answer.detail}")
        return answer.document

    def heartbeat(self) -> Beat:
        """Keep the lease."""
        answer = self._checked(self._json("POST", "/heartbeat", {"nonce": self.nonce}))
        lease, stop = answer.document.get("lease_seconds"), answer.document.get("stop")
        if isinstance(lease, int | float) and lease > 0:
            self.lease_seconds = float(lease)
        return Beat(self.lease_seconds, stop if isinstance(stop, str) else None)

    def put_log(self, seq: int, offset: int, data: bytes) -> int:
        """Send one piece of the log; the seq to send next, which is lower than `seq` + 1 after a gap."""
        path = f"/log/{seq}?offset={offset}"
        answer = self._call("PUT", path, data, {"X-Albatros-Nonce": self.nonce})
        expected = answer.document.get("expected")
        if answer.status == 409 and isinstance(expected, int):
            return expected
        self._checked(answer)
        return seq + 1

    def missing_blobs(self, blobs: list[tuple[str, int]]) -> set[str]:
        """Which of these (digest, size in bytes) the server does not have for this Repo."""
        missing: set[str] = set()
        for start in range(0, len(blobs), 1000):
            batch = [{"digest": digest, "size": size} for digest, size in blobs[start : start + 1000]]
            answer = self._checked(self._json("POST", "/blobs/query", {"nonce": self.nonce, "blobs": batch}))
            listed = answer.document.get("missing")
            if isinstance(listed, list):
                missing.update(str(digest) for digest in listed)
        return missing

    def put_blob(self, digest: str, upload: Upload) -> None:
        """Upload a blob. Raises JobFailedError when the server has no room or takes nothing of this size."""
        answer = self._call("PUT", f"/blobs/{quote(digest, safe=':')}", upload, {"X-Albatros-Nonce": self.nonce})
        if answer.status in {413, 507}:
            raise JobFailedError(Reason.DISK_FULL, f"The server did not take an output: {answer.detail}")
        self._checked(answer)

    def ask_image(self, document: dict[str, object]) -> Answer:
        """Ask for an image of uploaded files to be published; the answer as it is: 202 with an `id`, or why not."""
        return self._json("POST", "/images", {"nonce": self.nonce, **document})

    def image_outcome(self, request_id: int) -> Answer:
        """How far such a request is; the answer as it is."""
        return self._call("GET", f"/images/{request_id}", b"", {"X-Albatros-Nonce": self.nonce})

    def result(self, document: dict[str, object]) -> None:
        """Report how the Job ended."""
        self._checked(self._json("POST", "/result", {"nonce": self.nonce, **document}))

    def hang_up(self) -> None:
        """Close this thread's connection; the next call opens another."""
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _json(self, method: str, path: str, document: dict[str, object]) -> Answer:
        return self._call(method, path, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _checked(self, answer: Answer) -> Answer:
        if answer.status in {401, 403, 404, 409, 410}:
            raise self._lose(answer.detail)
        if answer.status >= 300:
            raise JobFailedError(Reason.DRIVER, f"The server refused a call of the runner: {answer.detail}")
        return answer

    def _lose(self, why: str) -> LeaseLostError:
        self.lost.set()
        return LeaseLostError(why)

    def _call(self, method: str, path: str, body: bytes | Upload, headers: dict[str, str]) -> Answer:
        pause = FIRST_PAUSE
        while True:
            if self.lost.is_set():
                raise LeaseLostError("The Attempt is closed.")
            try:
                answer, retry_after = self._once(method, path, body, headers)
                # 507 is an answer about this blob, not a passing fault of the server.
                if answer.status != 429 and (answer.status < 500 or answer.status == 507):
                    self._last_answer = time.monotonic()
                    return answer
                why = answer.detail
            except (OSError, http.client.HTTPException) as error:
                self.hang_up()
                retry_after, why = 0.0, str(error) or type(error).__name__
            if time.monotonic() - self._last_answer > self.lease_seconds + self._allowance:
                raise self._lose(f"The server could not be reached: {why}")
            self.lost.wait(max(pause * self._rng.uniform(0.7, 1.3), retry_after))
            pause = min(pause * 2, LONGEST_PAUSE)

    def _once(self, method: str, path: str, body: bytes | Upload, headers: dict[str, str]) -> tuple[Answer, float]:
        connection = self._connection()
        headers = {**headers, "Authorization": f"Bearer {self.token}"}
        if isinstance(body, bytes):
            connection.request(method, self._prefix + path, body, headers)
        else:
            self._send_upload(connection, method, path, body, headers)
        response = connection.getresponse()
        data = response.read(ANSWER_LIMIT + 1)
        if len(data) > ANSWER_LIMIT or response.will_close:
            self.hang_up()
        return Answer(response.status, _document(data)), _seconds(response.getheader("Retry-After"))

    def _send_upload(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Upload, headers: dict[str, str]
    ) -> None:
        stream = body.open()
        try:
            connection.request(method, self._prefix + path, stream, {**headers, "Content-Length": str(body.size)})
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses a blob answers before it has read all of it; that answer is still there to read.
            if connection.sock is None:
                raise
        finally:
            stream.close()

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            connection = kind(self._host, self._port, timeout=SOCKET_TIMEOUT, blocksize=1 << 17)
            self._local.connection = connection
        return connection


def _document(data: bytes) -> dict[str, object]:
    try:
        value: object = json.loads(data) if data else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _seconds(retry_after: str | None) -> float:
    return min(float(retry_after), 60.0) if retry_after and retry_after.isdigit() else 0.0
