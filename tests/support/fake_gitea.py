"""A small server that answers the calls of Gitea's API that Albatros makes, as Gitea 1.26 answers them."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


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


@dataclass
class FakeGitea:
    """The server's state, which tests change as they like."""

    url: str = ""
    token: str = "forge-token-of-tests"
    repos: dict[str, FakeRepo] = field(default_factory=dict)
    answer: tuple[int, dict[str, str], bytes] | None = None
    """What to answer to everything instead."""
    calls: list[str] = field(default_factory=list)

    def route(self, method: str, path: str, query: dict[str, list[str]], body: object) -> tuple[int, object]:
        matched = re.fullmatch(
            r"/api/v1/repos/([^/]+/[^/]+)(?:/(branches|tags|statuses|collaborators|pulls)(?:/(.+))?)?", path
        )
        repo = self.repos.get(matched[1]) if matched else None
        if matched is None or repo is None:
            return 404, {"message": "The target couldn't be found."}
        kind, item = matched[2], unquote(matched[3] or "")
        if kind is None:
            branch = repo.default_branch
            return 200, {"full_name": matched[1], "private": repo.private, "default_branch": branch}
        if kind == "statuses":
            return self._post_status(repo, item, body) if method == "POST" else (405, None)
        if kind == "collaborators":
            login = item.removesuffix("/permission")
            return (200, {"permission": repo.people[login]}) if login in repo.people else (404, {"message": "no user"})
        if kind == "pulls" and item:
            number = int(item)
            return (200, repo.pulls[number]) if number in repo.pulls else (404, {"message": "not found"})
        if kind == "pulls":
            return 200, _page([p for p in repo.pulls.values() if p["state"] == query["state"][0]], query)
        found = repo.branches if kind == "branches" else repo.tags
        listed = [_item(kind, name, commit) for name, commit in sorted(found.items())]
        if item:
            return (200, _item(kind, item, found[item])) if item in found else (404, {"message": "not found"})
        return 200, _page(listed, query)

    def _post_status(self, repo: FakeRepo, commit: str, body: object) -> tuple[int, object]:
        if commit not in repo.commits:
            return 404, {"message": f"object does not exist [id: {commit}]"}
        assert isinstance(body, dict)
        if body["state"] not in {"pending", "success", "error", "failure", "warning", "skipped"}:
            return 422, {"message": "invalid state"}
        repo.statuses[commit, str(body["context"])] = body
        return 201, {**body, "status": body["state"]}


def _page(items: list[dict[str, object]], query: dict[str, list[str]]) -> list[dict[str, object]]:
    limit = min(50, int(query.get("limit", ["30"])[0]))
    start = (int(query.get("page", ["1"])[0]) - 1) * limit
    return items[start : start + limit]


def _item(kind: str, name: str, commit: str) -> dict[str, object]:
    if kind == "tags":
        return {"name": name, "message": "", "id": "f" * 40, "commit": {"sha": commit, "url": ""}}
    return {"name": name, "commit": {"id": commit, "message": "a title\n\nmore", "author": {"name": "alba"}}}


@contextmanager
def fake_gitea() -> Iterator[FakeGitea]:
    """Serve a fake on a free loopback port."""
    state = FakeGitea()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # header and body in one packet, or each call waits for a delayed acknowledgement

        def _serve(self) -> None:
            split = urlsplit(self.path)
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.calls.append(f"{self.command} {self.path}")
            if state.answer is not None:
                status, headers, data = state.answer
            else:
                headers = {}
                if self.headers.get("Authorization") == f"token {state.token}":
                    body = json.loads(text) if text else None
                    status, value = state.route(self.command, split.path, parse_qs(split.query), body)
                else:
                    status, value = 401, {"message": "invalid username, password or token"}
                data = json.dumps(value).encode()
            self.send_response(status)
            for name, header in headers.items():
                self.send_header(name, header)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _serve  # noqa: N815 - the base class names them

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
