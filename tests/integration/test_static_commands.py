"""Commands on static registries, in a directory and on Garage: push, ls, gc, several processes at once, kill -9."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from albatros import cli
from albatros.bootstrap import registry_opener
from albatros.domain.references import RegistryUrl
from albatros.images.publish import publish
from albatros.images.verify import read_published, verify_platform
from albatros.registries import collect as collecting
from albatros.registries import layout
from albatros.registries.base import Registry
from albatros.registries.opening import open_objects, open_registry
from albatros.settings import RegistrySettings
from tests.services.garage import BUCKET, GarageServer
from tests.support.archives import elf
from tests.support.images import make_image
from tests.support.stores import MemoryStore

NAME = "alba/hello"
SECONDS = 100


@pytest.fixture(params=["dir", "garage"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty static registry, with what a user has set to write to it."""
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    if request.param == "dir":
        return f"dir:{tmp_path / 'registry'}"
    garage: GarageServer = request.getfixturevalue("garage")
    for key, value in keys(garage).items():
        monkeypatch.setenv(key, value)
    return garage.url_of(f"{BUCKET}/{uuid.uuid4()}")


def keys(garage: GarageServer) -> Mapping[str, str]:
    return {"AWS_ACCESS_KEY_ID": garage.access_key, "AWS_SECRET_ACCESS_KEY": garage.secret_key}


@pytest.fixture
def binary(tmp_path: Path) -> str:
    path = tmp_path / "hello"
    path.write_bytes(elf("amd64", payload=b"hello" * 1000))
    return f"amd64={path}"


@pytest.fixture
def registry(place: str) -> Iterator[Registry]:
    opened = open_registry(RegistryUrl.parse(place))
    yield opened
    opened.close()


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "albatros", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_reference_that_was_printed_is_inspected_verified_and_copied(
    place: str, binary: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(tmp_path / "key")]
    subprocess.run(key, check=True, capture_output=True)
    public = ["openssl", "ec", "-in", str(tmp_path / "key"), "-pubout", "-out", str(tmp_path / "public")]
    subprocess.run(public, check=True, capture_output=True)
    push = ["image", "push", "-t", f"{NAME}:v1", binary, "--to", place, "--sign-key", str(tmp_path / "key")]
    assert cli.main(push) == 0
    (printed,) = capsys.readouterr().out.splitlines()
    digest = printed.partition("@")[2].partition("?")[0]
    body, question, options = place.partition("?")
    by_tag = f"{body}/{NAME}:v1{question}{options}"
    for reference in (printed, by_tag):
        assert cli.main(["image", "inspect", reference, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["digest"] == digest
        assert cli.main(["image", "verify", reference, "--key", str(tmp_path / "public")]) == 0
        assert f"signed as {NAME}" in capsys.readouterr().out
    mirror = f"{body}-mirror{question}{options}"
    for source, target in ((by_tag, f"dir:{tmp_path / 'copied'}"), (f"dir:{tmp_path / 'copied'}/{NAME}:v1", mirror)):
        assert cli.main(["image", "copy", source, target]) == 0
        (copied,) = capsys.readouterr().out.splitlines()
        assert cli.main(["image", "verify", copied, "--key", str(tmp_path / "public")]) == 0
        assert digest in capsys.readouterr().out
    gone = f"{body}/{NAME}:gone{question}{options}"
    assert cli.main(["image", "inspect", gone]) == 1
    assert "under gone" in capsys.readouterr().err
    assert cli.main(["image", "inspect", f"{body}-empty/{NAME}{question}{options}"]) == 2
    assert "is not in a static registry" in capsys.readouterr().err


def test_pushed_listed_and_collected(
    place: str, binary: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "PAUSE_SECONDS", 0)
    assert cli.main(["image", "push", "-t", f"{NAME}:v1", "-t", f"{NAME}:latest", binary, "--to", place, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["destinations"][0]["error"] is None
    assert cli.main(["image", "push", "-t", f"{NAME}:v1", binary, "--to", place, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["destinations"][0]["bytes_sent"] == 0
    assert cli.main(["registry", "ls", place]) == 0
    assert capsys.readouterr().out.split() == ["NAME", "TAGS", NAME, "2"]
    assert cli.main(["registry", "ls", place, NAME, "--json"]) == 0
    tags = json.loads(capsys.readouterr().out)
    assert [(tag["tag"], tag["digest"]) for tag in tags] == [("latest", first["digest"]), ("v1", first["digest"])]
    assert tags[0]["platforms"][0]["platform"] == "linux/amd64"
    assert cli.main(["registry", "ls", place, NAME]) == 0
    assert "linux/amd64" in capsys.readouterr().out

    Path(binary.partition("=")[2]).write_bytes(elf("amd64", payload=b"newer" * 1000))
    push = ["image", "push", "-t", f"{NAME}:v1", "-t", f"{NAME}:latest", binary, "--to", place]
    assert cli.main(push) == 0
    capsys.readouterr()
    for arguments, expected in ((["--dry-run"], 0), ([], 0), (["--dry-run", "--grace", "0"], 8), (["--grace", "0"], 8)):
        assert cli.main(["registry", "gc", place, "--json", *arguments]) == 0
        report = json.loads(capsys.readouterr().out)
        assert len(report["deleted"]) == expected, arguments
        assert (report["left"], report["bytes"] > 0) == (0, expected > 0)
    assert cli.main(["registry", "gc", place, "--grace", "0"]) == 0
    assert "0 objects" in capsys.readouterr().err


def test_several_processes_and_a_server_lose_no_tag(place: str, binary: str, registry: Registry) -> None:
    store = MemoryStore()
    images = [make_image(store, b"%d" % number) for number in range(3)]
    pushes = [start("image", "push", "-t", f"{NAME}:plain-{n}", binary, "--to", place) for n in range(4)]
    # Meanwhile what the server's publisher does, with a gate of its own.
    for number, image in enumerate(images):
        publish(image, store, registry, NAME, [f"server-{number}", "latest"], gate=lambda _tag: True)
    for push in pushes:
        _, errors = push.communicate(timeout=SECONDS)
        assert push.returncode == 0, errors
    expected = sorted(["latest", *(f"plain-{n}" for n in range(4)), *(f"server-{n}" for n in range(3))])
    assert registry.list_tags(NAME) == expected
    objects = open_objects(RegistryUrl.parse(place))
    with objects.open(layout.tags_key(NAME)) as stream:
        assert json.load(stream)["tags"] == expected
    with objects.open(layout.page_key(NAME)) as stream:
        page = stream.read().decode()
    assert all(tag in page for tag in expected)
    for tag in expected:
        for manifest in read_published(registry, NAME, tag).manifests:
            verify_platform(registry, NAME, manifest)
    assert objects.names(layout.LEASES) == []


def test_a_killed_collector_leaves_every_tag_and_the_next_finishes(
    place: str, binary: str, registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = MemoryStore()
    old, new = make_image(store, b"old"), make_image(store, b"new")
    for image in (old, new):
        publish(image, store, registry, NAME, ["latest"])
    objects = open_objects(RegistryUrl.parse(place))
    collector = start("registry", "gc", place, "--grace", "0")
    while not objects.names(layout.TOMBSTONES):
        assert collector.poll() is None, collector.communicate()
    os.kill(collector.pid, signal.SIGKILL)
    collector.communicate(timeout=SECONDS)
    assert read_published(registry, NAME, "latest") == new
    monkeypatch.setattr(collecting, "PAUSE_SECONDS", 0)
    assert cli.main(["registry", "gc", place, "--grace", "0"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 5
    assert registry.get_manifest(NAME, old.digest) is None
    for manifest in read_published(registry, NAME, "latest").manifests:
        verify_platform(registry, NAME, manifest)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["gc", "docker://example.org/alba"], 2, "no static registry; those are dir:PATH and s3://"),
        (["ls", "docker://example.org/alba"], 2, "name one: albatros registry ls docker://example.org/alba NAME"),
        (["ls", "dir:/nonexistent", "alba/hello"], 1, "no image alba/hello"),
        (["ls", "dir:/nonexistent", "Alba"], 2, "not an image name"),
        (["ls", "s3://registry?endpoint=http://127.0.0.1:1"], 2, "no keys for S3: set AWS_ACCESS_KEY_ID"),
        (["gc", "s3://registry?endpoint"], 2, "no keys for S3"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    assert cli.main(["registry", *arguments]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("grace", ["-1", "nan", "day", "1e99"])
def test_a_grace_is_a_number_of_hours(grace: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["registry", "gc", "dir:/nonexistent", f"--grace={grace}"])
    assert "not a number of hours" in capsys.readouterr().err


def test_a_push_to_a_missing_bucket_says_so(
    garage: GarageServer, binary: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in keys(garage).items():
        monkeypatch.setenv(key, value)
    for extra in ([], ["--dry-run"]):
        push = ["image", "push", "-t", NAME, binary, "--to", garage.url_of("no-such-bucket"), *extra]
        assert cli.main(push) == 1
        assert "has no bucket 'no-such-bucket'" in capsys.readouterr().err


def test_a_push_with_a_wrong_key_says_where_that_came_from_and_writes_nothing(
    garage: GarageServer,
    binary: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    shared = tmp_path / "credentials"
    shared.write_text(f"[default]\naws_access_key_id = {garage.access_key}\naws_secret_access_key = not-this-one\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(shared))
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    place = garage.url_of(f"{BUCKET}/{uuid.uuid4()}")
    assert cli.main(["image", "push", "-t", NAME, binary, "--to", place]) == 1
    error = capsys.readouterr().err
    assert f"with key {garage.access_key} from" in error
    assert str(shared) in error
    assert "not-this-one" not in error
    objects = open_objects(RegistryUrl.parse(place), garage.credentials)
    assert list(objects.walk("")) == []


def test_a_configured_registry_has_its_key_from_the_settings(
    garage: GarageServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "GK-of-somebody-else")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "wrong too")
    url = garage.url_of(f"{BUCKET}/{uuid.uuid4()}")
    settings = RegistrySettings(
        name="garage", url=url, username=garage.access_key, password=SecretStr(garage.secret_key)
    )
    registry = registry_opener(settings)()
    store = MemoryStore()
    image = make_image(store)
    publish(image, store, registry, NAME, ["v1"])
    assert read_published(registry, NAME, "v1") == image
    assert registry.address == url.partition("?")[0]
