"""An OCI registry in memory that breaks rules and connections on request, as real ones behind real proxies do."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

CUT = "cut"
"""Close the connection without reading the body or answering."""
CUT_AFTER = "cut after"
"""Do what was asked, then close the connection without answering."""
CUT_HALFWAY = "cut halfway"
"""Take the first half of the body, then close the connection."""

HOLD = "hold"
"""Answer nothing until `let_go` is set, then do what was asked."""


@dataclass
class Fault:
    """What happens to the next `times` requests of this method whose path matches."""

    method: str
    path: str
    action: int | str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    times: int = 1


@dataclass
class Session:
    """An upload: what came until now, and how many answers it gave."""

    data: bytearray = field(default_factory=bytearray)
    step: int = 0


@dataclass
class FaultyRegistry:
    """Its content, its misbehaviour, and what it was asked."""

    host: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    absolute_location: bool = False
    login: tuple[str, str] | None = None
    bearer: bool = False
    realm: str = ""
    identity_token: str = ""
    tokens: dict[str, int] = field(default_factory=dict)
    """How many requests each is still good for."""
    scopes_refused: set[str] = field(default_factory=set)
    tokens_given: list[str] = field(default_factory=list)
    uploads: int = 0
    sessions: dict[str, "Session"] = field(default_factory=dict)
    forgetful: bool = False
    """Throw away what a broken request brought, as most registries do."""
    told_range: str | None = None
    """What to tell of every upload, instead of the truth."""
    least_chunk: int = 0
    most_at_once: int = 1 << 40
    """Bodies over this are answered 416, as GHCR does with a PATCH over 4 MiB."""
    elsewhere: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """Blobs of other names, by name and digest, that may be mounted."""
    token_life: int = 1 << 30
    """Requests after which a token is known no more."""
    token_ways: tuple[str, ...] = ("GET",)
    challenge_scope: str = ""
    page_size: int = 1000
    lock: threading.Lock = field(default_factory=threading.Lock)
    let_go: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"docker://{self.host}"

    def count(self, method: str, path: str = "") -> int:
        """How many requests of this kind came."""
        return sum(1 for m, p in self.requests if m == method and re.search(path, p))

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.requests.append((method, path))
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def faulty_registry() -> Iterator[FaultyRegistry]:
    """A running registry on loopback that behaves well until told otherwise."""
    registry = FaultyRegistry()

    class Handler(_Handler):
        state = registry

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        registry.host = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield registry
        finally:
            registry.let_go.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: FaultyRegistry
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    silent = False

    def do_GET(self) -> None:
        self._handle()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815 - the names that http.server calls

    def _handle(self) -> None:
        fault = self.state.take_fault(self.command, self.path)
        self.silent = False
        if fault is not None and fault.action == CUT:
            self.close_connection = True
            return
        length = int(self.headers.get("Content-Length") or 0)
        if fault is not None and fault.action == CUT_HALFWAY:
            self._keep(self.rfile.read(length // 2))
            self.close_connection = True
            return
        body = self.rfile.read(length)
        if fault is not None and isinstance(fault.action, int):
            self._answer(fault.action, fault.body, fault.headers)
            return
        if fault is not None and fault.action == HOLD:
            self.state.let_go.wait()
        self.silent = fault is not None and fault.action != HOLD
        if self.path.startswith("/token"):
            self._token(body)
        elif not self._authorized():
            self._answer(401, b"", {"WWW-Authenticate": self._challenge()})
        elif len(body) > self.state.most_at_once:
            self._answer(416, b"")
        else:
            self._serve(urlsplit(self.path).path, parse_qs(urlsplit(self.path).query), body)

    def _authorized(self) -> bool:
        given = self.headers.get("Authorization", "")
        if self.state.login is None:
            return True
        if not self.state.bearer:
            return given == self._basic()
        token = given.removeprefix("Bearer ")
        left = self.state.tokens.pop(token, 0)
        if left > 1:
            self.state.tokens[token] = left - 1
        return left > 0

    def _challenge(self) -> str:
        if not self.state.bearer:
            return 'Basic realm="test"'
        realm = self.state.realm or f"http://{self.state.host}/token"
        scope = f',scope="{self.state.challenge_scope}"' if self.state.challenge_scope else ""
        return f'Negotiate, Basic realm="test", Bearer realm="{realm}",service="test"{scope}'

    def _basic(self) -> str:
        assert self.state.login is not None
        return "Basic " + base64.b64encode(":".join(self.state.login).encode()).decode()

    def _token(self, body: bytes) -> None:
        state = self.state
        form = parse_qs(body.decode() if self.command == "POST" else urlsplit(self.path).query)
        if self.command not in state.token_ways:
            self._answer(404, b"")
            return
        if self.command == "POST" and form["grant_type"] == ["refresh_token"]:
            known = form["refresh_token"] == [state.identity_token]
        elif self.command == "POST":
            known = (form["username"][0], form["password"][0]) == state.login
        else:
            known = self.headers.get("Authorization") == self._basic()
        scopes = " ".join(form["scope"])
        if not known or scopes in state.scopes_refused:
            self._answer(401, b"{}")
            return
        token = f"token-{len(state.tokens_given)}"
        state.tokens_given.append(scopes)
        state.tokens[token] = state.token_life
        self._answer(200, json.dumps({"access_token": token, "expires_in": 300}).encode())

    def _serve(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        if match := re.fullmatch(r"/v2/(.+)/blobs/uploads/(\w*)", path):
            self._upload(match[1], query, body)
        elif match := re.fullmatch(r"/v2/(.+)/blobs/(sha256:\w+)", path):
            data = self.state.blobs.get(match[2])
            self._answer(404 if data is None else 200, data or b"")
        elif match := re.fullmatch(r"/v2/(.+)/manifests/(.+)", path):
            self._manifest(match[1], match[2], body)
        elif match := re.fullmatch(r"/v2/(.+)/tags/list", path):
            self._tags(match[1], query)
        else:
            self._answer(404, b"")

    def _upload(self, name: str, query: dict[str, list[str]], body: bytes) -> None:
        state = self.state
        if self.command == "POST":
            found = state.elsewhere.get((query.get("from", [""])[0], query.get("mount", [""])[0]))
            if found is not None:
                state.blobs[query["mount"][0]] = found
                self._answer(201, b"")
                return
            state.uploads += 1
            key = f"u{state.uploads}"
            state.sessions[key] = Session()
            least = {"OCI-Chunk-Min-Length": str(state.least_chunk)} if state.least_chunk else {}
            self._answer(202, b"", self._place(name, key) | least)
            return
        key = urlsplit(self.path).path.rpartition("/")[2]
        session = state.sessions[key]
        assert query["state"] == ["a/b"], "the client lost the query of the Location"
        assert query["step"] == [str(session.step)], "the client did not take the newest Location"
        if self.command == "GET":
            self._answer(204, b"", self._place(name, key))
        elif self.command == "PATCH":
            self._patch(name, key, session, body)
        else:
            self._close(query["digest"][0], bytes(session.data) + body)

    def _patch(self, name: str, key: str, session: Session, body: bytes) -> None:
        start, _, end = self.headers["Content-Range"].partition("-")
        if int(start) != len(session.data) or int(end) - int(start) + 1 != len(body):
            self._answer(416, b"")
            return
        session.data += body
        self._answer(202, b"", self._place(name, key))

    def _close(self, digest: str, data: bytes) -> None:
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            self._answer(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}')
            return
        self.state.blobs[digest] = data
        self._answer(201, b"")

    def _place(self, name: str, key: str) -> dict[str, str]:
        session = self.state.sessions[key]
        session.step += not self.silent
        location = f"/v2/{name}/blobs/uploads/{key}?state=a%2Fb&step={session.step}"
        absolute = f"http://{self.state.host}{location}" if self.state.absolute_location else location
        told = self.state.told_range or f"0-{max(0, len(session.data) - 1)}"
        return {"Location": absolute, "Range": told}

    def _keep(self, part: bytes) -> None:
        session = self.state.sessions.get(urlsplit(self.path).path.rpartition("/")[2])
        if session is not None and not self.state.forgetful:
            session.data += part

    def _manifest(self, name: str, reference: str, body: bytes) -> None:
        if self.command == "PUT":
            digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
            kind = self.headers["Content-Type"]
            self.state.manifests[name, reference] = self.state.manifests[name, digest] = (kind, body)
            self._answer(201, b"", {"Docker-Content-Digest": digest})
            return
        kind, data = self.state.manifests.get((name, reference), ("", b""))
        self._answer(200 if kind else 404, data, {"Content-Type": kind} if kind else {})

    def _tags(self, name: str, query: dict[str, list[str]]) -> None:
        every = sorted(tag for owner, tag in self.state.manifests if owner == name and not tag.startswith("sha256:"))
        after = [tag for tag in every if tag > query.get("last", [""])[0]]
        page = after[: self.state.page_size]
        more = {"Link": f'</v2/{name}/tags/list?n=1000&last={page[-1]}>; rel="next"'} if after[len(page) :] else {}
        self._answer(200 if every else 404, json.dumps({"name": name, "tags": page}).encode(), more)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        if self.silent:
            self.close_connection = True
            return
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""
