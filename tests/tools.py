"""The programs that tests run, and the command that brings each: the one place where a skip gets its text."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SERVICES = Path(os.environ.get("ALBATROS_SERVICES") or ROOT / ".services").resolve()


@dataclass(frozen=True, slots=True)
class Tool:
    """Programs that must all be there, and what a person runs to get them."""

    programs: tuple[str, ...]
    bring: str


_SERVICES = "make services"

TOOLS = {
    "bwrap": Tool(("bwrap",), "apt-get install bubblewrap"),
    "caddy": Tool(("caddy",), "apt-get install caddy"),
    "chromium": Tool(("chromium", "chromedriver"), "apt-get install chromium chromium-driver"),
    "cosign": Tool(("cosign",), _SERVICES),
    "containerd": Tool(("containerd", "ctr"), "apt-get install containerd"),
    "crane": Tool(("crane",), _SERVICES),
    "docker-registry": Tool(("docker-registry",), "apt-get install docker-registry"),
    "garage": Tool(("garage",), _SERVICES),
    "git": Tool(("git",), "apt-get install git"),
    "git-lfs": Tool(("git-lfs",), "apt-get install git-lfs"),
    "gitea": Tool(("gitea",), _SERVICES),
    "go": Tool(("go",), "apt-get install golang-go"),
    "nginx": Tool(("nginx",), "apt-get install nginx-light"),
    "nix": Tool(("nix",), "apt-get install nix-bin"),
    "nomad": Tool(("nomad",), "put nomad on PATH, see docs/testing.md"),
    "openssl": Tool(("openssl",), "apt-get install openssl"),
    "postgresql": Tool(("initdb", "postgres"), "apt-get install postgresql"),
    "qemu-user": Tool(("qemu-x86_64",), "apt-get install qemu-user"),
    "regctl": Tool(("regctl",), _SERVICES),
    "shellcheck": Tool(("shellcheck",), "apt-get install shellcheck"),
    "skopeo": Tool(("skopeo",), "apt-get install skopeo"),
}


def _search_path() -> str:
    """PATH with what `make services` built in front; Debian's PostgreSQL server, which is on no PATH, at its end."""
    newest_first = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True)
    return os.pathsep.join([str(SERVICES / "bin"), os.environ.get("PATH", os.defpath), *map(str, newest_first)])


def extend_path() -> None:
    """Make the tools found by this process and all that it starts. Repeating it changes nothing."""
    if str(SERVICES / "bin") not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = _search_path()


def find(program: str) -> str:
    """The full path of a program whose tool was asked for with `needs` or `require`."""
    path = shutil.which(program)
    assert path is not None, f"{program} is not on PATH, and no `needs` or `require` asked for it"
    return path


def missing(*names: str) -> str:
    """The skip text for those of these tools that are not there; empty when all are."""
    lacking = [name for name in names if any(shutil.which(program) is None for program in TOOLS[name].programs)]
    return "; ".join(f"needs {name} ({TOOLS[name].bring})" for name in lacking)


def needs(*names: str) -> pytest.MarkDecorator:
    """Mark a test, a class or (as `pytestmark`) a module that runs only where all these tools are."""
    reason = missing(*names)
    return pytest.mark.skipif(bool(reason), reason=reason)


def require(*names: str) -> None:
    """Skip the test whose fixture calls this, unless all these tools are there."""
    if reason := missing(*names):
        pytest.skip(reason)


def comes_with_debian(reason: str) -> bool:
    """Whether a skip text names a tool that a plain `apt-get install` brings, so that CI may not lack it."""
    return re.search(r"needs \S+ \(apt-get install ", reason) is not None


extend_path()
