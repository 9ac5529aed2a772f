"""The real runner builds real derivations in Nix's sandbox and uploads what they made."""

import base64
import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from tests.support.runner import (
    FLAKES,
    attributes_of,
    build_order,
    copy_repo,
    evaluation_order,
    hostile_repo,
    make_repo,
    outputs_of,
    result_of,
    run_order,
)
from tests.support.runner_server import RunnerServer
from tests.support.server_process import eventually
from tests.tools import needs

pytestmark = needs("nix", "git")
SECRET = "the-servers-key-0123456789"
EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "hello-offline"
SLEEP = f"3{os.getpid()}"  # tells the builders of test processes apart
ELF_MACHINE_AARCH64 = b"\xb7\x00"
Make = Callable[..., dict[str, object]]


class Case:
    """A repo whose attributes were evaluated once, and the orders to build them."""

    def __init__(self, directory: Path, source: Path) -> None:
        self.home, self.repo = directory / "home", directory / "repo"
        self.commit = copy_repo(self.repo, source)
        self.attributes = attributes_of(run_order(self.home, evaluation_order(self.repo, self.commit)))

    def order(self, attribute: str, *binaries: str, **limits: int) -> dict[str, object]:
        drv_path = cast("str", self.attributes[attribute]["drv_path"])
        return build_order(self.repo, self.commit, attribute, drv_path, binaries, **limits)

    def build(self, attribute: str, *binaries: str, **limits: int) -> RunnerServer:
        return run_order(self.home, self.order(attribute, *binaries, **limits))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("mixed"), FLAKES / "mixed")


def files_of(server: RunnerServer) -> list[dict[str, object]]:
    return cast("list[dict[str, object]]", outputs_of(server)[0]["files"])


def bytes_of(server: RunnerServer, file: dict[str, object]) -> bytes:
    data = server.blobs[cast("str", file["digest"])]
    assert len(data) == file["size"]
    return data


@needs("go")
def test_a_static_binary_is_cross_compiled_offline_and_uploaded(tmp_path: Path) -> None:
    case = Case(tmp_path, EXAMPLE)
    server = case.build("packages.aarch64-linux.hello", "bin/hello")
    (output,) = outputs_of(server)
    assert output["output"] == "out"
    assert str(output["store_path"]).endswith("-hello")
    assert [entry["path"] for entry in cast("list[dict[str, object]]", output["closure"])] == [output["store_path"]]
    (file,) = files_of(server)
    assert (file["path"], file["kind"], file["executable"]) == ("bin/hello", "binary", True)
    data = bytes_of(server, file)
    assert data.startswith(b"\x7fELF")
    assert data[18:20] == ELF_MACHINE_AARCH64
    assert "building hello for linux/arm64" in server.log
    # The same again: nothing is built, and nothing the Repo has is sent.
    again = RunnerServer(case.order("packages.aarch64-linux.hello", "bin/hello"), known_blobs=set(server.blobs))
    run_order(case.home, again.order, again)
    assert outputs_of(again) == outputs_of(server)
    assert not again.blobs
    assert "building /nix/store" not in again.log


@needs("go")
def test_a_docker_archive_is_uploaded_as_it_is(tmp_path: Path) -> None:
    case = Case(tmp_path, FLAKES / "docker-archive")
    image, binary = (case.attributes[f"packages.armv6l-linux.{name}"] for name in ("docker", "hello"))
    assert image["needs"] == [binary["drv_path"]]
    assert image["system"] == "x86_64-linux"
    server = case.build("packages.armv6l-linux.docker")
    (file,) = files_of(server)
    assert (file["path"], file["kind"]) == ("", "file")
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(bytes_of(server, file)))) as archive:
        manifest = json.load(cast("io.BufferedReader", archive.extractfile("manifest.json")))
        config = json.load(cast("io.BufferedReader", archive.extractfile(manifest[0]["Config"])))
        layer = cast("io.BufferedReader", archive.extractfile(manifest[0]["Layers"][0])).read()
    assert config["architecture"] == "arm"
    with tarfile.open(fileobj=io.BytesIO(layer)) as files:
        assert "bin/hello" in files.getnames()


def test_a_nix2container_description_becomes_an_archive(tmp_path: Path) -> None:
    server = Case(tmp_path, FLAKES / "nix2container").build("packages.x86_64-linux.image")
    (file,) = files_of(server)
    assert file["kind"] == "image-archive"
    with tarfile.open(fileobj=io.BytesIO(bytes_of(server, file))) as archive:
        manifest = json.load(cast("io.BufferedReader", archive.extractfile("manifest.json")))[0]
        config = json.load(cast("io.BufferedReader", archive.extractfile(manifest["Config"])))
        layers = [cast("io.BufferedReader", archive.extractfile(name)).read() for name in manifest["Layers"]]
    assert config["architecture"] == "arm64"
    assert config["config"]["Entrypoint"] == ["/bin/hello"]
    with tarfile.open(fileobj=io.BytesIO(layers[0])) as files:
        assert any(name.endswith("-library/file") for name in files.getnames())
    with tarfile.open(fileobj=io.BytesIO(layers[1])) as files:
        member = files.getmember("/bin/hello")
        assert (member.mode, member.uid, member.gid, member.mtime) == (0o700, 1000, 100, 1)
        assert files.getmember("/etc/hello").linkname == "../bin/hello"


def test_a_directory_output_becomes_one_tar_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    case = Case(tmp_path, FLAKES / "nix2container")
    first, second = (case.build("packages.x86_64-linux.root") for _ in range(2))
    (file,) = files_of(first)
    assert file["kind"] == "directory-tar"
    assert files_of(second) == [file]
    with tarfile.open(fileobj=io.BytesIO(bytes_of(first, file))) as archive:
        assert archive.getnames() == ["bin", "bin/hello", "etc", "etc/hello"]
        assert {(member.uid, member.gid, member.mtime) for member in archive} == {(0, 0, 1)}


def test_a_failing_builder_is_named_with_its_last_lines(mixed: Case) -> None:
    result = result_of(mixed.build("packages.x86_64-linux.broken"))
    assert (result["outcome"], result["reason"]) == ("failed", "build_failed")
    message = str(result["message"])
    assert "packages.x86_64-linux.broken" in message
    assert str(mixed.attributes["packages.x86_64-linux.broken"]["drv_path"]) in message
    assert "exit code 3" in message
    assert message.endswith("the last words of broken")


def test_what_a_derivation_needs_is_built_with_it(mixed: Case) -> None:
    server = mixed.build("packages.x86_64-linux.dependent")
    (file,) = files_of(server)
    assert bytes_of(server, file) == b"dependent on good\n"


def test_a_name_with_a_dot_is_built(mixed: Case) -> None:
    server = mixed.build('packages.x86_64-linux."with.dot"')
    assert bytes_of(server, files_of(server)[0]) == b"dotted\n"


def test_another_system_is_no_capacity(mixed: Case) -> None:
    result = result_of(mixed.build("packages.x86_64-linux.foreign"))
    assert result["reason"] == "no_capacity"
    assert "riscv64-linux" in str(result["message"])


def test_a_missing_binary_is_named(mixed: Case) -> None:
    result = result_of(mixed.build("checks.x86_64-linux.good", "bin/absent"))
    assert result["reason"] == "build_failed"
    assert "no file 'bin/absent'" in str(result["message"])


def test_another_derivation_than_the_evaluated_one_is_refused(mixed: Case) -> None:
    order = mixed.order("packages.x86_64-linux.good")
    cast("dict[str, object]", order["build"])["attribute"] = "packages.x86_64-linux.dependent"
    server = run_order(mixed.home, order)
    assert result_of(server)["reason"] == "evaluation_failed"
    assert "evaluates to" in str(result_of(server)["message"])
    assert "building " not in server.log


def test_outputs_over_the_limit_are_refused(mixed: Case) -> None:
    result = result_of(mixed.build("packages.x86_64-linux.good", output_bytes=3))
    assert result["reason"] == "build_failed"
    assert "more than 3 bytes" in str(result["message"])


def scripted(tmp_path: Path, script: str, tokens: dict[str, str] | None = None, **limits: int) -> RunnerServer:
    """Build a derivation with this shell script."""
    flake = f"""{{ outputs = {{ self }}: {{ packages.x86_64-linux.it = derivation {{
      name = "it"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" ''PATH=/usr/bin:/bin; {script}'' ];
    }}; }}; }}"""
    commit = make_repo(tmp_path / "repo", {"flake.nix": flake})
    found = attributes_of(run_order(tmp_path / "home", evaluation_order(tmp_path / "repo", commit)))
    drv_path = cast("str", found["packages.x86_64-linux.it"]["drv_path"])
    order = build_order(tmp_path / "repo", commit, "packages.x86_64-linux.it", drv_path, (), **limits)
    order["access_tokens"] = tokens or {}
    return run_order(tmp_path / "home", order)


def test_silence_ends_a_build(tmp_path: Path) -> None:
    result = result_of(scripted(tmp_path, f"echo one word; sleep {SLEEP}", silence_seconds=2))
    assert result["reason"] == "silent"
    assert "2 s" in str(result["message"])
    eventually(lambda: not running(f"sleep\x00{SLEEP}"), lambda: "the builder goes on")


def test_the_wall_clock_ends_a_build_that_talks(tmp_path: Path) -> None:
    result = result_of(scripted(tmp_path, "while true; do echo word; sleep 0.2; done", wall_seconds=3))
    assert result["reason"] == "timeout"
    assert "3 s" in str(result["message"])


def test_a_long_log_keeps_its_head_and_its_tail(tmp_path: Path) -> None:
    script = 'echo the first line; seq -f "line %.0f of many" 200000; echo the last line; echo > $out'
    server = scripted(tmp_path, script, log_bytes=100_000)
    assert result_of(server)["outcome"] == "succeeded"
    assert 90_000 < len(server.log.encode()) <= 100_000
    assert server.result is not None
    assert server.result["log_bytes"] == len(server.log.encode())
    assert server.result["log_pieces"] == len(server.pieces)
    assert "the first line\nline 1 of many\n" in server.log
    assert "the last line\n" in server.log
    assert "bytes of log were left out here" in server.log


def test_a_token_of_the_order_is_in_no_log_and_no_message(tmp_path: Path) -> None:
    token = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
    script = f"echo it is {token}; echo {token} | fold -w 11; echo x{token} | base64 -w 20; echo last {token}; exit 1"
    server = scripted(tmp_path, script, {"git.example.org": token})
    result = result_of(server)
    seen = server.log + str(result["message"])
    assert "it is ***\n" in server.log
    assert "last ***" in str(result["message"])
    for hidden in (token, token[:11], token[11:22], base64.b64encode(f"x{token}".encode()).decode()[20:40]):
        assert hidden not in seen.replace("\n", "").replace(" ", "")


def test_a_full_disk_has_its_own_reason(tmp_path: Path) -> None:
    result = result_of(scripted(tmp_path, "cat /dev/zero > /dev/full"))
    assert result["reason"] == "disk_full"


def test_a_builder_sees_nothing_but_its_sandbox(tmp_path: Path) -> None:
    secret = tmp_path / "keys" / "key"
    secret.parent.mkdir()
    secret.write_text(SECRET)
    commit = hostile_repo(tmp_path / "repo", "builder", secret)
    found = attributes_of(run_order(tmp_path / "home", evaluation_order(tmp_path / "repo", commit)))
    drv_path = cast("str", found["packages.x86_64-linux.stolen"]["drv_path"])
    order = build_order(tmp_path / "repo", commit, "packages.x86_64-linux.stolen", drv_path)
    server = run_order(tmp_path / "home", order)
    (file,) = files_of(server)
    seen = bytes_of(server, file).decode() + server.log
    assert "NIX_BUILD_TOP=/build" in seen
    for word in (SECRET, "ALBATROS", "attempt-token", str(tmp_path / "home" / "albatros-runner.pyz")):
        assert word not in seen


@pytest.mark.parametrize(("name", "binaries"), [("link-output", ()), ("link-binary", ("bin/hello",))])
def test_an_output_that_leads_out_of_the_store_is_refused(tmp_path: Path, name: str, binaries: tuple[str, ...]) -> None:
    secret = tmp_path / "keys" / "key"
    secret.parent.mkdir()
    secret.write_text(SECRET)
    commit = hostile_repo(tmp_path / "repo", name, secret)
    found = attributes_of(run_order(tmp_path / "home", evaluation_order(tmp_path / "repo", commit)))
    drv_path = cast("str", found["packages.x86_64-linux.stolen"]["drv_path"])
    order = build_order(tmp_path / "repo", commit, "packages.x86_64-linux.stolen", drv_path, binaries)
    server = run_order(tmp_path / "home", order)
    assert result_of(server)["reason"] == "build_failed"
    assert "leaves the Nix store" in str(result_of(server)["message"])
    assert not server.blobs


def running(words: str) -> bool:
    """Whether a process with these words in its command line runs."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words.encode() in path.read_bytes():
                return True
        except OSError:
            continue
    return False
