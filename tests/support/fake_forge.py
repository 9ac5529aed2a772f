"""What the fakes of forges' APIs share: repos as dictionaries, and an HTTP server on loopback that can misbehave."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

Query = dict[str, list[str]]


@dataclass
class FakeRepo:
    """A repo: short names of branches and tags with the commit that each points to."""

    private: bool = False
    default_branch: str = "main"
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: set[str] = field(default_factory=set)
    statuses: dict[tuple[str, str], dict[str, object]] = field(default_factory=dict)
    people: dict[str, str] = field(default_factory=dict)
    pulls: dict[int, dict[str, object]] = field(default_factory=dict)
    hooks: dict[int, dict[str, object]] = field(default_factory=dict)
    rung: list[int] = field(default_factory=list)
    """Webhooks that a test delivery was asked of."""
    ring: Callable[[int], None] = lambda number: None
    """Sends the test of the webhook with this number."""
    made_hooks: int = 0
    hook_secrets: dict[int, str] = field(default_factory=dict)
    """What signs the deliveries of a webhook; never shown."""
    deploy_tokens: dict[int, dict[str, object]] = field(default_factory=dict)
    administered: bool = True
    """Whether the token's user is administrator of it."""

    def collaborator(self, login: str) -> tuple[int, object]:
        """What Gitea and GitHub answer of a person; ids count from 1."""
        if login not in self.people:
            return 404, {"message": "no user"}
        who = {"id": list(self.people).index(login) + 1, "login": login}
        return 200, {"permission": self.people[login], "user": who}


@dataclass
class FakeForge:
    """A server's state, which tests change as they like."""

    url: str = ""
    token: str = "forge-token-of-tests"
    repos: dict[str, FakeRepo] = field(default_factory=dict)
    answer: tuple[int, dict[str, str], bytes] | None = None
    """What to answer to everything instead."""
    calls: list[str] = field(default_factory=list)
    unchanged: int = 0
    """Calls that were answered 304."""
    etags = False

    def authorized(self, headers: Mapping[str, str]) -> bool:
        raise NotImplementedError

    def route(self, method: str, path: str, query: Query, body: object) -> tuple[int, object]:
        raise NotImplementedError


S = TypeVar("S", bound=FakeForge)


def page_of(items: list[dict[str, object]], query: Query, size: str, most: int) -> list[dict[str, object]]:
    """One page of a list; `size` names the parameter that says how long it is."""
    limit = min(most, int(query.get(size, ["30"])[0]))
    start = (int(query.get("page", ["1"])[0]) - 1) * limit
    return items[start : start + limit]


@contextmanager
def serve(state: S) -> Iterator[S]:
    """Serve a fake on a free loopback port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # header and body in one packet, or each call waits for a delayed acknowledgement

        def _serve(self) -> None:
            split = urlsplit(self.path)
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.calls.append(f"{self.command} {self.path}")
            headers: dict[str, str] = {}
            if state.answer is not None:
                status, headers, data = state.answer
            else:
                status, value = 401, object()
                if state.authorized({name.lower(): header for name, header in self.headers.items()}):
                    body = json.loads(text) if text else None
                    status, value = state.route(self.command, split.path, parse_qs(split.query), body)
                shown = {"message": "not authorized"} if status == 401 else value
                data = json.dumps(shown).encode() if status != 204 else b""
                if state.etags and status == 200 and self.command == "GET":
                    headers = {"ETag": f'W/"{hashlib.sha256(data).hexdigest()}"'}
                    if self.headers.get("If-None-Match") == headers["ETag"]:
                        state.unchanged += 1
                        status, data = 304, b""
            self.send_response(status)
            for name, header in headers.items():
                self.send_header(name, header)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 - the base class names them

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
