"""deploy/nomad/nix-builder.nomad.hcl, run: no container is at hand, so a mount namespace gives each task its volume."""

import json
import os
import shlex
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from albatros.executors.builder_base import ChildState, LogPlace, Phase, Stream
from albatros.executors.nomad_builder import NomadBuilder
from albatros.settings import NomadSettings
from tests.services.nomad import NomadServer, start_dev
from tests.support.runner import GIT, SANDBOX_PATHS
from tests.support.server_process import eventually
from tests.tools import ROOT, needs

pytestmark = [
    needs("nomad", "nix", "git"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a volume for a nix-daemon"),
]
FLAKE = """{
  outputs = { self }: {
    packages.x86_64-linux.default = derivation {
      name = "said";
      system = "x86_64-linux";
      builder = "/bin/sh";
      args = [ "-c" "echo built in $NIX_BUILD_TOP; echo done > $out" ];
    };
  };
}
"""


@pytest.fixture
def nomad(tmp_path: Path) -> Iterator[NomadServer]:
    """One with the namespace and the pool of the file, in which the job is registered."""
    with start_dev(node_pool="ci") as server:
        assert server.call("PUT", "/v1/namespace/ci", {"Name": "ci"})[0] == 200
        status, answer = server.call("PUT", "/v1/jobs?namespace=ci", on_this_machine(tmp_path / "volume"))
        assert status == 200, answer
        yield server


def on_this_machine(volume: Path) -> Mapping[str, Any]:
    """The job as the file has it, with another driver, the volume by `mount`, and a Nix that asks nobody."""
    volume.mkdir()
    path = ROOT / "deploy" / "nomad" / "nix-builder.nomad.hcl"
    command = ["nomad", "job", "run", "-output", "-var", "image=none", str(path)]
    document = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    (group,) = document["Job"]["TaskGroups"]
    del group["Volumes"]
    for task in group["Tasks"]:
        (mount,) = task.pop("VolumeMounts")
        config = task["Config"]
        steps = [f"mount --bind {shlex.quote(str(volume))} {mount['Destination']}"]
        if mount["ReadOnly"]:
            steps.append(f"mount -o remount,bind,ro {mount['Destination']}")
        script = " && ".join([*steps, 'exec "$@"'])
        started = [config["command"], *config.get("args", [])]
        task["Driver"] = "raw_exec"
        task["Config"] = {"command": "unshare", "args": ["--mount", "/bin/sh", "-c", script, "sh", *started]}
        task["Resources"] = {"CPU": 100, "MemoryMB": 256}
    daemon = next(task for task in group["Tasks"] if task["Name"] == "nix-daemon")
    daemon["Env"]["NIX_CONFIG"] += f"build-users-group =\nsubstituters =\nsandbox-paths = {' '.join(SANDBOX_PATHS)}\n"
    return {"Job": document["Job"]}


def until_ended(builder: NomadBuilder, child: str) -> ChildState:
    """How it ended."""

    def ended() -> ChildState | None:
        state = builder.look(child)
        return state if state.phase is Phase.ENDED else None

    return eventually(ended, lambda: str(builder.look(child)))


def test_it_builds_and_the_second_time_it_has_the_result_already(nomad: NomadServer, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "flake.nix").write_text(FLAKE)
    for command in (["init", "--initial-branch=main"], ["add", "--all"], ["commit", "--message", "Say it"]):
        subprocess.run([*GIT, "-C", str(source), *command], check=True, capture_output=True)
    asked = subprocess.run([*GIT, "-C", str(source), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    builder = NomadBuilder(NomadSettings(addresses=(nomad.url,), namespace="ci", without_acl=True), "nix-builder")
    builder.check()
    meta = {"REPO_URL": f"file://{source}", "COMMIT": asked.stdout.strip(), "BRANCH": "main", "FLAVOR": ""}
    for built in (True, False):
        child = builder.dispatch(str(uuid.uuid4()), meta)
        state = until_ended(builder, child)
        log = builder.read_log(state.allocation, Stream.STDERR, LogPlace(), 1 << 20).data.decode()
        assert state.reason is None, log
        assert ("said> built in /build" in log) is built
    builder.close()
