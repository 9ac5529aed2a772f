"""The HTTP face of the simulated Nomad: routes, blocking queries, and the two streams."""

import base64
import json
import re
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.nomad_sim_rows import SECOND, Json

if TYPE_CHECKING:
    from tests.support.nomad_sim import NomadSim

TOO_MANY = b"Your IP is issuing too many concurrent connections, please rate limit your calls\n"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": SECOND // 1000, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}
_LONGEST_WAIT = 300 * SECOND
_FRAME = 64 << 10


@dataclass(frozen=True)
class Ask:
    """A request, read."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    token: str
    topics: tuple[str, ...] = ()

    @property
    def namespace(self) -> str:
        return self.query.get("namespace", "default")


@dataclass
class Reply:
    """An answer: a document, a sentence, or pieces of a stream."""

    status: int = 200
    value: Any = None
    index: int | None = None
    read: bool = False
    """Whether it has the headers of a read."""
    next_token: str = ""
    stream: Iterator[bytes] | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def data(self) -> tuple[str, bytes]:
        """Its type and its bytes."""
        if isinstance(self.value, bytes):
            return "text/plain; charset=utf-8", self.value
        if isinstance(self.value, str) or self.status >= 400:
            text = self.value if isinstance(self.value, str) else json.dumps(self.value)
            return "text/plain; charset=utf-8", text.encode()
        return "application/json", b"" if self.value is None else json.dumps(self.value).encode()


class RefusedError(Exception):
    """An answer that is an error, with its status and its sentence."""

    def __init__(self, status: int, text: str, index: int | None = None, *, read: bool = False) -> None:
        super().__init__(text)
        self.reply = Reply(status, text, index, read)


def duration(text: str) -> int:
    """A Go duration in nanoseconds."""
    return int(sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text)))


def by_index(row: Json) -> str:
    """The token of allocations and evaluations, which come as they were made."""
    return f"{row['CreateIndex']:d}.{row['ID']}"


def by_name(row: Json) -> str:
    """The token of what comes by namespace and id, as jobs do; nodes have none of the former."""
    name = str(row["Path"] if "Path" in row else row["ID"])
    return f"{row['Namespace']}.{name}" if "Namespace" in row else name


def page(rows: list[Json], ask: Ask, token_of: Callable[[Json], str]) -> Reply:
    """One page of a sorted list; a row that went meanwhile is no longer the first of its page."""
    size = ask.query.get("per_page", "0")
    if not size.isdigit():
        raise RefusedError(400, "Expect a number for `per_page` query string parameter")
    if token := ask.query.get("next_token"):
        rows = [row for row in rows if _place(token_of(row), token_of) >= _place(token, token_of)]
    rest = rows[int(size) :] if int(size) else []
    following = token_of(rest[0]) if rest else ""
    return Reply(value=rows[: int(size)] if int(size) else rows, next_token=following, read=True)


def _place(token: str, token_of: Callable[[Json], str]) -> tuple[int, str]:
    """Where a token stands: those that begin with an index by that number, see Nomad's `CreateIndexAndIDTokenizer`."""
    first, _, rest = token.partition(".")
    return (int(first), rest) if token_of is by_index else (0, token)


def serve(sim: "NomadSim") -> ThreadingHTTPServer:
    """A server on loopback; threads of it end with their connections."""

    class Handler(_Handler):
        nomad = sim

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def process_request(self, request: Any, client_address: Any) -> None:
            with sim.counting:
                sim.connections += 1
                refused = sim.connections > sim.max_connections
            if refused:
                head = f"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nContent-Length: {len(TOO_MANY)}"
                request.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode() + TOO_MANY)
                self.shutdown_request(request)
                return
            super().process_request(request, client_address)

        def shutdown_request(self, request: Any) -> None:
            with sim.counting:
                sim.connections -= 1
                sim.sockets.discard(request)
            super().shutdown_request(request)

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that went away is no fault; others are shown by the base class."""
            if not isinstance(sys.exception(), OSError | ValueError):
                super().handle_error(request, client_address)  # type: ignore[arg-type]

    return Server(("127.0.0.1", sim.port), Handler)


class _Handler(BaseHTTPRequestHandler):
    nomad: "NomadSim"
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        with self.nomad.counting:
            self.nomad.sockets.add(self.connection)

    def _serve(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        split = urlsplit(self.path)
        query = parse_qs(split.query, keep_blank_values=True)
        token = self.headers.get("X-Nomad-Token") or self.headers.get("Authorization", "").removeprefix("Bearer ")
        first = {key: values[0] for key, values in query.items()}
        body = json.loads(text) if text else None
        ask = Ask(self.command, unquote(split.path), first, body, token, tuple(query.get("topic", ())))
        self.nomad.calls.append(f"{self.command} {self.path}")
        try:
            reply = self.nomad.answer(ask)
        except RefusedError as refused:
            reply = refused.reply
        if reply.stream is not None:
            self._stream(reply)
            return
        kind, data = reply.data()
        self.send_response_only(reply.status)
        headers = {"Content-Type": kind, "Content-Length": str(len(data)), **reply.headers}
        if reply.status == 204:
            headers = {}
        if reply.index is not None:
            headers["X-Nomad-Index"] = str(reply.index)
        if reply.read:
            headers |= {"X-Nomad-Knownleader": "true", "X-Nomad-Lastcontact": "0"}
        if reply.next_token:
            headers["X-Nomad-Nexttoken"] = reply.next_token
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, reply: Reply) -> None:
        """Nomad takes the connection over: the body ends with it."""
        assert reply.stream is not None
        self.close_connection = True
        self.send_response_only(200)
        for name, value in {"Connection": "close", "Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()
        for piece in reply.stream:
            self.wfile.write(piece)
            self.wfile.flush()

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - the names that http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
        return


def event_stream(sim: "NomadSim", ask: Ask) -> Iterator[bytes]:
    """NDJSON: a heartbeat at once and each 30 s, and what the buffer holds from the wanted index on.

    An index that is too old starts at the oldest entry, one that is too new at the last: see `StartAtClosest` in Nomad.
    """
    state, clock = sim.state, sim.clock
    wanted = int(ask.query.get("index") or 0)
    topics = [topic.partition(":")[::2] for topic in ask.topics] or [("*", "*")]
    namespace = ask.namespace
    generation = sim.generation
    with state.locked():
        held = list(state.events)
        start = next((serial for serial, index, _ in held if index >= wanted), held[-1][0] if held else 0)
        told = (start if wanted else held[0][0] if held else 1) - 1 if held else state.published

    def news(known: int) -> bool:
        return sim.generation != generation or (state.published > known and not sim.stream_silent)

    yield b"{}\n"
    beat = clock.now() + sim.heartbeat
    while True:
        with state.locked():
            clock.wait(partial(news, told), beat)
            if sim.generation != generation:
                return
            fresh = [] if sim.stream_silent else [entry for entry in state.events if entry[0] > told]
            if fresh and fresh[0][0] > told + 1:
                # It fell behind what the buffer holds: Nomad ends such a stream.
                return
            told = fresh[-1][0] if fresh else told
            late = clock.now() >= beat and not sim.stream_silent
            if clock.now() >= beat:
                beat = clock.now() + sim.heartbeat
        for _, index, events in fresh:
            chosen = [one for one in events if _wants(topics, namespace, one)]
            if chosen:
                yield json.dumps({"Index": index, "Events": chosen}).encode() + b"\n"
        if late:
            yield b"{}\n"


def _wants(topics: list[tuple[str, str]], namespace: str, event: Json) -> bool:
    if namespace != "*" and event["Namespace"] not in ("", namespace):
        return False
    keys = {"*", event["Key"], *(event["FilterKeys"] or [])}
    return any(topic in ("*", event["Topic"]) and (not key or key in keys) for topic, key in topics)


def log_frames(sim: "NomadSim", ask: Ask, read: Callable[[], bytes], name: str) -> Iterator[bytes]:
    """Frames of a log: pieces with their end as offset; with `follow`, heartbeats each second and no end."""
    plain = ask.query.get("plain") == "true"
    follow = ask.query.get("follow") == "true"
    generation = sim.generation
    data = read()
    offset = int(ask.query.get("offset") or 0)
    if ask.query.get("origin") == "end":
        offset = max(0, len(data) - offset)

    def more(known: int) -> bool:
        return sim.generation != generation or len(read()) > known

    while True:
        for start in range(offset, len(data), _FRAME):
            piece = data[start : start + _FRAME]
            frame = {"Data": base64.b64encode(piece).decode(), "File": name, "Offset": start + len(piece)}
            yield piece if plain else json.dumps(frame).encode()
        offset = max(offset, len(data))
        if not follow or sim.generation != generation:
            return
        with sim.state.locked():
            sim.clock.wait(partial(more, offset), sim.clock.now() + SECOND)
        data = read()
        if len(data) <= offset and not plain:
            yield b"{}"


def blocking(sim: "NomadSim", ask: Ask, index_of: Callable[[], int]) -> None:
    """Wait as a blocking query does, until what it asks for has another index, or its time is over."""
    wanted = int(ask.query.get("index") or 0)
    if wanted and ask.method == "GET":
        asked = duration(ask.query.get("wait", "")) or _LONGEST_WAIT
        deadline = sim.clock.now() + min(asked, _LONGEST_WAIT)
        generation = sim.generation
        sim.clock.wait(lambda: index_of() > wanted or sim.generation != generation, deadline)


def close_sockets(sim: "NomadSim") -> None:
    """Break every connection, as the end of a server does."""
    with sim.counting:
        for one in list(sim.sockets):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
