"""Calls to one server. An answer that is a problem is raised as the error that it names."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self, cast
from urllib.parse import quote

import httpx

from albatros.client.types import Artifact, Build, BuildDetail, Hook, JobDetail, Joined, Repo, Secret
from albatros.errors import (
    AlbatrosError,
    BadInputError,
    DatabaseUnavailableError,
    NotFoundError,
    OverloadedError,
    UnreachableError,
)

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
STREAM_SECONDS = 45.0
"""Longest silence of a live stream: the server sends a heartbeat every 15 s."""
RECONNECT_SECONDS = 300.0
"""How long a server may be away before a live stream is given up."""
PAGE = 100
MAX_LINE = 1 << 20


class Client:
    """One server, and the token that is sent to it. Calls raise UnreachableError, or what the server refused with."""

    def __init__(self, server: str, token: str = "") -> None:
        self.server = server.rstrip("/")
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        try:
            self._http = httpx.Client(base_url=self.server, headers=headers, timeout=timeout)
        except (httpx.InvalidURL, ValueError) as error:
            raise BadInputError(f"{server!r} is no server's address: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def builds(self, *, repo: str = "", branch: str = "", status: str = "", limit: int = PAGE) -> list[Build]:
        """The newest builds: at most `limit`."""
        query = {"repo": repo, "branch": branch, "status": status}
        return cast("list[Build]", self._pages("/api/v1/builds", query, limit))

    def build(self, build_id: int) -> BuildDetail:
        """One build with everything that belongs to it."""
        return cast("BuildDetail", self._call("GET", f"/api/v1/builds/{build_id}"))

    def trigger(self, repo: str, ref: str, flavor: str = "") -> Build:
        """Build a branch, tag or commit of `FORGE/OWNER/NAME`, or of `OWNER/NAME` where one forge has it."""
        path = f"/api/v1/repos/{_path(self._full_name(repo))}/builds"
        return cast("Build", self._call("POST", path, {"ref": ref, "flavor": flavor}))

    def cancel(self, build_id: int) -> Build:
        """Stop an open build."""
        return cast("Build", self._call("POST", f"/api/v1/builds/{build_id}/cancel"))

    def rerun(self, build_id: int) -> Build:
        """Build the same commit once more."""
        return cast("Build", self._call("POST", f"/api/v1/builds/{build_id}/rerun"))

    def job(self, job_id: int) -> JobDetail:
        """One job with its tries."""
        return cast("JobDetail", self._call("GET", f"/api/v1/jobs/{job_id}"))

    def log(self, job_id: int, attempt: int | None = None) -> Iterator[bytes]:
        """A job's log as far as it is written, in pieces."""
        query = {"attempt": str(attempt)} if attempt is not None else {}
        with self._stream(f"/api/v1/jobs/{job_id}/log", query) as answer:
            yield from answer.iter_bytes()

    def follow_log(self, job_id: int) -> Iterator[str]:
        """A job's log as it is written, until the job has ended; survives restarts of the server."""
        for kind, data in self._follow(f"/api/v1/jobs/{job_id}/log/live"):
            if kind == "end":
                return
            if kind == "log":
                yield str(data.get("text", ""))

    def repos(self, *, repo: str = "", limit: int = PAGE) -> list[Repo]:
        """Repos, the newest first: at most `limit`; `repo` narrows it to `[FORGE/]OWNER/NAME`."""
        return cast("list[Repo]", self._pages("/api/v1/repos", {"repo": repo}, limit))

    def repo(self, repo: str) -> Repo:
        """One repo by `FORGE/OWNER/NAME`, or `OWNER/NAME` where one forge has it."""
        return cast("Repo", self._call("GET", f"/api/v1/repos/{_path(self._full_name(repo))}"))

    def add_repo(self, repo: str) -> Joined:
        """Let a repo build and make or repair its webhook: its address on its forge, or `FORGE/OWNER/NAME`."""
        if "://" in repo or repo.startswith("/"):
            return cast("Joined", self._call("POST", "/api/v1/repos", {"url": repo}))
        forge, owner, name = _split(repo)
        return cast("Joined", self._call("POST", "/api/v1/repos", {"forge": forge, "owner": owner, "name": name}))

    def remove_repo(self, repo: str) -> Hook:
        """Take a repo's webhook away and let it build no more; what was done."""
        return cast("Hook", self._call("DELETE", f"/api/v1/repos/{_path(self._full_name(repo))}"))

    def hook(self, repo: str) -> Hook:
        """How a repo's webhook stands, asked of its forge."""
        return cast("Hook", self._call("GET", f"/api/v1/repos/{_path(self._full_name(repo))}/hook"))

    def secrets(self, *, place: str = "", limit: int = PAGE) -> list[Secret]:
        """Secrets without their values, the newest first: at most `limit`, of one place or of all."""
        return cast("list[Secret]", self._pages("/api/v1/secrets", {"place": place}, limit))

    def set_secret(self, place: str, name: str, value: str, refs: Sequence[str] = ()) -> Secret:
        """Keep an access token for the host `name`, for Builds of `refs`; `place` says whose it is."""
        body = {"place": place, "name": name, "value": value, "refs": list(refs)}
        return cast("Secret", self._call("PUT", "/api/v1/secrets", body))

    def remove_secret(self, place: str, name: str) -> None:
        """Remove a secret."""
        with self._reachable():
            answer = self._http.delete("/api/v1/secrets", params={"place": place, "name": name})
        _raise_for(answer)

    def artifacts(self, *, build: int | None = None, job: int | None = None, limit: int = PAGE) -> list[Artifact]:
        """The newest artifacts: at most `limit`."""
        query = {"build": str(build) if build is not None else "", "job": str(job) if job is not None else ""}
        return cast("list[Artifact]", self._pages("/api/v1/artifacts", query, limit))

    def artifact(self, artifact_id: int) -> Artifact:
        """One artifact."""
        return cast("Artifact", self._call("GET", f"/api/v1/artifacts/{artifact_id}"))

    def download(self, artifact_id: int) -> Iterator[bytes]:
        """An artifact's bytes, in pieces; who keeps them compares their digest."""
        with self._stream(f"/api/v1/artifacts/{artifact_id}/content", {}) as answer:
            yield from answer.iter_raw()

    def _full_name(self, repo: str) -> str:
        if repo.count("/") != 1:
            return repo
        found = self.repos(repo=repo, limit=2)
        if len(found) == 1:
            return f"{found[0]['forge']}/{repo}"
        told = "several forges have" if found else "the server knows no"
        raise NotFoundError(f"{told} repo {repo}; name its forge too: FORGE/{repo}")

    def _pages(self, path: str, query: Mapping[str, str], limit: int) -> list[object]:
        wanted = {key: value for key, value in query.items() if value}
        items: list[object] = []
        while len(items) < limit:
            page = self._call("GET", path, query={**wanted, "limit": str(min(PAGE, limit - len(items)))})
            found, cursor = page.get("items"), page.get("next")
            items += found if isinstance(found, list) else []
            if not isinstance(cursor, str):
                break
            wanted["cursor"] = cursor
        return items

    def _call(
        self, method: str, path: str, body: object = None, query: Mapping[str, str] | None = None
    ) -> dict[str, object]:
        with self._reachable():
            answer = self._http.request(method, path, json=body, params=query)
        _raise_for(answer)
        value = _json(answer.text)
        if value is None:
            raise AlbatrosError(f"{self.server} does not answer as an Albatros server; is the address right?")
        return value

    @contextmanager
    def _stream(
        self, path: str, query: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        timeout = httpx.Timeout(STREAM_SECONDS, connect=CONNECT_SECONDS)
        with (
            self._reachable(),
            self._http.stream("GET", path, params=query, headers=headers, timeout=timeout) as answer,
        ):
            if answer.is_error:
                answer.read()
            _raise_for(answer)
            yield answer

    def _follow(self, path: str) -> Iterator[tuple[str, Mapping[str, object]]]:
        """The events of a stream, taken up again where it broke off."""
        last, until = "", time.monotonic() + RECONNECT_SECONDS
        while True:
            try:
                with self._stream(path, {}, {"Last-Event-ID": last} if last else {}) as answer:
                    for event_id, kind, data in _events(answer.iter_lines()):
                        last, until = event_id or last, time.monotonic() + RECONNECT_SECONDS
                        yield kind, data
            except (UnreachableError, OverloadedError, DatabaseUnavailableError):
                if time.monotonic() > until:
                    raise
            time.sleep(1)

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise UnreachableError(
                f"{self.server} does not answer ({reason}); check --server, and that it runs"
            ) from error


def _split(repo: str) -> tuple[str, str, str]:
    parts = repo.split("/")
    if len(parts) != 3 or not all(parts):
        raise BadInputError(f"{repo!r} names no repo: give FORGE/OWNER/NAME, or its https address")
    return parts[0], parts[1], parts[2]


def _path(repo: str) -> str:
    return "/".join(quote(part, safe="") for part in _split(repo))


def _json(text: str) -> dict[str, object] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _raise_for(answer: httpx.Response) -> None:
    """Raise the error that a problem names (RFC 9457)."""
    if answer.is_success:
        return
    problem = _json(answer.text) or {}
    slug = str(problem.get("type", "")).rpartition(":")[2]
    detail = str(problem.get("detail") or f"the server answered {answer.status_code} {answer.reason_phrase}")
    if answer.status_code in {502, 503, 504} and slug not in _errors():
        raise UnreachableError(detail)
    raise _errors().get(slug, AlbatrosError)(detail)


def _errors() -> dict[str, type[AlbatrosError]]:
    """Every error by its slug; where several share one, the most general."""
    found: dict[str, type[AlbatrosError]] = {}
    waiting: deque[type[AlbatrosError]] = deque([AlbatrosError])
    while waiting:
        kind = waiting.popleft()
        found.setdefault(kind.slug, kind)
        waiting.extend(kind.__subclasses__())
    return found


def _events(lines: Iterator[str]) -> Iterator[tuple[str, str, Mapping[str, object]]]:
    """Id, kind and data of each server-sent event."""
    fields: dict[str, str] = {}
    for line in lines:
        if len(line) > MAX_LINE:
            raise BadInputError("the server sent an event that is too large; is it an Albatros server?")
        name, _, value = line.partition(":")
        if line and name:
            fields[name] = value.removeprefix(" ")
        elif not line and "data" in fields:
            yield fields.get("id", ""), fields.get("event", ""), _json(fields["data"]) or {}
            fields = {}
        elif not line:
            fields = {}
