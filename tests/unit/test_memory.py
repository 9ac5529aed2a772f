"""Layers that earlier runs compressed: used only where every destination has them, and never believed."""

import os
from pathlib import Path

import pytest

from albatros.domain.references import Blob, Digest, digest_of
from albatros.errors import ImageError
from albatros.images import memory
from albatros.images.layers import Compression, LayerWriter
from albatros.images.memory import LayerMemory, memory_directory, stamp
from albatros.images.spool import Spool
from albatros.registries.base import BlobOpener
from tests.support.stores import MemoryStore

TEXT = b"text of a layer" * 5000


class Remote:
    """A destination's blobs."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.asked: list[Blob] = []

    def find(self, blob: Blob) -> BlobOpener | None:
        self.asked.append(blob)
        return (lambda: self.store.open(blob.digest)) if self.store.size(blob.digest) == blob.size else None


@pytest.fixture
def remote() -> Remote:
    return Remote()


def write(tmp_path: Path, remote: Remote, data: bytes = TEXT, expected: Digest | None = None) -> tuple[Blob, int]:
    """One run of the command: the layer's blob, and how many bytes it kept."""
    with Spool() as spool:
        blobs = LayerMemory(tmp_path / "layers", spool, remote.find)
        blob = LayerWriter(blobs, blobs, Compression.GZIP).write([data], expected or digest_of(data)).descriptor.blob
        with blobs.open(blob.digest) as stream:
            remote.store.put([stream.read()])
        assert blobs.size(blob.digest) == blob.size
        return blob, spool.size(blob.digest) or 0


def test_a_layer_that_is_there_is_not_compressed_in_the_next_run(tmp_path: Path, remote: Remote) -> None:
    first, kept = write(tmp_path, remote)
    assert (kept, remote.asked) == (first.size, [])
    assert write(tmp_path, remote) == (first, 0)


def test_a_layer_that_is_not_there_is_compressed(tmp_path: Path, remote: Remote) -> None:
    first, _ = write(tmp_path, remote)
    remote.store.blobs.clear()
    assert write(tmp_path, remote) == (first, first.size)


def test_other_bytes_under_a_remembered_name_are_refused(tmp_path: Path, remote: Remote) -> None:
    write(tmp_path, remote)
    with pytest.raises(ImageError, match="its bytes have another digest"):
        write(tmp_path, remote, b"other", digest_of(TEXT))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 9000,
        "\xff",
        '{"parts": ""}',
        '{"parts": "", "layers": {}}',
        '{"parts": "", "layers": {"sha256:x": 5}}',
        f'{{"parts": "", "layers": {{"{digest_of(b"")}": "many"}}}}',
    ],
)
def test_a_damaged_entry_is_none(tmp_path: Path, remote: Remote, text: str) -> None:
    first, _ = write(tmp_path, remote)
    (entry,) = (tmp_path / "layers").iterdir()
    entry.write_text(text, encoding="latin-1")
    assert write(tmp_path, remote) == (first, first.size)


def test_a_directory_that_cannot_be_written_only_costs_time(tmp_path: Path, remote: Remote) -> None:
    (tmp_path / "layers").write_text("a file")
    first, kept = write(tmp_path, remote)
    assert kept == first.size


def test_no_more_than_so_many_are_remembered(tmp_path: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MOST", 4)
    for number in range(20):
        write(tmp_path, remote, b"%d" % number)
    assert 0 < len(list((tmp_path / "layers").iterdir())) <= 4
    last, kept = write(tmp_path, remote, b"19")
    assert kept == 0
    assert last.size


def test_what_a_file_was_read_as_counts_while_every_layer_is_there(tmp_path: Path, remote: Remote) -> None:
    file, how = digest_of(b"file"), "read so"
    layers = [remote.store.put([data]) for data in (b"one", b"two")]
    with Spool() as spool:
        blobs = LayerMemory(tmp_path / "layers", spool, remote.find)
        assert blobs.recall(file, how) is None
        blobs.remember(file, how, "parts", layers)
    with Spool() as spool:
        blobs = LayerMemory(tmp_path / "layers", spool, remote.find)
        assert blobs.recall(file, how) == "parts"
        assert [blobs.size(layer.digest) for layer in layers] == [3, 3]
        assert (blobs.recall(file, "read otherwise"), blobs.recall(digest_of(b"other"), how)) == (None, None)
    del remote.store.blobs[layers[1].digest]
    with Spool() as spool:
        assert LayerMemory(tmp_path / "layers", spool, remote.find).recall(file, how) is None


def test_a_stamp_changes_with_the_file_and_not_with_its_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert stamp(path.stat()) is None, "it may change again and look the same"
    monkeypatch.setattr(memory, "_SETTLED_NS", 0)
    before = path.stat()
    assert stamp(before) == stamp(path.stat()) is not None
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        path.write_bytes(b"two")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert stamp(path.stat()) != stamp(before), "whoever sets the time of the content back changes the other"
    other = tmp_path / "other"
    other.write_bytes(b"one")
    assert stamp(other.stat()) != stamp(before)


def test_where_it_is() -> None:
    assert memory_directory({"XDG_CACHE_HOME": "/c"}) == Path("/c/albatros/layers")
    assert memory_directory({"XDG_CACHE_HOME": "relative"}) == Path.home() / ".cache" / "albatros" / "layers"
