"""The whole line as an operator sets it up: a config file, a bare-repo forge with the real hook, two registries."""

import json
import os
import secrets
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from albatros.registries.serve import serve_directory
from tests.services.process import free_port
from tests.services.registry import RegistryServer
from tests.support.bare_repo import BareRepo
from tests.support.pulls import Remote
from tests.support.runner import SANDBOX_PATHS
from tests.support.server_process import ServerProcess, eventually
from tests.support.work_tree import Project, Status

Section = Mapping[str, object]
DONE = frozenset({"success", "failure", "error"})
OWNER = "alba"


def to_toml(document: Mapping[str, Section | Sequence[Section]]) -> str:
    """A config file; JSON writes the texts, numbers, flags and lists that TOML takes."""
    lines = []
    for name, value in document.items():
        for section in [value] if isinstance(value, Mapping) else value:
            lines.append(f"[{name}]" if isinstance(value, Mapping) else f"[[{name}]]")
            lines += [f"{key} = {json.dumps(item)}" for key, item in section.items()]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the parts of a line lie; `gate` is shown to every builder, to make it wait for the test."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def git(self) -> Path:
        return self.root / "git"

    @property
    def static(self) -> Path:
        return self.root / "registry"

    @property
    def gate(self) -> Path:
        return self.root / "gate"

    @property
    def config(self) -> Path:
        return self.root / "albatros.toml"

    @property
    def secret(self) -> Path:
        return self.root / "webhook.secret"


class Line:
    """A server, its forge and its registries; nothing runs before `server.start()`."""

    def __init__(self, paths: Paths, registry: RegistryServer | None, static_host: str, changes: Section) -> None:
        self.paths = paths
        self.port = free_port()
        self.registry = registry
        self.static_host = static_host
        self.secret = secrets.token_hex(16)
        for directory in (paths.git, paths.gate):
            directory.mkdir(mode=0o755)
        write_private(paths.secret, self.secret)
        self.settings = self._defaults()
        self.write_config(changes)
        self.server = ServerProcess(paths.config, paths.root / "server.log", f"http://127.0.0.1:{self.port}")
        self.repos: dict[str, BareRepo] = {}

    def _defaults(self) -> dict[str, Section | Sequence[Section]]:
        forge = {"name": "home", "kind": "git", "url": str(self.paths.git), "repos": [f"{OWNER}/*"]}
        registries: list[Section] = [{"name": "static", "url": f"dir:{self.paths.static}", "names": ["{repo}"]}]
        if self.registry is not None:
            registries.append({"name": "hub", "url": f"{self.registry.url}/team", "names": ["{repo}"]})
        return {
            "server": {"listen": f"127.0.0.1:{self.port}", "data": str(self.paths.data), "public": True},
            "executor": {"sandbox_paths": [*SANDBOX_PATHS, str(self.paths.gate)]},
            "forges": [{**forge, "webhook_secret_file": str(self.paths.secret)}],
            "registries": registries,
        }

    def write_config(self, changes: Section) -> None:
        """Write the config file; `changes` adds keys to sections, or replaces whole lists of them."""
        for name, value in changes.items():
            old = self.settings.get(name, {})
            merged = {**old, **value} if isinstance(old, Mapping) and isinstance(value, Mapping) else value
            self.settings[name] = cast("Section | Sequence[Section]", merged)
        write_private(self.paths.config, to_toml(self.settings))

    def repo(self, name: str = "hello") -> BareRepo:
        """A repo on the forge, made when it is asked for first."""
        if name not in self.repos:
            webhook = f"{self.server.url}/webhooks/home"
            self.repos[name] = BareRepo(self.paths.git, f"{OWNER}/{name}", webhook, self.paths.secret)
        return self.repos[name]

    def remotes(self, name: str = "hello") -> list[Remote]:
        """An image at both registries, the static one first."""
        hub = [Remote(self.registry.host, f"team/{name}")] if self.registry is not None else []
        return [Remote(self.static_host, name), *hub]

    def wait(self, repo: Project, commit: str) -> Status:
        """Wait until the forge says of the commit how its newest Build ended."""

        def ended() -> Status | None:
            status = repo.status(commit)
            return status if status is not None and status.state in DONE else None

        return eventually(ended, lambda: f"{repo.statuses(commit)}\n{self.server.log}")

    def wait_green(self, repo: Project, commit: str) -> None:
        """Wait for the end, which must be success."""
        status = self.wait(repo, commit)
        assert status.state == "success", f"{status}\n{self.server.log}"

    def wait_statuses(self, repo: Project, commit: str, expected: Mapping[str, str]) -> None:
        """Wait until the forge shows these contexts with these states and no others; each is posted on its own."""

        def shown() -> bool:
            return {status.context: status.state for status in repo.statuses(commit)} == expected

        eventually(shown, lambda: f"{repo.statuses(commit)}\n{self.server.log}")

    def build(self, commit: str, *, merged: bool = False) -> dict[str, object]:
        """The newest Build of a commit, or of its merge result, with everything of it, as the API tells it."""
        listed = cast("list[dict[str, object]]", self.server.get("/api/v1/builds?limit=100")["items"])
        found = (item for item in listed if item["commit"] == commit and bool(item["merge_into"]) == merged)
        newest = next(found, None)
        return self.server.get(f"/api/v1/builds/{newest['id']}") if newest is not None else {}

    def wait_build(self, commit: str, state: str, *, merged: bool = False) -> dict[str, object]:
        """Wait until the newest Build of a commit, or of its merge result, is in this state."""

        def there() -> dict[str, object] | None:
            build = self.build(commit, merged=merged)
            return build if build and build["state"] == state else None

        return eventually(there, lambda: f"{self.build(commit, merged=merged)}\n{self.server.log}")

    def log_of(self, build: Section, part: str) -> str:
        """The log of the Job that has `part` in its name or attributes, empty before there is one."""
        jobs = list_of(build.get("jobs", []))
        job = next((job for job in jobs if part in f"{job['name']} {job['attributes']}"), None)
        return self.server.text(f"/api/v1/jobs/{job['id']}/log") if job is not None else ""

    def sql(self, query: str) -> list[tuple[object, ...]]:
        """Ask the server's SQLite, from outside."""
        address = f"file:{self.paths.data / 'albatros.sqlite3'}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=60)) as connection:
            return connection.execute(query).fetchall()

    def open_gate(self, name: str) -> None:
        """Let the builders go on that wait for this name."""
        (self.paths.gate / name).touch()


def list_of(value: object) -> list[dict[str, object]]:
    """A list of objects out of an answer."""
    return cast("list[dict[str, object]]", value)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text(text)


@contextmanager
def make_line(registry: RegistryServer | None, changes: Section | None = None) -> Iterator[Line]:
    """A line in a directory of its own, which the runner's user can enter; everything ends with the block."""
    root = Path(tempfile.mkdtemp(prefix="alba-line-"))
    root.chmod(0o755)
    try:
        (root / "registry").mkdir()
        with serve_directory(root / "registry") as static_host:
            line = Line(Paths(root), registry, static_host, changes or {})
            try:
                yield line
            finally:
                line.server.kill()
                end_runners(line.paths.data)
    finally:
        _remove(root)


def end_runners(data: Path) -> None:
    """Runners outlive their server; each leads a session of its own."""
    for record in data.glob("attempts/*/runner.json"):
        try:
            os.killpg(json.loads(record.read_text())["pid"], signal.SIGTERM)
        except (OSError, ValueError):
            continue


def _remove(root: Path) -> None:
    if os.geteuid() != 0:
        # Nix takes away the right to write from what is in its store.
        for folder, _, _ in os.walk(root):
            Path(folder).chmod(0o700)
    shutil.rmtree(root, ignore_errors=True)
