"""deploy/nomad/albatros.nomad.hcl, run: Albatros itself as a job, its secrets out of a Variable of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.services.nomad import TLS_HOSTS, NomadServer, start_dev
from tests.services.process import free_port
from tests.support.server_process import eventually
from tests.support.tls import Authority, Files
from tests.tools import ROOT, needs, require

pytestmark = needs("nomad")
FILES = ROOT / "deploy" / "nomad"


@pytest.fixture
def tls(tmp_path: Path) -> Files:
    return Authority(tmp_path).issue("nomad", TLS_HOSTS)


@pytest.fixture
def nomad(tls: Files) -> Iterator[NomadServer]:
    """One node as docs/how-to/nomad.md wants it for the server."""
    require("nomad")
    meta = {"albatros": "true", "nix_system": "x86_64-linux"}
    with start_dev(
        acl=True, meta=meta, tls=tls, node_pool="ci", host_network={"loopback": {"interface": "lo"}}
    ) as server:
        yield server


def run(nomad: NomadServer, tls: Files, *command: str) -> str:
    env = {**os.environ, "NOMAD_ADDR": nomad.url, "NOMAD_TOKEN": nomad.token, "NOMAD_CACERT": str(tls.ca)}
    env |= {"NOMAD_CLIENT_CERT": str(tls.certificate), "NOMAD_CLIENT_KEY": str(tls.key)}
    done = subprocess.run(["nomad", *command], env=env, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_albatros_runs_as_a_job_and_is_found_healthy(nomad: NomadServer, tls: Files, tmp_path: Path) -> None:
    run(nomad, tls, "namespace", "apply", "ci")
    policy = str(FILES / "server-policy.hcl")
    run(nomad, tls, "acl", "policy", "apply", "-namespace", "ci", "albatros", policy)
    wanted = {"Name": "albatros", "Type": "client", "Policies": ["albatros"]}
    token = json.loads(nomad.call("POST", "/v1/acl/token", wanted)[1])["SecretID"]
    port = free_port()
    here = {
        "/opt/albatros/.venv/bin/albatros": str(Path(sys.executable).parent / "albatros"),
        "/var/lib/albatros": str(tmp_path / "data"),
        "https://127.0.0.1:4646": nomad.url,
        '"/etc/nomad.d/ca.pem"': f'"{tls.ca}"\ncert_file = "{tls.certificate}"\nkey_file = "{tls.key}"',
        "8080": str(port),
    }
    text = (FILES / "albatros.nomad.hcl").read_text()
    for theirs, ours in here.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    job = tmp_path / "albatros.nomad.hcl"
    job.write_text(text)
    secrets = {
        "url": "https://ci.example.org",
        "database_url": f"sqlite:///{tmp_path}/albatros.sqlite",
        "nomad_token": token,
        "forge_url": "https://git.invalid",
        "forge_token": "a-token",
        "webhook_secret": "a-secret",
    }
    items = [f"{key}={value}" for key, value in secrets.items()]
    run(nomad, tls, "var", "put", "-namespace", "ci", "nomad/jobs/albatros", *items)
    run(nomad, tls, "job", "run", "-detach", str(job))

    def healthy() -> bool:
        listed = json.loads(nomad.call("GET", "/v1/job/albatros/allocations?namespace=ci")[1])
        checks = [nomad.call("GET", f"/v1/client/allocation/{row['ID']}/checks?namespace=ci")[1] for row in listed]
        return any(check["Status"] == "success" for found in checks for check in json.loads(found).values())

    eventually(healthy, lambda: run(nomad, tls, "alloc", "logs", "-namespace", "ci", "-stderr", "-job", "albatros"))
    assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    log = run(nomad, tls, "alloc", "logs", "-namespace", "ci", "-stderr", "-job", "albatros")
    assert "listening" in log
    assert "Nomad does not answer" not in log
    assert "Nomad cannot be" not in log
    run(nomad, tls, "job", "stop", "-detach", "-namespace", "ci", "albatros")
