"""Gitea's registry: a signed image goes there with docker's login, and clients that have none pull it."""

import base64
import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from albatros import cli
from tests.services.gitea_server import ADMIN, GiteaServer
from tests.support.archives import elf
from tests.support.flakes import AMD64, ARMV6
from tests.support.pulls import Remote
from tests.tools import find, needs

NAME = f"{ADMIN}/clients"
SECONDS = 60


@needs("crane", "skopeo")
def test_a_signed_image_is_pushed_pulled_and_verified(
    gitea: GiteaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    login = {"auth": base64.b64encode(f"{ADMIN}:{gitea.token}".encode()).decode()}
    (tmp_path / "config.json").write_text(json.dumps({"auths": {gitea.host: login}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "key", tmp_path / "key.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    sources = []
    for machine in (AMD64, ARMV6):
        (tmp_path / machine.architecture).write_bytes(elf(machine.architecture, payload=b"hello" * 1000))
        sources.append(str(tmp_path / machine.architecture))
    push = ["image", "push", *sources, "-t", f"{NAME}:v1", "--sign-key", str(private), "--json"]
    pushes = []
    for _ in range(2):
        assert cli.main([*push, "--to", f"docker://{gitea.host}"]) == 0
        pushes.append(json.loads(capsys.readouterr().out))
    assert [pushed["destinations"][0]["bytes_sent"] > 0 for pushed in pushes] == [True, False]
    assert cli.main(["image", "verify", f"{gitea.host}/{NAME}:v1", "--key", str(public)]) == 0

    remote = Remote(gitea.host, NAME)
    assert remote.digest("v1") == pushes[0]["digest"] == pushes[1]["digest"]
    for machine in (AMD64, ARMV6):
        assert remote.pull("v1", machine, "bin/clients") == elf(machine.architecture, payload=b"hello" * 1000)
    command = [find("crane"), "validate", "--remote", f"{gitea.host}/{NAME}:v1"]
    seen = subprocess.run(command, capture_output=True, check=False, timeout=SECONDS, env={"HOME": str(tmp_path)})
    assert seen.returncode == 0, seen.stderr
