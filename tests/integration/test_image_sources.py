"""Where `albatros image push` reads from, and bad input: a clear sentence, and nothing at any destination."""

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from albatros import cli
from albatros.domain import media
from albatros.domain.references import digest_of
from tests.support.archives import Archive, elf, gzipped, layer, member, write_tar
from tests.support.faulty_registry import FaultyRegistry, faulty_registry

LAYER = layer(hello=b"hello" * 2000)
GOOD = Archive([LAYER], {"architecture": "arm64", "os": "linux"})


@pytest.fixture(autouse=True)
def only_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cli, "COMMANDS", ("image",))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def push(tmp_path: Path, *arguments: object, name: str = "alba/hello:v1") -> int:
    target = f"dir:{tmp_path / 'registry'}"
    try:
        return cli.main(["image", "push", "-t", name, "--json", *map(str, arguments), "--to", target])
    except SystemExit as end:
        return int(str(end.code))


def platforms(capsys: pytest.CaptureFixture[str]) -> list[str]:
    printed: dict[str, list[str]] = json.loads(capsys.readouterr().out)
    return printed["platforms"]


def layout(directory: Path, architecture: str) -> Path:
    """An OCI layout as `skopeo copy … oci:DIRECTORY` writes it."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def add(data: bytes, kind: str) -> dict[str, object]:
        (blobs / digest_of(data)[7:]).write_bytes(data)
        return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}

    config = {"architecture": architecture, "os": "linux", "rootfs": {"diff_ids": [digest_of(LAYER)]}}
    manifest = {
        "config": add(json.dumps(config).encode(), media.CONFIG),
        "layers": [add(gzipped(LAYER), "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
    index = {"manifests": [add(json.dumps(manifest).encode(), media.MANIFEST)]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return directory


def test_an_archive_on_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(GOOD.tar())))
    assert push(tmp_path, "-") == 0
    assert platforms(capsys) == ["linux/arm64/v8"]


def test_standard_input_is_one_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert push(tmp_path, "-", "arm=-") == 2
    assert "standard input holds one archive" in capsys.readouterr().err


def test_an_oci_layout_and_a_directory_of_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = tmp_path / "sources"
    layout(sources / "linux.amd64", "amd64")
    (sources / "linux.arm64.tar.gz").write_bytes(gzipped(GOOD.tar()))
    for place, architecture in (("linux/386", "386"), ("linux/arm/v7", "arm")):
        (sources / place).mkdir(parents=True)
        (sources / place / "hello-386").write_bytes(elf(architecture))
    (sources / "linux" / "notes").mkdir()
    (sources / "linux" / "notes" / "text").write_text("no platform")
    assert push(tmp_path, sources) == 0
    assert platforms(capsys) == ["linux/386", "linux/amd64", "linux/arm/v7", "linux/arm64/v8"]
    assert push(tmp_path, sources / "linux.amd64") == 0
    assert platforms(capsys) == ["linux/amd64"]


@dataclass(frozen=True, slots=True)
class Targets:
    """A directory and a registry that nobody may write to."""

    root: Path
    remote: FaultyRegistry

    @property
    def arguments(self) -> list[str]:
        return ["--to", f"dir:{self.root}", self.remote.url]

    def check_untouched(self) -> None:
        assert not self.root.exists()
        assert {method for method, _ in self.remote.requests} <= {"HEAD", "GET"}


@pytest.fixture
def targets(tmp_path: Path) -> Iterator[Targets]:
    with faulty_registry() as remote:
        yield Targets(tmp_path / "registry", remote)


BOMB = write_tar([(member("big"), bytes(8 << 20))])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (gzipped(GOOD.tar())[:-50], "truncated"),
        (GOOD.tar()[:4000], "truncated"),
        (replace(GOOD, extra=[(member("../../etc/cron.d/x"), b"x")]).tar(), "outside itself"),
        (replace(GOOD, extra=[(member("/etc/passwd"), b"x")]).tar(), "outside itself"),
        (replace(GOOD, extra=[(member("x", tarfile.SYMTYPE, "../../etc"), b"")]).tar(), "outside itself"),
        (replace(GOOD, diff_ids=[digest_of(b"other")]).tar(), "the archive is damaged or was changed"),
        (replace(GOOD, config_bytes=b"<xml>").tar(), "is not JSON"),
        (replace(GOOD, config_bytes=b'{"a":"' + b"x" * (5 << 20) + b'"}').tar(), "may have 4194304"),
        (replace(GOOD, layers=[BOMB]).tar(), " to more than 6291456 bytes; raise the limit"),
        (
            gzipped(replace(GOOD, layers=[gzipped(BOMB)], diff_ids=[digest_of(BOMB)]).tar()),
            "unpack to more than 6291456",
        ),
        (b"#!/nix/store/bash\nexec x", "| albatros image push … -"),
        (b'{"version":1}', "is not a tar archive, nor a program"),
        (b"rubbish" * 600, "is not a tar archive"),
    ],
    ids=[
        "truncated gzip",
        "truncated tar",
        "name with ..",
        "absolute name",
        "link with ..",
        "other diff_id",
        "config",
        "large config",
        "bomb",
        "bomb in a layer",
        "script",
        "JSON",
        "rubbish",
    ],
)
def test_bad_input_is_told_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], targets: Targets, data: bytes, said: str
) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad.tar"
    good.write_bytes(elf("amd64"))
    bad.write_bytes(data)
    assert push(tmp_path, good, bad, "--max-size", "6M", *targets.arguments) == 1
    error = capsys.readouterr().err
    assert f"{bad}: " in error
    assert said in error
    targets.check_untouched()


def test_what_is_not_bad_is_written(tmp_path: Path, targets: Targets) -> None:
    good = tmp_path / "good"
    good.write_bytes(GOOD.tar())
    assert push(tmp_path, good, "--max-size", "6M", *targets.arguments) == 0
    assert targets.root.exists()
    assert ("alba/hello", "v1") in targets.remote.manifests


@pytest.mark.parametrize(
    ("options", "name", "code", "said"),
    [
        (["--annotation", f"licenses={'x' * (5 << 20)}"], "alba/hello:v1", 1, "registries take at most 4194304"),
        (["--to", "docker://docker.io/alba"], "hello/tools:v1", 2, "Docker Hub would refuse the name 'alba/hello/t"),
        (["--to", "ftp://example.org/x"], "alba/hello:v1", 2, "ftp:… is not the address of a registry; use docker://"),
        ([], "alba/hello:v 1", 2, "not a tag"),
        ([], "alba/hello:.v1", 2, "not a tag"),
        ([], f"alba/hello:{'v' * 129}", 2, "not a tag"),
        ([], "Alba/hello:v1", 2, "not an image name"),
    ],
    ids=["manifest", "Docker Hub", "scheme", "space in a tag", "tag with a dot", "long tag", "name"],
)
def test_what_no_registry_takes_is_told_and_nothing_is_written(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    targets: Targets,
    options: list[str],
    name: str,
    code: int,
    said: str,
) -> None:
    good = tmp_path / "good"
    good.write_bytes(elf("amd64"))
    assert push(tmp_path, good, *options, *targets.arguments, name=name) == code
    assert said in capsys.readouterr().err
    targets.check_untouched()


@pytest.mark.parametrize("bearer", [True, False], ids=["bearer", "basic"])
def test_wrong_credentials_are_told_with_host_scope_and_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], targets: Targets, bearer: bool
) -> None:
    good, config = tmp_path / "good", tmp_path / "docker" / "config.json"
    good.write_bytes(elf("amd64"))
    config.parent.mkdir()
    config.write_text(json.dumps({"auths": {targets.remote.host: {"username": "robot", "password": "hunter33"}}}))
    targets.remote.login, targets.remote.bearer = ("robot", "hunter22"), bearer
    assert cli.main(["image", "push", "-t", "alba/hello:v1", str(good), "--to", targets.remote.url]) == 1
    error = capsys.readouterr().err
    for said in (targets.remote.host, "repository:alba/hello:pull,push", f"'robot' with the credentials from {config}"):
        assert said in error
    assert "hunter33" not in error
    targets.check_untouched()
