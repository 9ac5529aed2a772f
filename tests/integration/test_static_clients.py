"""Clients that pull from static registries: Garage's web endpoint, and a directory behind our server, nginx, Caddy."""

import json
import os
import subprocess
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from albatros.domain.references import RegistryUrl
from albatros.images.assemble import AssembleOptions, assemble
from albatros.images.base import NullLayerCache
from albatros.images.model import Image
from albatros.images.publish import publish
from albatros.registries.opening import open_registry
from albatros.registries.serve import serve_directory
from tests.services.caddy import serve_caddy
from tests.services.garage import SITE_BUCKET, GarageServer
from tests.services.nginx import serve_nginx
from tests.services.process import Account, private_dir, running, unprivileged
from tests.support.archives import elf, source
from tests.support.flakes import AMD64, ARM64, ARMV6, Machine
from tests.support.pulls import Remote
from tests.support.stores import MemoryStore
from tests.tools import find, needs

NAME = "alba/clients"
MACHINES = (AMD64, ARM64, ARMV6)
SECONDS = 60


@pytest.fixture(scope="module")
def made() -> tuple[Image, MemoryStore]:
    store = MemoryStore()
    sources = [source(elf(machine.architecture, payload=b"hello")) for machine in MACHINES]
    return assemble(sources, store, NullLayerCache(), AssembleOptions()), store


@pytest.fixture(scope="module")
def image(made: tuple[Image, MemoryStore]) -> Image:
    return made[0]


def fill(url: str, made: tuple[Image, MemoryStore], garage: GarageServer | None = None) -> None:
    registry = open_registry(RegistryUrl.parse(url), garage.credentials if garage else None)
    publish(made[0], made[1], registry, NAME, ["v1", "latest"])


@pytest.fixture(scope="module", params=["garage", "garage-behind-nginx", "file-server", "nginx", "caddy"])
def host(request: pytest.FixtureRequest, made: tuple[Image, MemoryStore]) -> Iterator[str]:
    """`HOST:PORT` of a static registry that holds the image."""
    account = unprivileged()
    if request.param.startswith("garage"):
        garage: GarageServer = request.getfixturevalue("garage")
        fill(garage.url_of(SITE_BUCKET), made, garage)
        if request.param == "garage":
            yield garage.site
            return
        words = {"http://127.0.0.1:3902": garage.web, "Host registry.example.org": f"Host {SITE_BUCKET}"}
        with private_dir("nginx", account) as home, serve_nginx(home, account, "garage/nginx.conf", words) as address:
            yield address
        return
    with private_dir("static", account) as home:
        fill(f"dir:{home}/registry", made)
        if request.param == "file-server":
            with serve_directory(home / "registry") as address:
                yield address
            return
        if request.param == "caddy":
            with serve_caddy(home, account, home / "registry") as address:
                yield address
            return
        with serve_nginx(home, account, "registry/nginx.conf", {"/srv/registry": f"{home}/registry"}) as address:
            yield address


def run(home: Path, *command: str) -> str:
    """What a client prints that finds no configuration of anybody's."""
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "DOCKER_CONFIG": str(home)}
    program = [find(command[0]), *command[1:]]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=SECONDS, env=env)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def platform(machine: Machine) -> str:
    return "/".join(filter(None, ("linux", machine.architecture, machine.variant)))


@needs("skopeo")
def test_skopeo_inspects_and_copies_each_platform(host: str, image: Image) -> None:
    remote = Remote(host, NAME)
    assert remote.digest("v1") == image.digest
    assert remote.tags() == {"v1", "latest"}
    for machine in MACHINES:
        assert remote.pull("v1", machine) == elf(machine.architecture, payload=b"hello")


@needs("crane")
def test_crane_validates_pulls_and_lists(host: str, image: Image, tmp_path: Path) -> None:
    assert run(tmp_path, "crane", "digest", f"{host}/{NAME}:v1").strip() == image.digest
    assert set(run(tmp_path, "crane", "ls", f"{host}/{NAME}").split()) == {"v1", "latest"}
    for machine in MACHINES:
        run(tmp_path, "crane", "validate", "--platform", platform(machine), "--remote", f"{host}/{NAME}:v1")
        tar = tmp_path / f"{machine.architecture}.tar"
        run(tmp_path, "crane", "pull", "--platform", platform(machine), f"{host}/{NAME}:v1", str(tar))
        with tarfile.open(tar) as archive:
            assert "manifest.json" in archive.getnames()


@needs("regctl")
def test_regctl_gets_manifests_and_digests(host: str, image: Image, tmp_path: Path) -> None:
    run(tmp_path, "regctl", "registry", "set", "--tls=disabled", host)
    assert run(tmp_path, "regctl", "image", "digest", f"{host}/{NAME}:v1").strip() == image.digest
    got = run(tmp_path, "regctl", "manifest", "get", "--format", "raw-body", f"{host}/{NAME}:v1")
    assert json.loads(got) == json.loads(image.index_bytes)
    for manifest in image.manifests:
        digest = run(tmp_path, "regctl", "image", "digest", "-p", str(manifest.platform), f"{host}/{NAME}:v1")
        assert digest.strip() == manifest.descriptor.digest
    assert set(run(tmp_path, "regctl", "tag", "ls", f"{host}/{NAME}").split()) == {"v1", "latest"}


@needs("containerd")
def test_containerd_fetches_every_blob(host: str, image: Image, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("containerd runs as root alone")
    config = tmp_path / "config.toml"
    socket = tmp_path / "c.sock"
    config.write_text(
        f'version = 2\nroot = "{tmp_path}/root"\nstate = "{tmp_path}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{socket}"\n'
    )
    command = [find("containerd"), "--config", str(config), "--log-level", "error"]
    with running(command, log=tmp_path / "log", ready=socket.exists, account=Account()):
        reference = f"{host}/{NAME}:v1"
        ctr = ["ctr", "--address", str(socket)]
        run(tmp_path, *ctr, "content", "fetch", "--plain-http", "--all-platforms", reference)
        stored = set(run(tmp_path, *ctr, "content", "ls", "-q").split())
    assert stored >= {blob.digest for blob in image.all_blobs()}


def test_people_see_what_there_is(host: str, image: Image) -> None:
    for path, shown in (("", NAME), ("index.html", NAME), (f"images/{NAME}/index.html", image.digest)):
        with urllib.request.urlopen(f"http://{host}/{path}", timeout=SECONDS) as answer:
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
            assert shown in answer.read().decode()
