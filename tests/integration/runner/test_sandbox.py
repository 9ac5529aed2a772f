"""The runner makes sure that Nix's sandbox is in force: by Nix's settings, or of a nix-daemon by a build."""

import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from tests.support.runner import (
    SANDBOX_PATHS,
    attributes_of,
    build_order,
    evaluation_order,
    make_repo,
    result_of,
    run_order,
)
from tests.tools import needs

pytestmark = [
    needs("nix", "git"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a nix-daemon on this machine's store"),
]


@contextmanager
def daemon(directory: Path, settings: str) -> Iterator[str]:
    """A nix-daemon with these settings; its NIX_REMOTE."""
    socket = directory / "socket"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "NIX_DAEMON_SOCKET_PATH": str(socket),
        # Left to itself where no store was opened before, it takes its own socket for the store, without end.
        "NIX_REMOTE": "local",
        "NIX_CONFIG": f"experimental-features = nix-command flakes\nbuild-users-group =\nsubstituters =\n{settings}\n",
    }
    process = subprocess.Popen(["nix-daemon"], env=environment, stderr=subprocess.DEVNULL)
    try:
        while not socket.exists():
            assert process.poll() is None, "nix-daemon ended"
            time.sleep(0.02)
        yield f"unix://{socket}"
    finally:
        process.kill()
        process.wait()


def build(tmp_path: Path, remote: str) -> dict[str, object]:
    """The result of a small build in that store."""
    name = f"albatros-test-{uuid.uuid4().hex}"
    flake = f"""{{ outputs = {{ self }}: {{ packages.x86_64-linux.it = derivation {{
      name = "{name}"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo made > $out" ]; }}; }}; }}"""
    commit = make_repo(tmp_path / "repo", {"flake.nix": flake})
    order = evaluation_order(tmp_path / "repo", commit)
    found = attributes_of(run_order(tmp_path / "home", order, nix_remote=remote))["packages.x86_64-linux.it"]
    order = build_order(tmp_path / "repo", commit, "packages.x86_64-linux.it", cast("str", found["drv_path"]))
    order["attempt"] = str(uuid.uuid4())
    return result_of(run_order(tmp_path / "home", order, nix_remote=remote))


def test_a_daemon_with_a_sandbox_is_used(tmp_path: Path) -> None:
    with daemon(tmp_path, f"sandbox = true\nsandbox-paths = {' '.join(SANDBOX_PATHS)}") as remote:
        result = build(tmp_path, remote)
    assert result["outcome"] == "succeeded", result


def test_a_daemon_without_a_sandbox_is_refused_with_the_fix(tmp_path: Path) -> None:
    with daemon(tmp_path, "sandbox = false") as remote:
        result = build(tmp_path, remote)
    assert result["reason"] == "driver"
    assert "does not build in a sandbox" in str(result["message"])
    assert "set `sandbox = true` in its nix.conf" in str(result["message"])


def test_the_operator_may_turn_the_sandbox_off(tmp_path: Path) -> None:
    flake = """{ outputs = { self }: { packages.x86_64-linux.it = derivation {
      name = "it"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo made > $out" ]; }; }; }"""
    commit = make_repo(tmp_path / "repo", {"flake.nix": flake})
    found = attributes_of(run_order(tmp_path / "home", evaluation_order(tmp_path / "repo", commit)))
    drv_path = cast("str", found["packages.x86_64-linux.it"]["drv_path"])
    order = build_order(tmp_path / "repo", commit, "packages.x86_64-linux.it", drv_path)
    cast("dict[str, object]", order["nix"])["sandbox"] = False
    server = run_order(tmp_path / "home", order)
    assert result_of(server)["outcome"] == "succeeded"
    assert "warning: Nix's sandbox is off" in server.log
