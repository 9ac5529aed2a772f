"""What the demo needs before it starts: tools, directories, settings, and a repo with a hook."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from albatros.assets import deploy_dir, examples_dir
from albatros.errors import AlbatrosError, UsageError
from albatros.executors.isolation import reachable_by_others
from albatros.settings import (
    ExecutorSettings,
    ForgeKind,
    ForgeSettings,
    RegistrySettings,
    ServerSettings,
    Settings,
)

EXAMPLE = "hello-offline"
IMAGE = "hello"
BRANCH = "main"
SHARED = Path("/var/tmp")  # noqa: S108 - what is found there is used only when it is ours
COMPILER_PATHS = ("/bin", "/usr", "/lib", "/lib64")
"""What the example's builders see of this machine: its shell, its Go compiler, and the libraries of both."""
_TOOLS = {"git": "apt-get install git", "nix": "apt-get install nix-bin", "go": "apt-get install golang-go"}
_IDENTITY = ("-c", "user.name=Albatros demo", "-c", "user.email=demo@albatros.invalid", "-c", "commit.gpgsign=false")


@dataclass(frozen=True, slots=True)
class Place:
    """The demo's directories; `bare` is the repo that is pushed to, `work` the one that is pushed from."""

    root: Path
    data: Path
    git: Path
    bare: Path
    work: Path
    registry: Path
    secret: Path


def check_tools() -> None:
    """Raise UsageError naming what is missing and how to get it."""
    missing = [f"{tool} ({hint})" for tool, hint in _TOOLS.items() if shutil.which(tool) is None]
    if missing:
        raise UsageError(f"the demo needs {', '.join(missing)}; install what is missing and run it again")


def prepare(root: Path) -> Place:
    """Make the demo's directories and repos below `root`, or use those of an earlier run."""
    git = (root if os.geteuid() != 0 or _reachable(root) else _shared_place(root)) / "git"
    place = Place(
        root=root,
        data=root / "data",
        git=git,
        bare=git / "demo" / f"{IMAGE}.git",
        work=root / IMAGE,
        registry=root / "registry",
        secret=root / "webhook.secret",
    )
    for directory in (root, place.git, place.bare.parent):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
    if not place.secret.exists():
        with os.fdopen(os.open(place.secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    return place


def _reachable(root: Path) -> bool:
    """Whether another user, as the runner is when we are root, can get to what lies in `root`."""
    existing = next(parent for parent in (root, *root.parents) if parent.exists())
    return reachable_by_others(existing)


def _shared_place(root: Path) -> Path:
    """A directory for what the runner has to read, named for a `root` that is closed to others."""
    name = hashlib.sha256(str(root).encode()).hexdigest()[:12]
    place = SHARED / f"albatros-demo-{name}"
    place.mkdir(mode=0o755, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise UsageError(f"{place} belongs to somebody else; run the demo with --directory in a place of your own")
    return place


def settings_of(place: Place) -> Settings:
    """An embedded server: SQLite, files, the local executor, one bare-repo forge, one static registry."""
    return Settings(
        server=ServerSettings(listen="127.0.0.1:0", data=place.data, public=True),
        executor=ExecutorSettings(
            sandbox_paths=tuple(_compiler_paths()),
            # A nix-daemon has its own idea of sandbox-paths; the demo's compiler needs ours.
            nix_store="private",
        ),
        forges=(
            ForgeSettings.model_validate(
                {
                    "name": "demo",
                    "kind": ForgeKind.GIT,
                    "url": str(place.git),
                    "webhook_secret": place.secret.read_text().strip(),
                    "repos": ("demo/*",),
                }
            ),
        ),
        registries=(RegistrySettings(name="static", url=f"dir:{place.registry}", names=("{repo}",)),),
    )


def _compiler_paths() -> list[str]:
    """`COMPILER_PATHS` that exist, and Go's own root when it lies elsewhere."""
    paths = [path for path in COMPILER_PATHS if Path(path).exists()]
    root = subprocess.run(["go", "env", "GOROOT"], capture_output=True, text=True, check=True).stdout.strip()
    covered = any(Path(root).resolve().is_relative_to(Path(path).resolve()) for path in paths)
    return paths if covered else [*paths, root]


def prepare_repo(place: Place, server_url: str) -> str:
    """Make the bare repo with its hook, and a commit to push; returns the commit."""
    if not place.bare.exists():
        _git(place.root, "init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(place.bare))
    place.bare.chmod(0o755)
    hook = place.bare / "hooks" / "post-receive"
    shutil.copyfile(deploy_dir() / "git" / "post-receive", hook)
    hook.chmod(0o755)
    for key, value in (
        ("url", f"{server_url}/webhooks/demo"),
        ("secretFile", str(place.secret)),
        ("repo", f"demo/{IMAGE}"),
    ):
        _git(place.bare, "config", f"albatros.{key}", value)
    if not (place.work / ".git").exists():
        shutil.copytree(examples_dir() / EXAMPLE, place.work, dirs_exist_ok=True)
        _git(place.work, "init", "--quiet", f"--initial-branch={BRANCH}")
    _git(place.work, "add", "--all")
    # Empty or not: each run of the demo is a new commit, so that there is something to push.
    _git(place.work, *_IDENTITY, "commit", "--quiet", "--allow-empty", "--message", "Say hello")
    return _git(place.work, "rev-parse", "HEAD")


def push(place: Place) -> None:
    """`git push`, with what the hook answers shown to whoever runs the demo."""
    _git(place.work, "push", "--quiet", str(place.bare), f"HEAD:refs/heads/{BRANCH}", show=True)


def _git(directory: Path, *arguments: str, show: bool = False) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(
        ["git", *arguments],
        cwd=directory,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=None if show else subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        raise AlbatrosError(f"git {arguments[0]} failed in {directory}: {(done.stderr or '').strip()}")
    return done.stdout.strip()
