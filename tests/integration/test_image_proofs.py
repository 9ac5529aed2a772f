"""`albatros image` with keys, as users run it: push signed, verify, inspect, copy; and the real cosign beside it."""

import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast
from urllib.request import Request, urlopen

import pytest

from albatros import cli
from albatros.cli.progress import Progress, WatchedBlobs, watched
from albatros.domain.references import digest_of
from albatros.images.publish import BlobUploaded
from tests.services.registry import RegistryServer
from tests.support.archives import elf, source
from tests.support.stores import MemoryStore
from tests.support.terminal import Terminal
from tests.tools import find, needs

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SOURCE = "https://git.example.org/alba/hello"


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str


class Command:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Done:
        code = cli.main(["image", *map(str, arguments)])
        captured = self._capsys.readouterr()
        return Done(code, captured.out, captured.err)

    def json(self, *arguments: object) -> dict[str, object]:
        done = self(*arguments, "--json")
        assert done.code == 0, done.err
        return cast("dict[str, object]", json.loads(done.out))


@pytest.fixture
def image(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.setattr(cli, "COMMANDS", ("image",))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return Command(capsys)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private key as openssl makes it, and its public half."""
    private, public = tmp_path / "sign.key", tmp_path / "sign.pub"
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private)
    openssl("ec", "-in", private, "-pubout", "-out", public)
    return private, public


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def push(image: Command, tmp_path: Path, key: Path, destination: str, name: str = "alba/hello") -> str:
    for architecture in ("amd64", "arm64"):
        (tmp_path / architecture).write_bytes(elf(architecture))
    sources = [f"{architecture}={tmp_path / architecture}" for architecture in ("amd64", "arm64")]
    about = ["--annotation", f"source={SOURCE}", "--annotation", f"revision={COMMIT}"]
    return str(
        image.json("push", "-t", f"{name}:v1", *sources, "--to", destination, "--sign-key", key, *about)["digest"]
    )


@needs("openssl")
def test_a_signed_image_verifies_for_what_it_is(image: Command, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    root = tmp_path / "registry"
    digest = push(image, tmp_path, private, f"dir:{root}")
    reference = f"dir:{root}/alba/hello:v1"
    verified = image.json("verify", reference, "--key", public, "--repo", SOURCE, "--commit", COMMIT)
    assert verified["digest"] == digest
    assert verified["signed"] == {"name": "alba/hello", "repo": SOURCE, "commit": COMMIT}
    for wrong, text in (
        (("--name", "alba/other"), "for the name"),
        (("--repo", "https://git.example.org/mallory/hello"), "for the repo"),
        (("--commit", "f" * 40), "for the commit"),
    ):
        done = image("verify", reference, "--key", public, *wrong)
        assert (done.code, text in done.err) == (1, True)
    assert image("verify", reference, "--commit", COMMIT).code == 2
    assert image("verify", reference, "--key", tmp_path / "missing").code == 2


@needs("openssl")
def test_an_encrypted_key(
    image: Command, tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = keys
    locked = tmp_path / "locked.key"
    openssl("pkcs8", "-topk8", "-in", private, "-out", locked, "-passout", "pass:sesame")
    monkeypatch.setenv("COSIGN_PASSWORD", "sesame")
    push(image, tmp_path, locked, f"dir:{tmp_path / 'registry'}")
    assert image("verify", f"dir:{tmp_path / 'registry'}/alba/hello:v1", "--key", public).code == 0
    monkeypatch.delenv("COSIGN_PASSWORD")
    done = image("push", "-t", "hello", tmp_path / "amd64", "--to", f"dir:{tmp_path / 'other'}", "--sign-key", locked)
    assert (done.code, "give its passphrase" in done.err) == (2, True)
    assert not (tmp_path / "other").exists()


@needs("openssl", "docker-registry")
def test_a_mirror_keeps_signatures_under_the_name_of_the_original(
    image: Command, tmp_path: Path, keys: tuple[Path, Path], registry_server: RegistryServer
) -> None:
    private, public = keys
    digest = push(image, tmp_path, private, registry_server.url)
    original = f"{registry_server.host}/alba/hello"
    root = tmp_path / "mirror"
    copied = image.json("copy", f"{original}:v1", f"dir:{root}", "-t", "mirrored/hello")
    assert (copied["digest"], copied["references"]) == (digest, [f"dir:{root}/mirrored/hello:v1"])
    mirrored = f"dir:{root}/mirrored/hello:v1"
    assert image("verify", mirrored, "--key", public).code == 1
    assert image("verify", mirrored, "--key", public, "--name", original).code == 0
    before, after = (image.json("inspect", reference) for reference in (f"{original}:v1", mirrored))
    assert before | {"reference": mirrored} == after
    again = image.json("copy", f"{original}:v1", f"dir:{root}", "-t", "mirrored/hello")
    assert again["bytes_sent"] == 0
    by_digest = image("copy", f"{original}@{digest}", f"dir:{root}")
    assert by_digest.out == f"dir:{root}/alba/hello@{digest}\n"


@needs("openssl")
def test_inspect_shows_the_tree(image: Command, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    push(image, tmp_path, keys[0], f"dir:{tmp_path / 'registry'}")
    lines = image("inspect", f"dir:{tmp_path / 'registry'}/alba/hello:v1").out.splitlines()
    assert f"  org.opencontainers.image.revision: {COMMIT}" in lines
    assert [line.strip().split("  ")[0] for line in lines if line.startswith("  linux/")] == [
        "linux/amd64",
        "linux/arm64/v8",
    ]
    assert sum("cosign signature" in line for line in lines) == 3
    assert sum("https://sigstore.dev/cosign/sign/v1" in line for line in lines) == 3


def test_a_bill_of_materials_that_cannot_be_written_is_told(image: Command, tmp_path: Path) -> None:
    (tmp_path / "hello").write_bytes(elf())
    done = image("push", "-t", "hello", tmp_path / "hello", "--to", f"dir:{tmp_path / 'registry'}", "--sbom")
    assert done.code == 0
    assert "linux/amd64: no bill of materials" in done.err
    assert "cyclonedx" not in image("inspect", f"dir:{tmp_path / 'registry'}/hello:latest").out


def test_what_a_registry_says_does_not_reach_the_terminal(image: Command, tmp_path: Path) -> None:
    (tmp_path / "hello").write_bytes(elf())
    hostile = "1.0\x1b[2J\x1b]0;title\x07\nsigned as alba/hello"
    image("push", "-t", "hello", tmp_path / "hello", "--to", f"dir:{tmp_path}", "--annotation", f"version={hostile}")
    out = image("inspect", f"dir:{tmp_path}/hello:latest").out
    assert "\x1b" not in out
    assert "  org.opencontainers.image.version: 1.0 signed as alba/hello\n" in out


@needs("cosign", "openssl", "docker-registry")
def test_cosign_verifies_both_forms(
    image: Command, tmp_path: Path, keys: tuple[Path, Path], registry_server: RegistryServer
) -> None:
    private, public = keys
    digest = push(image, tmp_path, private, registry_server.url)
    reference = f"{registry_server.host}/alba/hello@{digest}"
    # Without one, cosign would fetch the public sigstore's; a key needs none of it.
    root = tmp_path / "root.json"
    root.write_text('{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}')
    kind = "https://sigstore.dev/cosign/sign/v1"
    bundle = ["--new-bundle-format", f"--trusted-root={root}", f"--type={kind}"]
    assert cosign(tmp_path, "verify-attestation", public, *bundle, reference).returncode == 0
    assert cosign(tmp_path, "verify-attestation", other_key(tmp_path), *bundle, reference).returncode != 0
    # Where there are bundles, cosign does not look at the signature tag.
    forget(registry_server, "alba/hello", digest.replace(":", "-"))
    verified = cosign(tmp_path, "verify", public, reference)
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)[0]["optional"] == {"repo": SOURCE, "commit": COMMIT}
    assert cosign(tmp_path, "verify", other_key(tmp_path), reference).returncode != 0


@needs("cosign", "docker-registry")
def test_a_key_that_cosign_made_signs_for_cosign(
    image: Command, tmp_path: Path, registry_server: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "COSIGN_PASSWORD": "sesame"}
    subprocess.run(
        [find("cosign"), "generate-key-pair"], check=True, capture_output=True, cwd=tmp_path, env=environment
    )
    monkeypatch.setenv("COSIGN_PASSWORD", "sesame")
    digest = push(image, tmp_path, tmp_path / "cosign.key", registry_server.url, "cosign/hello")
    reference = f"{registry_server.host}/cosign/hello"
    assert image("verify", f"{reference}:v1", "--key", tmp_path / "cosign.pub").code == 0
    forget(registry_server, "cosign/hello", digest.replace(":", "-"))
    verified = cosign(tmp_path, "verify", tmp_path / "cosign.pub", f"{reference}@{digest}")
    assert verified.returncode == 0, verified.stderr


def other_key(tmp_path: Path) -> Path:
    private, public = tmp_path / "other.key", tmp_path / "other.pub"
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private)
    openssl("ec", "-in", private, "-pubout", "-out", public)
    return public


def cosign(home: Path, command: str, key: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    options = [f"--key={key}", "--insecure-ignore-tlog=true", "--allow-http-registry", *arguments]
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [find("cosign"), command, *options], capture_output=True, text=True, env=environment, check=False
    )


def forget(server: RegistryServer, name: str, tag: str) -> None:
    url = f"http://{server.host}/v2/{name}/manifests/"
    headers = {"Accept": "application/vnd.oci.image.index.v1+json"}
    with urlopen(Request(url + tag, headers=headers), timeout=60) as answer:
        listed = digest_of(answer.read())
    with urlopen(Request(url + listed, method="DELETE"), timeout=60):
        pass


def test_a_terminal_has_a_bar_for_each_blob(image: Command) -> None:
    store, terminal = MemoryStore(), Terminal()
    blob = store.put((bytes(3 << 20),))
    progress = Progress(terminal)
    with WatchedBlobs(store, progress, "dir:/registry").open(blob.digest) as stream:
        while stream.read(1 << 20):
            pass
    assert "[################........] 2.0 MiB of 3.0 MiB" in terminal.getvalue()
    assert "[########################] 3.0 MiB of 3.0 MiB" in terminal.getvalue()
    progress.event("dir:/registry", BlobUploaded(blob))
    assert terminal.shown() == [f"dir:/registry: sent {blob.digest[:19]} (3.0 MiB)"]
    assert blob.digest == digest_of(bytes(3 << 20))


def test_elsewhere_there_are_plain_lines(image: Command, tmp_path: Path) -> None:
    (tmp_path / "hello").write_bytes(elf())
    done = image("push", "-t", "hello", tmp_path / "hello", "--to", f"dir:{tmp_path / 'registry'}")
    assert "\x1b" not in done.err
    assert "sent sha256:" in done.err
    assert "tag latest" in done.err


def test_a_terminal_has_a_bar_for_each_source_as_long_as_it_is_read() -> None:
    data = elf(payload=bytes(3 << 20))
    progress = Progress(terminal := Terminal())
    one = watched(replace(source(data, "dir/" + "a" * 90 + "/hello"), size=len(data)), progress)
    unknown = watched(replace(source(data, "standard input"), size=None), progress)
    for read in (one, unknown):
        with read.open() as stream:
            while stream.read(1 << 20):
                pass
            assert len(terminal.shown()) == 1
        assert terminal.shown() == []
    drawn = [line for line in terminal.getvalue().splitlines() if "MiB" in line]
    assert "aaa/hello [#######.................] 1.0 MiB of 3.0 MiB" in terminal.getvalue()
    assert "reading standard input 2.0 MiB" in terminal.getvalue()
    assert {len(line.rpartition("\x1b[J")[2]) for line in drawn if "…" in line} == {79}, "none wraps"


def test_more_bars_than_a_terminal_has_lines_are_not_drawn() -> None:
    progress = Progress(terminal := Terminal())
    for number in range(60):
        progress.moved(f"blob {number}", 1, 2)
    assert len(terminal.shown()) == 23
    for number in range(60):
        progress.end(f"blob {number}", f"sent {number}")
    assert terminal.shown() == [f"sent {number}" for number in range(60)]
