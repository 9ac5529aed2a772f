"""The files under deploy/nomad, judged by a real Nomad with ACLs on."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.nomad import NomadServer, start_dev
from tests.tools import ROOT, needs, require

pytestmark = needs("nomad")
FILES = ROOT / "deploy" / "nomad"
JOBS = sorted(path.name for path in FILES.glob("*.nomad.hcl"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[NomadServer]:
    """A Nomad prepared as docs/how-to/nomad.md says."""
    require("nomad")
    with start_dev(acl=True) as server:
        assert run(server, server.token, "namespace", "apply", "ci")
        assert run(server, server.token, "node", "pool", "apply", str(FILES / "ci-pool.hcl"))
        policy = str(FILES / "server-policy.hcl")
        assert run(server, server.token, "acl", "policy", "apply", "-namespace", "ci", "albatros", policy)
        yield server


@pytest.fixture(scope="module")
def albatros_token(cluster: NomadServer) -> str:
    wanted = {"Name": "albatros", "Type": "client", "Policies": ["albatros"]}
    status, made = cluster.call("POST", "/v1/acl/token", wanted)
    assert status == 200
    return str(json.loads(made)["SecretID"])


def run(server: NomadServer, token: str, *command: str) -> str:
    """What a command of Nomad's prints; AssertionError with what it said when it fails."""
    env = {**os.environ, "NOMAD_ADDR": server.url, "NOMAD_TOKEN": token}
    done = subprocess.run(["nomad", *command], env=env, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", JOBS)
def test_a_job_file_is_valid_for_the_token_of_albatros(cluster: NomadServer, albatros_token: str, name: str) -> None:
    image = ["-var", "image=registry.example/nix"] if 'variable "image"' in (FILES / name).read_text() else []
    printed = run(cluster, albatros_token, "job", "validate", *image, str(FILES / name))
    assert printed.strip() == "Job validation successful"


def test_the_policy_reaches_what_the_server_needs_and_no_more(cluster: NomadServer, albatros_token: str) -> None:
    path = "nomad/jobs/alb-test"
    run(cluster, albatros_token, "var", "put", "-namespace", "ci", path, "token=x")
    run(cluster, albatros_token, "var", "purge", "-namespace", "ci", path)
    run(cluster, albatros_token, "node", "status")
    for refused in (("var", "put", "-namespace", "ci", "other/path", "token=x"), ("operator", "raft", "list-peers")):
        with pytest.raises(AssertionError, match="Permission denied"):
            run(cluster, albatros_token, *refused)


def test_a_worker_starts_with_its_file(tmp_path: Path) -> None:
    data = tmp_path / "data.hcl"
    data.write_text(f'data_dir = "{tmp_path}"\n')
    command = ["nomad", "config", "validate", str(data), str(FILES / "client.hcl")]
    done = subprocess.run(command, text=True, capture_output=True, timeout=60, check=False)
    assert "Configuration is valid" in done.stdout, done.stdout + done.stderr


def test_files_are_formatted() -> None:
    subprocess.run(["nomad", "fmt", "-check", str(FILES)], check=True, timeout=60)
