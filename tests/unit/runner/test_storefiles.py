"""Files of a store are read by their store names, and links never lead out of it."""

from pathlib import Path

import pytest

from albatros.runner.failure import JobFailedError
from albatros.runner.storefiles import StoreFiles

OUT = "/nix/store/9qbgxyziwdkz2v5x4rd701v8yaz5aa57-hello"
OTHER = "/nix/store/gk8yy8lwfl9lq91vyqb9rnrhga200mzy-other"


@pytest.fixture
def store(tmp_path: Path) -> StoreFiles:
    out, other = Path(f"{tmp_path}{OUT}"), Path(f"{tmp_path}{OTHER}")
    (out / "bin").mkdir(parents=True)
    other.mkdir()
    (other / "file").write_text("other")
    (tmp_path / "secret").write_text("secret")
    links = {
        "absolute": f"{OTHER}/file",
        "relative": f"../{OTHER.rpartition('/')[2]}/file",
        "folder": OTHER,
        "etc": "/etc/passwd",
        "up": "../../../secret",
        "deep-up": "../../../../../../../../../../../../etc/passwd",
        "store": "/nix/store",
        "root": "/",
        "circle": "circle",
        "hop": "etc",
        "sneaky": f"{OTHER}/../../../secret",
    }
    for name, target in links.items():
        (out / name).symlink_to(target)
    (out / "bin" / "hello").write_text("hello")
    return StoreFiles(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content"),
    [("bin/hello", "hello"), ("absolute", "other"), ("relative", "other"), ("folder/file", "other")],
)
def test_links_inside_the_store_are_followed(store: StoreFiles, name: str, content: str) -> None:
    with store.open(f"{OUT}/{name}") as file:
        assert file.read() == content.encode()


@pytest.mark.parametrize(
    "name", ["etc", "up", "deep-up", "store", "root", "circle", "hop", "sneaky", "../../../secret"]
)
def test_links_out_of_the_store_are_refused(store: StoreFiles, name: str) -> None:
    with pytest.raises(JobFailedError) as refused:
        store.open(f"{OUT}/{name}")
    assert refused.value.reason == "build_failed"


def test_a_directory_is_no_file(store: StoreFiles) -> None:
    with pytest.raises(JobFailedError, match="not a plain file"):
        store.open(f"{OUT}/bin")


def test_a_missing_file_is_named(store: StoreFiles) -> None:
    with pytest.raises(JobFailedError, match=f"{OUT}/absent cannot be read"):
        store.open(f"{OUT}/absent")


def test_a_walk_names_everything_and_follows_nothing(store: StoreFiles) -> None:
    names = [path.removeprefix(OUT) for path in store.walk(OUT)]
    assert names[:3] == ["", "/absolute", "/bin"]
    assert "/folder" in names
    assert not any(name.startswith("/folder/") for name in names)


@pytest.mark.parametrize("path", ["/etc", "/nix/store", "/nix/store/../../etc", "relative"])
def test_a_walk_outside_of_the_store_is_refused(store: StoreFiles, path: str) -> None:
    with pytest.raises(JobFailedError):
        list(store.walk(path))
