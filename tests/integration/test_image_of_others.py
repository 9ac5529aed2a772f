"""Images that other tools published: looked at, read whole and mirrored with the very same bytes."""

import io
import json
import subprocess
import uuid
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from albatros import cli
from albatros.domain import media
from albatros.domain.references import Blob, Digest, RegistryUrl, digest_of
from albatros.images.model import JsonObject
from albatros.images.referrers import push_blobs
from albatros.registries.base import Manifest
from albatros.registries.opening import open_registry
from tests.services.registry import RegistryServer
from tests.support.archives import Archive, layer
from tests.tools import needs

LAYER = "application/vnd.oci.image.layer.v1.tar"
STATEMENT = "application/vnd.in-toto+json"
pytestmark = needs("docker-registry")


@pytest.fixture(autouse=True)
def only_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cli, "COMMANDS", ("image",))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


class Published:
    """An image with what buildkit adds: an attestation of an unknown platform, and another system's image."""

    def __init__(self, server: RegistryServer) -> None:
        self.url, self.name = f"{server.url}/{uuid.uuid4()}", "others/hello"
        self.reference = f"{self.url.removeprefix('docker://')}/{self.name}:v1"
        self._registry = open_registry(RegistryUrl.parse(self.url))
        entries = [
            self._manifest({"os": "linux", "architecture": "arm64", "variant": "v8"}, layer(hello=b"hi"), LAYER),
            self._manifest({"os": "windows", "architecture": "amd64"}, layer(hello=b"hi"), LAYER),
            self._manifest({"os": "unknown", "architecture": "unknown"}, b'{"_type": "statement"}', STATEMENT),
        ]
        index = json.dumps({"schemaVersion": 2, "mediaType": media.INDEX, "manifests": entries}, indent=3).encode()
        self._registry.put_manifest(self.name, "v1", Manifest(media.INDEX, index))
        self.digest = digest_of(index)
        self._registry.close()

    def _manifest(self, platform: dict[str, str], content: bytes, kind: str) -> JsonObject:
        config = json.dumps(platform | {"rootfs": {"type": "layers", "diff_ids": [digest_of(content)]}}).encode()
        value = {
            "schemaVersion": 2,
            "mediaType": media.MANIFEST,
            "config": self._blob(config, media.CONFIG),
            "layers": [self._blob(content, kind)],
        }
        data = json.dumps(value, indent=3).encode()
        self._registry.put_manifest(self.name, digest_of(data), Manifest(media.MANIFEST, data))
        described = {"mediaType": media.MANIFEST, "digest": digest_of(data), "size": len(data)}
        return described | {"platform": platform | {"os.version": "10.0"}}

    def _blob(self, data: bytes, kind: str) -> JsonObject:
        blob = Blob(digest_of(data), len(data))
        push_blobs(self._registry, self.name, {blob: partial(io.BytesIO, data)})
        return {"mediaType": kind, "digest": blob.digest, "size": blob.size}


def printed(capsys: pytest.CaptureFixture[str]) -> JsonObject:
    return cast("JsonObject", json.loads(capsys.readouterr().out))


def test_an_index_with_platforms_that_albatros_does_not_build(
    registry_server: RegistryServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = Published(registry_server)
    assert cli.main(["image", "inspect", published.reference]) == 0
    seen = capsys.readouterr().out
    for platform in ("linux/arm64/v8", "windows/amd64", "unknown/unknown"):
        assert f"  {platform}  sha256:" in seen
    for target in (f"dir:{tmp_path / 'mirror'}", f"{registry_server.url}/{uuid.uuid4()}"):
        assert cli.main(["image", "copy", published.reference, target, "--json"]) == 0
        copied = printed(capsys)
        assert copied["digest"] == published.digest
        (reference,) = cast("list[str]", copied["references"])
        assert cli.main(["image", "verify", reference, "--json"]) == 0
        assert len(cast("list[object]", printed(capsys)["platforms"])) == 3


@needs("skopeo")
@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_an_image_without_an_index(
    registry_server: RegistryServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    archive = tmp_path / "archive.tar"
    archive.write_bytes(Archive([layer(hello=b"hi")], {"architecture": "arm64", "os": "linux"}).tar())
    reference = f"{registry_server.host}/{uuid.uuid4()}/single:v1"
    push = ["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", f"--format={form}"]
    subprocess.run([*push, f"docker-archive:{archive}", f"docker://{reference}"], check=True, capture_output=True)
    assert cli.main(["image", "verify", reference, "--json"]) == 0
    verified = printed(capsys)
    assert [entry["platform"] for entry in cast("list[JsonObject]", verified["platforms"])] == ["linux/arm64/v8"]
    target = f"{registry_server.url}/{uuid.uuid4()}"
    assert cli.main(["image", "copy", reference, target, "--json"]) == 0
    copied = printed(capsys)
    assert Digest(str(copied["digest"])) == verified["digest"]
    assert cli.main(["image", "verify", *cast("list[str]", copied["references"])]) == 0
    capsys.readouterr()
    at_files = cli.main(["image", "copy", reference, f"dir:{tmp_path / 'mirror'}"])
    if form == "oci":
        assert at_files == 0
    else:
        assert at_files == 1
        assert "a static registry holds OCI manifests" in capsys.readouterr().err
