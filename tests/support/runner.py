"""Starts the real runner on a real repo for tests, and makes the orders that a server would give it."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from albatros.runner.bundle import build_bundle
from tests.support.runner_server import TOKEN, RunnerServer

FLAKES = Path(__file__).resolve().parent.parent / "fixtures" / "flakes"
SANDBOX_PATHS = [path for path in ("/bin", "/usr", "/lib", "/lib64", "/usr/local/go") if Path(path).exists()]
GIT = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "protocol.file.allow=always"]


def git(directory: Path, *arguments: str) -> str:
    """Run git in a directory; its output."""
    done = subprocess.run([*GIT, "-C", str(directory), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def make_repo(directory: Path, files: Mapping[str, str]) -> str:
    """Commit these files into a new repo; the commit's id."""
    directory.mkdir(parents=True, exist_ok=True)
    git(directory, "init", "--quiet", "--initial-branch=main")
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return commit_all(directory)


def copy_repo(directory: Path, source: Path) -> str:
    """Commit a copy of a directory into a new repo; the commit's id."""
    shutil.copytree(source, directory, symlinks=True, dirs_exist_ok=True)
    git(directory, "init", "--quiet", "--initial-branch=main")
    return commit_all(directory)


def hostile_repo(directory: Path, name: str, secret: Path) -> str:
    """Commit one of the hostile flakes, aimed at a file; the commit's id."""
    directory.mkdir(parents=True)
    words = {"@SECRET@": str(secret), "@SECRET_DIR@": str(secret.parent), "@SECRET_NAME@": secret.name}
    for source in (FLAKES / "hostile" / name).iterdir():
        text = source.read_text()
        for word, value in words.items():
            text = text.replace(word, value)
        (directory / source.name).write_text(text)
    git(directory, "init", "--quiet", "--initial-branch=main")
    return commit_all(directory)


def commit_all(directory: Path) -> str:
    """Commit everything; the commit's id."""
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--allow-empty", "--message=test")
    return git(directory, "rev-parse", "HEAD")


def evaluation_order(repo: Path, commit: str, **limits: int) -> dict[str, object]:
    """The order to evaluate a commit of a local repo."""
    return {
        "protocol": 1,
        "attempt": "5a0f7e9e-0000-4000-8000-000000000001",
        "kind": "evaluation",
        "lease_seconds": 3,
        "repo": {
            "clone_url": f"file://{repo}",
            "commit": commit,
            "ref": "refs/heads/main",
            "full_name": "alba/hello",
            "username": None,
            "password": None,
            "repo_alone": False,
            "submodules": False,
            "lfs": False,
        },
        "access_tokens": {},
        "nix": {
            "sandbox": True,
            "sandbox_paths": SANDBOX_PATHS,
            "substituters": [],
            "trusted_public_keys": [],
            "import_from_derivation": False,
            "extra_systems": [],
            "min_free": 2 << 30,
            "max_free": 10 << 30,
        },
        "limits": {
            "wall_seconds": 500,
            "silence_seconds": 400,
            "log_bytes": 1 << 20,
            "memory_bytes": 4 << 30,
            "attributes": 100,
            "output_bytes": 1 << 30,
            **limits,
        },
        "build": None,
    }


def build_order(
    repo: Path, commit: str, attribute: str, drv_path: str, binaries: tuple[str, ...] = (), **limits: int
) -> dict[str, object]:
    """The order to build one attribute of a commit of a local repo."""
    build = {"attribute": attribute, "drv_path": drv_path, "binaries": list(binaries), "keep": True}
    return {**evaluation_order(repo, commit, **limits), "kind": "build", "build": build}


@dataclass(frozen=True)
class Ended:
    """A runner that has ended."""

    status: int
    stderr: str


class RunnerProcess:
    """The zipapp, started as an executor starts it."""

    def __init__(self, home: Path, server: RunnerServer, nix_remote: str = "", user: int | None = None) -> None:
        """`user` is another one than ours, which only root can choose."""
        home.mkdir(parents=True, exist_ok=True)
        self.workdir = Path(tempfile.mkdtemp(prefix="work-", dir=home))
        bundle = home / "albatros-runner.pyz"
        bundle.write_bytes(build_bundle().data)
        token = self.workdir / "token"
        token.write_text(TOKEN)
        for path in (home, self.workdir, token):
            if user is not None:
                os.chown(path, user, -1)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "ALBATROS_URL": server.url,
            "ALBATROS_ATTEMPT": str(server.order.get("attempt")),
            "ALBATROS_WORKDIR": str(self.workdir),
            "ALBATROS_NIX_REMOTE": nix_remote or f"local?root={home}/nix-root",
            "ALBATROS_TOKEN_FILE": str(token),
        }
        # Ours may lie where nobody else gets to.
        python = sys.executable if user is None else "/usr/bin/python3"
        self.process = subprocess.Popen(
            [python, "-I", "-S", str(bundle)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            user=user,
        )

    def end(self) -> None:
        """Kill it if it runs still."""
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def wait(self, seconds: float = 550) -> Ended:
        """Wait for its end."""
        try:
            _, stderr = self.process.communicate(timeout=seconds)
        finally:
            self.process.kill()
        return Ended(self.process.returncode, stderr.decode())


def run_order(
    home: Path, order: dict[str, object], server: RunnerServer | None = None, nix_remote: str = ""
) -> RunnerServer:
    """Run the real runner on an order to its end; the server it spoke to, closed."""
    server = server or RunnerServer(order)
    try:
        ended = RunnerProcess(home, server, nix_remote).wait()
    finally:
        server.close()
    assert ended.status == 0, ended.stderr
    assert ended.stderr == ""
    return server


def result_of(server: RunnerServer) -> dict[str, object]:
    """The result that the runner reported."""
    assert server.result is not None, server.log
    return server.result


def attributes_of(server: RunnerServer) -> dict[str, dict[str, object]]:
    """The attributes that an evaluation reported, by name."""
    result = result_of(server)
    assert result["outcome"] == "succeeded", result
    evaluation = cast("dict[str, list[dict[str, object]]]", result["evaluation"])
    return {cast("str", entry["attribute"]): entry for entry in evaluation["attributes"]}


def outputs_of(server: RunnerServer) -> list[dict[str, object]]:
    """The outputs that a build reported."""
    result = result_of(server)
    assert result["outcome"] == "succeeded", result
    return cast("list[dict[str, object]]", result["outputs"])
