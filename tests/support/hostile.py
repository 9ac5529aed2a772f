"""A line with secrets planted in it, and the search for their traces in everything that a stranger could get to see."""

import base64
import gzip
import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import subprocess
import sys
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.flakes import HOST_SYSTEM, derivation, flake
from tests.support.line import Line, list_of, make_line
from tests.tools import ROOT

VICTIM = "victim"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said to a call of a hostile runner."""

    status: int
    document: dict[str, object]


class Fortress:
    """A running line that holds secrets, a private server with a token to read it, and one honest Build."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.password = f"canary-password-{secrets.token_hex(12)}"
        self.artifact = f"canary-artifact-{secrets.token_hex(12)}"
        hidden = {"name": "hub", "url": "docker://127.0.0.1:9/none", "username": "albatros", "password": self.password}
        static = next(item for item in list_of(line.settings["registries"]) if item["name"] == "static")
        forge = {**list_of(line.settings["forges"])[0], "submodules": True, "lfs": True}
        line.write_config(
            {
                "server": {"public": False},
                "forges": [forge],
                "registries": [static, {**hidden, "repos": ["nobody/*"]}],
                "limits": {"attempts": 1},
            }
        )
        line.server.start()
        command = [sys.executable, "-m", "albatros", "token", "create", "reader", "--json"]
        made = subprocess.run(
            [*command, "--config", str(line.paths.config)], cwd=ROOT, check=True, capture_output=True, text=True
        )
        self.token = str(json.loads(made.stdout)["token"])
        line.server.token = self.token
        repo = line.repo(VICTIM)
        attribute = f"packages.{HOST_SYSTEM}.kept"
        commit = repo.push_files({"flake.nix": flake({attribute: derivation("kept", f"echo {self.artifact} > $out")})})
        line.wait_green(repo, commit)

    @property
    def key(self) -> bytes:
        return (self.line.paths.data / "keys" / "attempt.key").read_bytes()

    @property
    def files(self) -> list[Path]:
        """The server's files that no repo may read: keys, database, a blob of another repo, config, secret."""
        paths = self.line.paths
        blob = hashlib.sha256(f"{self.artifact}\n".encode()).hexdigest()
        database = paths.data / "albatros.sqlite3"
        return [
            paths.data / "keys" / "attempt.key",
            database,
            database.with_name("albatros.sqlite3-wal"),
            paths.data / "blobs" / "sha256" / blob[:2] / blob,
            paths.config,
            paths.secret,
        ]

    def needles(self) -> dict[str, bytes]:
        """What must not be found anywhere: each secret in every form in which it could be carried out."""
        key = self.key
        with closing(sqlite3.connect(self.line.paths.data / "albatros.sqlite3")) as connection:
            ((token_hash,),) = connection.execute("SELECT token_hash FROM tokens")
        return {
            "the key": key,
            "the key in hexadecimal": key.hex().encode(),
            "the key in base64": base64.b64encode(key)[:40],
            "the database": b"SQLite format 3",
            "a token's hash": str(token_hash).encode(),
            "a registry's password": self.password.encode(),
            "the webhook secret": self.line.secret.encode(),
            "another repo's artifact": self.artifact.encode(),
        }

    def told(self) -> Iterator[tuple[str, bytes]]:
        """Everything that was told of the hostile repos: by the API, the forge, the registry and the server's log."""
        line = self.line
        yield "the server's log", line.server.log.encode()
        for build in list_of(line.server.get("/api/v1/builds?limit=100")["items"]):
            shown = line.server.get(f"/api/v1/builds/{build['id']}")
            if str(shown["repo"]).find(f"'{VICTIM}'") >= 0:
                continue
            yield f"build {build['id']}", json.dumps(shown).encode()
            for job in list_of(shown["jobs"]):
                yield f"job {job['id']}", json.dumps(line.server.get(f"/api/v1/jobs/{job['id']}")).encode()
                yield f"log of job {job['id']}", line.server.text(f"/api/v1/jobs/{job['id']}/log").encode("utf-8")
            for artifact in list_of(shown["artifacts"]):
                content = line.server.read(f"/api/v1/artifacts/{artifact['id']}/content")
                yield f"artifact {artifact['id']} of {shown['repo']}", content
        for repo in line.repos.values():
            notes = subprocess.run(
                ["git", "log", "-p", "refs/notes/albatros"], cwd=repo.bare, capture_output=True, check=False
            )
            yield f"notes of {repo.full_name}", notes.stdout
        for path, data in _files_below(line.paths.static):
            yield f"registry {path}", _unpacked(data)

    def kept_by_runner(self) -> Iterator[tuple[str, bytes]]:
        """Everything that lies in the home of the runner, its Nix store included."""
        for path, data in _files_below(self.line.paths.data / "runner"):
            yield f"runner's {path}", data

    def check_nothing_leaked(self) -> None:
        """AssertionError naming the secret and the place where it was found."""
        needles = self.needles()
        for where, data in self.told():
            found = [what for what, needle in needles.items() if needle in data]
            assert not found, f"{where} holds {found}"
        # The runner's own store holds what the honest Build made, and Nix's own databases.
        own = {name: needle for name, needle in needles.items() if name != "another repo's artifact"}
        for where, data in self.kept_by_runner():
            found = [what for what, needle in own.items() if needle in data and "/nix/var/nix/" not in where]
            found = [what for what in found if what != "the database" or not where.endswith(".sqlite")]
            assert not found, f"{where} holds {found}"

    def attempt_token(self, attempt: str) -> str:
        """The credential of an Attempt, as a runner that was taken over has it."""
        return hmac.new(self.key, f"attempt:{attempt}".encode(), hashlib.sha256).hexdigest()

    def as_runner(
        self, token: str, method: str, path: str, body: object = None, *, raw: bytes | None = None, nonce: str = ""
    ) -> Answer:
        """One call of the runner protocol."""
        data = raw if raw is not None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        headers |= {"X-Albatros-Nonce": nonce} if nonce else {}
        request = urllib.request.Request(self.line.server.url + path, data, headers, method=method)
        return Answer(*self.line.server.send(request))


def _files_below(root: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file with its bytes; what goes while it is looked for, as a runner's own directory does, is left out."""
    for folder, _, names in os.walk(root):
        for path in (Path(folder, name) for name in names):
            try:
                data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            except FileNotFoundError:
                continue
            yield path, data


def _unpacked(data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return data


@contextmanager
def make_fortress() -> Iterator[Fortress]:
    """A fortress until the end of the block."""
    with make_line(None) as line:
        yield Fortress(line)
