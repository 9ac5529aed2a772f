"""`albatros image` from its arguments to what skopeo pulls: archives, binaries, several destinations at once."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

import pytest

from albatros import cli
from albatros.domain.references import Digest
from albatros.images import layers, memory
from albatros.images.base import Source
from albatros.images.layers import LayerWriter
from albatros.images.readers.archive import read_archive
from albatros.images.readers.parts import ImageParts
from albatros.images.streams import Reader
from albatros.registries.serve import serve_directory
from tests.services.registry import RegistryServer
from tests.support.archives import Archive, elf, gzipped, layer
from tests.support.faulty_registry import HOLD, Fault, faulty_registry
from tests.support.flakes import AMD64, ARM64, ARMV6, I386, Machine
from tests.support.pulls import Remote, elf_machine
from tests.tools import needs


class Destination(TypedDict):
    bytes_sent: int
    bytes_skipped: int
    error: str | None


class Platform(TypedDict):
    platform: str
    digest: str
    layers: list[dict[str, str]]


class Printed(TypedDict):
    """What `push --json` prints."""

    digest: str
    platforms: list[str]
    destinations: list[Destination]


class Inspected(TypedDict):
    """What `inspect --json` prints."""

    digest: str
    platforms: list[Platform]


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> "Printed":
        return cast("Printed", json.loads(self.out))


class Command:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Done:
        try:
            code = cli.main(["image", *map(str, arguments)])
        except SystemExit as end:
            code = int(str(end.code))
        captured = self._capsys.readouterr()
        return Done(code, captured.out, captured.err)


@pytest.fixture
def image(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.setattr(cli, "COMMANDS", ("image",))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Command(capsys)


def inspect(image: Command, reference: str) -> Inspected:
    return cast("Inspected", json.loads(image("inspect", reference, "--json").out))


def program(machine: Machine) -> bytes:
    return elf(machine.architecture, payload=machine.system.encode())


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """A directory as dockerTools builds fill it; the archive for arm says nothing of its variant."""
    directory = tmp_path / "archives"
    directory.mkdir()
    for machine in (AMD64, ARM64, I386, ARMV6):
        config = {"architecture": machine.architecture, "os": "linux", "created": "1970-01-01T00:00:01Z"}
        archive = Archive([layer(**{"bin/hello": program(machine)})], config).tar()
        (directory / f"linux.{machine.architecture}.tar.gz").write_bytes(gzipped(archive))
    (directory / "notes.txt").write_text("not an archive")
    return directory


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    path = tmp_path / "hello"
    path.write_bytes(program(AMD64))
    return path


@needs("skopeo", "docker-registry")
def test_a_directory_of_archives_is_pulled_from_both_registries_for_every_platform(
    image: Command, archives: Path, tmp_path: Path, registry_server: RegistryServer
) -> None:
    root = tmp_path / "registry"
    done = image(
        "push",
        "-t",
        "alba/hello:v1",
        "-t",
        "alba/hello",
        archives,
        "--to",
        f"dir:{root}",
        registry_server.url,
        "--json",
    )
    assert done.code == 0, done.err
    assert done.json["platforms"] == ["linux/386", "linux/amd64", "linux/arm/v6", "linux/arm64/v8"]
    with serve_directory(root) as host:
        for remote in (Remote(host, "alba/hello"), Remote(registry_server.host, "alba/hello")):
            assert remote.digest("v1") == remote.digest("latest") == done.json["digest"]
            assert remote.tags() == {"latest", "v1"}
            assert remote.platforms("v1") == {("386", ""), ("amd64", ""), ("arm", "v6"), ("arm64", "v8")}
            for machine in (AMD64, ARM64, I386, ARMV6):
                pulled = remote.pull("v1", machine)
                assert pulled == program(machine)
                assert elf_machine(pulled) == machine.elf


@needs("skopeo")
@pytest.mark.parametrize("compression", ["gzip", "fast", "zstd"])
def test_binaries_become_an_image(image: Command, tmp_path: Path, compression: str) -> None:
    for machine in (AMD64, ARMV6):
        (tmp_path / machine.architecture).write_bytes(program(machine))
    root = tmp_path / "registry"
    sources = [f"amd64={tmp_path / 'amd64'}", f"arm/v6={tmp_path / 'arm'}"]
    done = image("push", *sources, "-t", "hello:v1", "--compression", compression, "--to", f"dir:{root}")
    assert done.code == 0, done.err
    assert done.out.startswith(f"dir:{root}/hello:v1@sha256:")
    verified = image("verify", f"dir:{root}/hello:v1")
    assert verified.code == 0, verified.err
    if compression != "zstd":
        with serve_directory(root) as host:
            assert Remote(host, "hello").pull("v1", ARMV6) == program(ARMV6)


def test_the_last_argument_is_the_destination_where_none_is_named(binary: Path, tmp_path: Path) -> None:
    root = tmp_path / "registry"
    assert cli.main(["container", "push", "-t", "hello:v1", str(binary), f"dir:{root}"]) == 0
    with serve_directory(root) as host:
        assert Remote(host, "hello").tags() == {"v1"}


def test_a_dry_run_prints_no_reference(image: Command, binary: Path, tmp_path: Path) -> None:
    done = image("push", binary, "-t", "hello:v1", "--to", f"dir:{tmp_path / 'registry'}", "--dry-run")
    assert (done.code, done.out) == (0, "")
    assert "bytes, 0 are there" in done.err


def test_a_push_run_again_sends_nothing_and_a_dry_run_says_so(image: Command, archives: Path, tmp_path: Path) -> None:
    push = ("push", archives, "-t", "hello:v1", "--json", "--to", f"dir:{tmp_path / 'registry'}")
    dry = image(*push, "--dry-run")
    assert not (tmp_path / "registry").exists()
    first, again = image(*push), image(*push)
    (before,), (sent,), (nothing,) = (done.json["destinations"] for done in (dry, first, again))
    assert before["bytes_sent"] == sent["bytes_sent"] == nothing["bytes_skipped"] > 0
    assert (sent["bytes_skipped"], nothing["bytes_sent"]) == (0, 0)
    assert dry.json["digest"] == first.json["digest"] == again.json["digest"]


def test_a_push_run_again_compresses_nothing_unless_a_destination_lacks_it(
    image: Command, archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = ("push", archives, "-t", "hello:v1", "--json", "--to", f"dir:{tmp_path / 'registry'}")
    first = image(*push)
    made: list[bytes] = []
    original = layers._gzip_member

    def counted(block: bytes) -> bytes:
        made.append(block)
        return original(block)

    monkeypatch.setattr(layers, "_gzip_member", counted)
    again = image(*push)
    assert (again.code, again.json["digest"], made) == (0, first.json["digest"], [])
    other = image(*push, f"dir:{tmp_path / 'other'}")
    assert (other.code, other.json["digest"], len(made)) == (0, first.json["digest"], 4)
    assert image("verify", f"dir:{tmp_path / 'other'}/hello:v1").code == 0


def test_a_file_that_did_not_change_is_not_read_again_unless_a_destination_lacks_it(
    image: Command, archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_SETTLED_NS", 0)
    push = ("push", archives, "-t", "hello:v1", "--json", "--to", f"dir:{tmp_path / 'registry'}")
    read: list[str] = []

    def counted(
        raw: Reader, source: Source, writer: LayerWriter, most: int, promised: Mapping[str, Digest]
    ) -> list[ImageParts]:
        read.append(source.label)
        return read_archive(raw, source, writer, most, promised)

    monkeypatch.setattr("albatros.images.assemble.read_archive", counted)
    first = image(*push)
    assert (first.code, len(read)) == (0, 4)
    again = image(*push, "--sbom")
    assert (again.code, again.json["digest"], len(read)) == (0, first.json["digest"], 4)
    changed = archives / "linux.amd64.tar.gz"
    changed.write_bytes(gzipped(Archive([layer(**{"bin/hello": elf("amd64", payload=b"other")})]).tar()))
    other = image(*push)
    assert (other.code, len(read), read[4]) == (0, 5, str(changed))
    assert other.json["digest"] != first.json["digest"]
    elsewhere = image(*push, f"dir:{tmp_path / 'other'}")
    assert (elsewhere.code, elsewhere.json["digest"], len(read)) == (0, other.json["digest"], 9)
    assert image("verify", f"dir:{tmp_path / 'other'}/hello:v1").code == 0


@needs("docker-registry")
def test_a_second_name_takes_its_blobs_from_the_first(
    image: Command, archives: Path, registry_server: RegistryServer
) -> None:
    one = image("push", archives, "-t", "mount/one:v1", "--json", "--to", registry_server.url)
    more = ("-t", "mount/two:v1", "-t", "mount/three:v1", "--mount-from", "mount/one")
    done = image("push", archives, *more, "--json", "--to", registry_server.url)
    assert (done.code, done.json["digest"]) == (0, one.json["digest"]), done.err
    assert done.json["destinations"][0]["bytes_sent"] == 0
    assert image("verify", f"{registry_server.host}/mount/three:v1").code == 0


def test_one_destination_that_fails_does_not_stop_the_others(image: Command, binary: Path, tmp_path: Path) -> None:
    with faulty_registry() as refusing:
        refusing.faults = [Fault("POST", "uploads", 403, times=99)]
        done = image("push", binary, "-t", "hello:v1", "--json", "--to", refusing.url, f"dir:{tmp_path / 'registry'}")
    assert done.code == 1
    refused, fine = done.json["destinations"]
    assert "refuses to begin an upload" in (refused["error"] or "")
    assert fine["error"] is None
    assert image("verify", f"dir:{tmp_path / 'registry'}/hello:v1").code == 0


@pytest.mark.parametrize("known", [False, True], ids=["first push", "layers known"])
def test_one_destination_that_hangs_and_one_that_fails_midway_keep_nobody_waiting(
    image: Command, archives: Path, tmp_path: Path, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_SETTLED_NS", 0)
    first = image("push", archives, "-t", "hello:v1", "--to", f"dir:{tmp_path / 'before'}")
    assert first.code == 0
    environment = {**os.environ} if known else {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "empty")}
    root = tmp_path / "registry"
    with faulty_registry() as hanging, faulty_registry() as failing:
        hanging.faults = [Fault("HEAD", "blobs", HOLD, times=99)]
        failing.faults = [Fault("PUT", "manifests", 403, times=99)]
        command = [sys.executable, "-m", "albatros", "image", "push", str(archives), "-t", "hello:v1", "--json"]
        command += ["--to", hanging.url, failing.url, f"dir:{root}"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment, text=True) as running:
            try:
                said = _lines_until(
                    running, f"{failing.url}: {failing.host} refuses to put", f"dir:{root}: tag v1 moved"
                )
                assert hanging.url not in said, "it has not answered yet"
                assert image("verify", f"dir:{root}/hello:v1").code == 0
                assert failing.count("PUT", "uploads") > 0
            finally:
                hanging.let_go.set()
            printed = cast("Printed", json.loads(running.communicate()[0]))
        assert running.returncode == 1
    late, refused, fine = printed["destinations"]
    assert (late["error"], fine["error"], bool(refused["error"])) == (None, None, True)
    assert late["bytes_sent"] == fine["bytes_sent"] > 0
    assert printed["digest"] in first.out


def _lines_until(running: "subprocess.Popen[str]", *wanted: str) -> str:
    """What a command says on stderr up to the last of these."""
    assert running.stderr is not None
    said = ""
    while not all(text in said for text in wanted):
        line = running.stderr.readline()
        assert line, said
        said += line
    return said


def test_credentials_come_from_dockers_configuration(image: Command, binary: Path, tmp_path: Path) -> None:
    with faulty_registry() as private:
        private.login, private.bearer = ("robot", "hunter22"), True
        push = ("push", binary, "-t", "hello:v1", "--to", private.url)
        refused = image(*push)
        assert (refused.code, "without credentials" in refused.err) == (1, True)
        (tmp_path / "docker").mkdir()
        login = {"auths": {private.host: {"username": "robot", "password": "hunter22"}}}
        (tmp_path / "docker" / "config.json").write_text(json.dumps(login))
        assert image(*push).code == 0
        login["auths"][private.host]["password"] = "hunter33"
        (tmp_path / "docker" / "config.json").write_text(json.dumps(login))
        wrong = image(*push)
        assert wrong.code == 1
        assert f"'robot' with the credentials from {tmp_path / 'docker' / 'config.json'}" in wrong.err
        assert "hunter33" not in wrong.err + wrong.out


def test_inspect_shows_platforms_and_layers(image: Command, archives: Path, tmp_path: Path) -> None:
    reference = f"dir:{tmp_path / 'registry'}/alba/hello:v1"
    pushed = image("push", archives, "-t", "alba/hello:v1", "--json", "--to", f"dir:{tmp_path / 'registry'}")
    text = image("inspect", reference)
    assert f"{reference}  {pushed.json['digest']}" in text.out
    assert "linux/arm/v6" in text.out
    tree = inspect(image, reference)
    assert tree["digest"] == pushed.json["digest"]
    assert [entry["platform"] for entry in tree["platforms"]] == pushed.json["platforms"]


@pytest.mark.parametrize("kind", ["blobs", "manifests"])
@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_verify_finds_what_is_damaged(image: Command, archives: Path, tmp_path: Path, kind: str, damage: str) -> None:
    root = tmp_path / "registry"
    image("push", archives, "-t", "hello:v1", "--to", f"dir:{root}")
    last = inspect(image, f"dir:{root}/hello:v1")["platforms"][-1]
    victim = root / "v2/hello" / kind / (last["digest"] if kind == "manifests" else last["layers"][0]["digest"])
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.unlink()
    if damage == "changed":
        victim.write_bytes(data)
    done = image("verify", f"dir:{root}/hello:v1")
    assert done.code == 1
    assert done.err.startswith("albatros: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{binary}", "-t", "Hello", "--to", "dir:{root}"], "not an image name"),
        (["{binary}", "-t", "hello:-x", "--to", "dir:{root}"], "not a tag"),
        (["{binary}", "-t", "hello", "--to", "ftp://x"], "not the address of a registry"),
        (["{binary}", "-t", "hello", "--to", "docker://u:hunter22@h/x"], "holds no credentials"),
        (["{binary}.gone", "-t", "hello", "--to", "dir:{root}"], "is not a file"),
        (["vax={binary}", "-t", "hello", "--to", "dir:{root}"], "not a platform"),
        (["{empty}", "-t", "hello", "--to", "dir:{root}"], "holds neither an archive"),
        (["amd64={empty}", "-t", "hello", "--to", "dir:{root}"], "several platforms"),
        (["{binary}", "-t", "hello", "--annotation", "colour=red", "--to", "dir:{root}"], "KEY one of"),
        (["{binary}", "-t", "hello", "--created", "today", "--to", "dir:{root}"], "not a time"),
        (["{binary}", "-t", "hello", "--created", "2026-01-01", "--to", "dir:{root}"], "no time zone"),
        (["{binary}", "-t", "hello", "--max-size", "much", "--to", "dir:{root}"], "not a size"),
        (["{binary}", "-t", "hello", "--mount-from", "UPPER", "--to", "dir:{root}"], "not an image name"),
        (["{binary}", "-t", "hello"], "--to"),
    ],
)
def test_wrong_use_ends_with_2_and_writes_nothing(
    image: Command, binary: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"binary": binary, "empty": tmp_path / "empty", "root": tmp_path / "registry"}
    done = image("push", *(argument.format(**places) for argument in arguments))
    assert done.code == 2
    assert said in done.err
    assert "hunter22" not in done.err
    assert not (tmp_path / "registry").exists()


def test_a_bad_source_ends_with_1_and_writes_nothing(
    image: Command, binary: Path, archives: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.tar"
    bad.write_bytes(b"rubbish" * 1000)
    root = tmp_path / "registry"
    for sources, said in (
        ([bad], f"{bad}: it is not a tar archive"),
        ([binary, archives], "are both for linux/amd64"),
        ([f"arm64={binary}"], "for amd64, not for linux/arm64/v8"),
        ([archives, "--max-size", "1K"], "unpacks to more than 1024 bytes"),
    ):
        done = image("push", *sources, "-t", "hello", "--to", f"dir:{root}")
        assert done.code == 1
        assert said in done.err
    assert not root.exists()


def test_a_destination_that_is_not_there_is_told(image: Command, tmp_path: Path) -> None:
    (tmp_path / "registry" / "v2").mkdir(parents=True)
    (tmp_path / "registry" / "v2" / "index.html").write_text("{}")
    for reference in (f"dir:{tmp_path / 'registry'}/hello:v1", f"dir:{tmp_path / 'registry'}/hello"):
        done = image("inspect", reference)
        assert (done.code, "check the name and the tag" in done.err) == (1, True)


@needs("docker-registry", "skopeo")
def test_skopeo_takes_what_was_pushed_as_its_own(
    registry_server: RegistryServer, image: Command, archives: Path
) -> None:
    assert image("push", archives, "-t", "hello:v1", "--to", registry_server.url).code == 0
    command = ["skopeo", "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"]
    source, copy = (f"docker://{registry_server.host}/{name}" for name in ("hello:v1", "copy:v1"))
    subprocess.run([*command, "--insecure-policy", source, copy], check=True, capture_output=True, timeout=60)
    assert Remote(registry_server.host, "copy").digest("v1") == Remote(registry_server.host, "hello").digest("v1")


@needs("crane", "docker-registry", "regctl", "skopeo")
def test_a_layer_of_several_gzip_members_is_read_by_every_client(
    registry_server: RegistryServer, image: Command, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    path.write_bytes(elf("amd64", payload=b"".join(b"%d " % number for number in range(500_000))))
    reference = f"{registry_server.host}/large:v1"
    assert image("push", f"amd64={path}", "-t", "large:v1", "--to", registry_server.url).code == 0
    assert Remote(registry_server.host, "large").pull("v1", AMD64, "bin/large") == path.read_bytes()
    subprocess.run(["crane", "validate", "--remote", reference], check=True, capture_output=True, timeout=60)
    exported = subprocess.run(["crane", "export", reference, "-"], check=True, capture_output=True, timeout=60).stdout
    assert path.read_bytes() in exported
    get_file = ["regctl", "--host", f"reg={registry_server.host},tls=disabled", "image", "get-file"]
    got = subprocess.run(
        [*get_file, "--platform", "linux/amd64", reference, "/bin/large"], check=True, capture_output=True, timeout=60
    )
    assert got.stdout == path.read_bytes()
