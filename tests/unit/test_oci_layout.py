"""OCI layouts, in a directory and as a tar: several platforms, nested indexes, and every way to be damaged."""

import json
from pathlib import Path

import pytest
import zstandard

from albatros.domain import media
from albatros.domain.platforms import Platform, PlatformHints
from albatros.domain.references import digest_of
from albatros.errors import ImageError
from albatros.images.assemble import AssembleOptions, assemble
from albatros.images.base import NullLayerCache, Source
from albatros.images.directory import is_layout, open_layout
from albatros.images.model import Image
from tests.support.archives import Archive, gzipped, layer, member, source, write_tar
from tests.support.stores import MemoryStore

FIRST, SECOND = layer(hello=b"1" * 5000), layer(world=b"2" * 5000)


class Layout:
    """An OCI layout's files by name."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        self.manifests: list[dict[str, object]] = []

    def blob(self, data: bytes, media_type: str) -> dict[str, object]:
        digest = digest_of(data)
        self.files[f"blobs/sha256/{digest[7:]}"] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def json(self, value: object, media_type: str) -> dict[str, object]:
        return self.blob(json.dumps(value).encode(), media_type)

    def image(self, config: dict[str, object], layers: list[bytes], packed: list[bytes]) -> dict[str, object]:
        rootfs = {"type": "layers", "diff_ids": [digest_of(data) for data in layers]}
        manifest = {
            "schemaVersion": 2,
            "config": self.json({**config, "rootfs": rootfs}, media.CONFIG),
            "layers": [self.blob(data, "application/vnd.oci.image.layer.v1.tar+gzip") for data in packed],
        }
        return self.json(manifest, media.MANIFEST)

    def finish(self, manifests: list[dict[str, object]]) -> dict[str, bytes]:
        return {**self.files, "index.json": json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()}


AMD64: dict[str, object] = {"architecture": "amd64", "os": "linux"}
ARM64: dict[str, object] = {"architecture": "arm64", "os": "linux"}


def two_platforms() -> dict[str, bytes]:
    layout = Layout()
    images = [
        layout.image(AMD64, [FIRST, SECOND], [gzipped(FIRST), SECOND]),
        layout.image(ARM64, [FIRST], [zstandard.compress(FIRST)]),
    ]
    attestation = {**layout.json({}, media.MANIFEST), "platform": {"architecture": "unknown", "os": "unknown"}}
    return layout.finish([layout.json({"manifests": [*images, attestation]}, media.INDEX)])


def tar(files: dict[str, bytes]) -> bytes:
    return write_tar([(member(name), data) for name, data in files.items()])


def run(*sources: Source) -> Image:
    return assemble(sources, MemoryStore(), NullLayerCache(), AssembleOptions())


def from_archives() -> Image:
    return run(
        source(Archive([FIRST, SECOND], AMD64).tar()),
        source(Archive([FIRST], ARM64).tar()),
    )


def write(directory: Path, files: dict[str, bytes]) -> Source:
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert is_layout(directory)
    return Source("layout", lambda: open_layout(directory))


def test_a_tar_and_a_directory_give_what_docker_archives_give(tmp_path: Path) -> None:
    expected = from_archives()
    files = two_platforms()
    assert run(source(tar(files))).digest == expected.digest
    assert run(source(gzipped(tar(files)))).digest == expected.digest
    assert run(write(tmp_path, files)).digest == expected.digest
    assert run(source(tar(dict(reversed(files.items()))))).digest == expected.digest


def test_an_archive_that_is_both_is_read_as_a_docker_archive() -> None:
    archive = Archive([FIRST], AMD64, extra=[(member("index.json"), b"broken"), (member("oci-layout"), b"{}")])
    assert run(source(archive.tar())).platforms == (Platform("linux", "amd64"),)


def test_a_hint_is_for_a_layout_of_one_platform() -> None:
    layout = Layout()
    files = layout.finish([layout.image({"architecture": "arm"}, [FIRST], [FIRST])])
    hints = PlatformHints(file_name="linux.armv7.tar")
    assert [str(platform) for platform in run(source(tar(files), hints=hints)).platforms] == ["linux/arm/v7"]


def test_two_images_for_one_platform_are_refused() -> None:
    layout = Layout()
    images = [layout.image(AMD64, [data], [data]) for data in (FIRST, SECOND)]
    with pytest.raises(ImageError, match="are both for linux/amd64"):
        run(source(tar(layout.finish(images))))


def damaged(change: str) -> dict[str, bytes]:
    layout = Layout()
    files = layout.finish([layout.image(AMD64, [FIRST], [gzipped(FIRST)])])
    names = [name for name in files if name.startswith("blobs/")]
    kinds = {name: files[name] for name in names}
    pick = {
        "layer": next(name for name in names if kinds[name].startswith(b"\x1f\x8b")),
        "config": next(name for name in names if b"rootfs" in kinds[name]),
        "manifest": next(name for name in names if b"layers" in kinds[name] and b"rootfs" not in kinds[name]),
    }
    what, _, how = change.partition(" ")
    if how == "missing":
        del files[pick[what]]
    elif how == "changed":
        files[pick[what]] += b" "
    elif how == "other":
        files[pick[what]] = gzipped(SECOND)
    elif what == "index":
        files["index.json"] = how.encode()
    return files


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("layer missing", "no tar for its layer"),
        ("layer other", "the config says"),
        ("config missing", "no JSON file for its config"),
        ("config changed", "the layout is damaged"),
        ("manifest missing", "no JSON file for its manifest"),
        ("manifest changed", "the layout is damaged"),
        ("index {", "is not JSON"),
        ("index {}", "no usable list of manifests"),
        ('index {"manifests":[]}', "names 0 images"),
        ('index {"manifests":[{}]}', "lacks a usable mediaType"),
        ('index {"manifests":[{"mediaType":"x","digest":"sha256:../../x","size":1}]}', "is not a digest"),
    ],
)
def test_what_is_damaged_is_refused(change: str, error: str) -> None:
    with pytest.raises(ImageError, match=error):
        run(source(tar(damaged(change))))


def test_an_index_that_names_itself_ends() -> None:
    layout = Layout()
    inner = layout.json({"manifests": []}, media.INDEX)
    for _ in range(5):
        inner = layout.json({"manifests": [inner]}, media.INDEX)
    with pytest.raises(ImageError, match="no usable list of manifests"):
        run(source(tar(layout.finish([inner]))))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write(tmp_path, two_platforms())
    with pytest.raises(ImageError, match=r"gone/index\.json cannot be read"):
        open_layout(tmp_path / "gone").read()
