"""Layers come out with the digests that nix2container itself has for them."""

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from albatros.runner.archive import Sink
from albatros.runner.failure import JobFailedError
from albatros.runner.nix2container import layer_bytes, read_image, write_archive
from albatros.runner.storefiles import StoreFiles

LIMIT = 1 << 20


class PlainFiles(StoreFiles):
    """Files of a plain directory, where upstream's own tests have theirs."""

    def __init__(self, directory: Path) -> None:
        super().__init__("")
        self._directory = directory

    def walk(self, path: str) -> Iterator[str]:
        yield path
        if (self._directory / path).is_dir():
            for name in sorted(entry.name for entry in (self._directory / path).iterdir()):
                yield from self.walk(f"{path}/{name}")

    def lstat(self, path: str) -> os.stat_result:
        return os.lstat(self._directory / path)

    def readlink(self, path: str) -> str:
        return str((self._directory / path).readlink())

    def open(self, path: str) -> BinaryIO:
        return (self._directory / path).open("rb")


def layer(directory: Path, paths: list[object]) -> Sink:
    sink = Sink(io.BytesIO(), LIMIT)
    for data in layer_bytes(paths, PlainFiles(directory)):
        sink.write(data)
    return sink


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """`data/` of nlewo/nix2container at 20d3395, seen from its directory `nix/`."""
    directory = tmp_path / "nix"
    directory.mkdir()
    for folder in ("tar-directory", "layer1"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        (tmp_path / "data" / folder / "file1").write_bytes(CONTENT[folder])
        (tmp_path / "data" / folder / "file1").chmod(0o644)
        (tmp_path / "data" / folder).chmod(0o755)
    (tmp_path / "data" / "tar-directory" / "symlink").symlink_to("file1")
    return directory


CONTENT = {"tar-directory": b"content file1", "layer1": b""}


def test_a_tree_has_the_digest_of_upstreams_test(upstream: Path) -> None:
    """TestTar in nix/tar_test.go."""
    sink = layer(upstream, [{"path": "../data/tar-directory"}])
    assert (sink.digest, sink.size) == (
        "sha256:1ea63d00b937dc24c711265b80444cc9e7e63751fb7f349b160be61d31381983",
        4096,
    )


def test_a_file_has_the_digest_of_upstreams_test(upstream: Path) -> None:
    """TestNewLayers in nix/layers_test.go."""
    sink = layer(upstream, [{"path": "../data/layer1/file1"}])
    assert sink.digest == "sha256:cc45bd46eca903b0900ebb997dffd5778904dca9ec02e7375dd1e653dfb61e2e"
    assert sink.size == 3072


def test_permissions_have_the_digest_of_upstreams_test(upstream: Path) -> None:
    """TestPerms in nix/layers_test.go."""
    perms = [{"regex": ".*file1", "mode": "0641"}]
    sink = layer(upstream, [{"path": "../data/layer1/file1", "options": {"perms": perms}}])
    assert sink.digest == "sha256:adf74a52f9e1bcd7dab77193455fa06743b979cf5955148010e5becedba4f72d"


def test_paths_are_rewritten_as_go_does(tmp_path: Path) -> None:
    (tmp_path / "store" / "x-root" / "bin").mkdir(parents=True)
    (tmp_path / "store" / "x-root" / "bin" / "hello").write_text("hello")
    rewrite = {"regex": "^store/x-(root)", "repl": "/opt/${1}"}
    entry = {"path": "store/x-root", "options": {"rewrite": rewrite}}
    out = io.BytesIO(b"".join(layer_bytes([entry], PlainFiles(tmp_path))))
    with tarfile.open(fileobj=out) as archive:
        names = [member.name for member in archive]
    assert names == ["", "/opt", "/opt/root", "/opt/root/bin", "/opt/root/bin/hello"]


def test_a_path_that_is_rewritten_to_nothing_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_text("")
    entry = {"path": "a", "options": {"rewrite": {"regex": "^a", "repl": ""}}}
    out = io.BytesIO(b"".join(layer_bytes([entry], PlainFiles(tmp_path))))
    with tarfile.open(fileobj=out) as archive:
        assert archive.getnames() == ["", "/b"]


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{", b'{"version": 1}', b"\x7fELF", b'{"layers": [], "arch": "amd64", "version": 1}', b"{" * 100_000],
)
def test_other_files_are_not_taken_for_an_image(data: bytes) -> None:
    assert read_image(data) is None


IMAGE = {"version": 1, "arch": "amd64", "image-config": {}, "layers": []}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"layers": {}},
        {"layers": [{}] * 1001},
        {"layers": ["text"]},
        {"layers": [{"digest": "sha256:0"}]},
        {"layers": [{"paths": [{"path": "/etc/passwd"}]}]},
        {"layers": [{"paths": [{"path": "/nix/store/../../etc/passwd"}]}]},
        {"layers": [{"layer-path": "/etc/passwd"}]},
        {"layers": [{"paths": [{"path": "a", "options": {"rewrite": {"regex": "(", "repl": ""}}}]}]},
        {"layers": [{"paths": [{"path": "a", "options": {"ignoreDestination": "x"}}]}]},
    ],
)
def test_a_description_that_is_wrong_or_hostile_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    image = read_image(json.dumps({**IMAGE, **change}).encode())
    assert image is not None
    with pytest.raises(JobFailedError) as refused:
        write_archive(image, StoreFiles(str(tmp_path)), str(tmp_path), io.BytesIO(), LIMIT)
    assert refused.value.reason == "build_failed"


def test_an_archive_over_its_limit_is_refused(tmp_path: Path) -> None:
    image = read_image(json.dumps(IMAGE).encode())
    assert image is not None
    with pytest.raises(OverflowError):
        write_archive(image, StoreFiles(""), str(tmp_path), io.BytesIO(), 100)
