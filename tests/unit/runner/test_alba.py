"""What `alba` finds in a directory, and where links into the runner's own store lead."""

import io
import tarfile
from pathlib import Path

import pytest

from albatros.runner import alba
from albatros.runner.alba import Part, WrongUseError, find_parts, physical


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Nix store of the runner's own."""
    root = tmp_path / "nix-root"
    (root / "nix/store").mkdir(parents=True)
    monkeypatch.setenv("NIX_REMOTE", f"local?root={root}&x=1")
    return root


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_archives_layouts_and_binaries_of_a_directory_are_found(tmp_path: Path) -> None:
    wanted = ["linux.amd64.tar.gz", "linux.arm.tar", "linux/amd64/hello", "linux/arm/v7/hello"]
    for name in (*wanted, "README", "linux.json", "linux/stray", "linux/a/b/c/deep", "other/amd64/x"):
        write(tmp_path / name)
    for name in ("oci-layout", "index.json"):
        write(tmp_path / "linux.arm64" / name)
    found = {part.file: part.path for part in find_parts(str(tmp_path))}
    assert set(found) == {*wanted, "linux.arm64"}
    assert found["linux/amd64/hello"] == str(tmp_path / "linux/amd64/hello")
    assert find_parts(str(tmp_path / "README")) == [Part("README", str(tmp_path / "README"))]
    assert [part.file for part in find_parts(f"{tmp_path}/linux.arm64/")] == ["linux.arm64"]
    with pytest.raises(WrongUseError, match="is not there"):
        find_parts(str(tmp_path / "missing"))


def test_a_link_into_the_store_leads_into_the_runners_own(store: Path, tmp_path: Path) -> None:
    archive = write(store / "nix/store/abc-image.tar.gz")
    (store / "nix/store/def-farm").mkdir()
    (store / "nix/store/def-farm/linux.amd64.tar.gz").symlink_to("/nix/store/abc-image.tar.gz")
    result = tmp_path / "result"
    result.symlink_to("/nix/store/def-farm")
    assert find_parts(str(result)) == [Part("linux.amd64.tar.gz", str(archive))]
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(WrongUseError, match="circle"):
        physical(str(tmp_path / "circle"))


def test_a_layout_becomes_one_tar(tmp_path: Path) -> None:
    write(tmp_path / "layout/oci-layout", "{}")
    write(tmp_path / "layout/blobs/sha256/abc", "blob")
    packed = alba._packed(Part("layout", str(tmp_path / "layout")), str(tmp_path / "packed"))
    with tarfile.open(fileobj=io.BytesIO(Path(packed.path).read_bytes())) as archive:
        assert sorted(archive.getnames()) == ["blobs", "blobs/sha256", "blobs/sha256/abc", "oci-layout"]


def test_outside_of_a_script_it_says_what_to_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ALBATROS_JOB", raising=False)
    assert alba.main(["container", "push", "-t", "x:y", ".", "hub"]) == 2
    assert "use `albatros image push`" in capsys.readouterr().err
    with pytest.raises(SystemExit) as wrong:
        alba.main(["container", "pull"])
    assert wrong.value.code == 2
