"""What every blob store promises: the one in files, and the fake in memory."""

import fcntl
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from albatros.db.session import now
from albatros.domain.references import Digest, digest_of
from albatros.errors import BadInputError, NotFoundError, StoreError, StoreFullError
from albatros.images.base import BlobSink
from albatros.store import files
from albatros.store.base import BlobStore
from albatros.store.files import FileStore
from tests.support.stores import MemoryStore

ABSENT = digest_of(b"nobody wrote this")
LATER = timedelta(minutes=1)


@pytest.fixture(params=["files", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return FileStore(tmp_path / "blobs") if request.param == "files" else MemoryStore()


def content(store: BlobStore, digest: Digest) -> bytes:
    with store.open(digest) as file:
        return file.read()


def test_a_blob_is_read_as_it_was_written(store: BlobStore) -> None:
    data = os.urandom(1_000_003)
    blob = store.put(data[at : at + 7919] for at in range(0, len(data), 7919))
    assert blob.digest == digest_of(data)
    assert blob.size == len(data) == store.size(blob.digest)
    assert content(store, blob.digest) == data


def test_the_empty_blob_is_a_blob(store: BlobStore) -> None:
    blob = store.put([])
    assert (blob.digest, blob.size) == (digest_of(b""), 0)
    assert content(store, blob.digest) == b""


def test_reading_seeks(store: BlobStore) -> None:
    blob = store.put([b"0123456789" * 100_000])
    with store.open(blob.digest) as file:
        file.seek(999_990)
        assert file.read() == b"0123456789"
        file.seek(3)
        assert file.read(4) == b"3456"


def test_nothing_is_visible_before_the_commit(store: BlobStore) -> None:
    with store.writer() as writer:
        writer.write(b"half ")
        writer.write(b"a blob")
        digest = writer.digest()
        assert digest == digest_of(b"half a blob")
        assert store.size(digest) is None
        assert list(store.list()) == []
        writer.commit()
    assert content(store, digest) == b"half a blob"


@pytest.mark.parametrize("fails", [True, False])
def test_leaving_without_commit_keeps_nothing(store: BlobStore, fails: bool) -> None:
    def leave() -> None:
        with store.writer() as writer:
            writer.write(b"given up")
            if fails:
                raise InterruptedError

    if fails:
        with pytest.raises(InterruptedError):
            leave()
    else:
        leave()
    assert store.size(digest_of(b"given up")) is None
    assert list(store.list()) == []


def test_a_source_that_breaks_keeps_nothing(store: BlobStore) -> None:
    def broken() -> Iterator[bytes]:
        yield b"first"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        store.put(broken())
    assert list(store.list()) == []


@pytest.mark.parametrize("text", ["../../etc/passwd", "sha256:../" + "0" * 61, "sha256:" + "A" * 64, "sha512:00", ""])
def test_what_is_no_digest_reaches_no_file(store: BlobStore, text: str) -> None:
    with pytest.raises(BadInputError):
        store.open(Digest(text))
    with pytest.raises(BadInputError):
        store.size(Digest(text))
    with pytest.raises(BadInputError):
        store.delete(Digest(text), now())


def test_an_absent_blob_has_no_size_and_cannot_be_opened(store: BlobStore) -> None:
    assert store.size(ABSENT) is None
    assert not store.delete(ABSENT, now())
    with pytest.raises(NotFoundError, match=ABSENT):
        store.open(ABSENT)


def test_every_blob_is_listed_once(store: BlobStore) -> None:
    before = now()
    blobs = {store.put([bytes([n])]) for n in range(20)}
    store.put([b"\0"])
    listed = list(store.list())
    assert {(b.digest, b.size) for b in listed} == {(b.digest, b.size) for b in blobs}
    assert len(listed) == 20
    assert all(before - LATER < b.written_at < now() + LATER for b in listed)


def test_an_old_blob_is_deleted_and_a_young_one_stays(store: BlobStore) -> None:
    blob = store.put([b"some output"])
    assert not store.delete(blob.digest, now() - LATER)
    assert content(store, blob.digest) == b"some output"
    assert store.delete(blob.digest, now() + LATER)
    assert store.size(blob.digest) is None
    assert not store.delete(blob.digest, now() + LATER)


def test_writing_a_blob_again_makes_it_young(store: BlobStore) -> None:
    digest = store.put([b"seen before"]).digest
    cutoff = now()
    assert store.put([b"seen before"]).digest == digest
    assert not store.delete(digest, cutoff)
    assert content(store, digest) == b"seen before"


def test_many_writers_of_one_blob_agree(store: BlobStore) -> None:
    data = os.urandom(300_000)
    wrong: list[str] = []

    def upload() -> None:
        for _ in range(10):
            if store.put([data[:1000], data[1000:]]).size != len(data):
                wrong.append("size")
            if content(store, digest_of(data)) != data:
                wrong.append("bytes")

    threads = [threading.Thread(target=upload) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(list(store.list())) == 1


def test_a_store_that_works_says_so_and_keeps_nothing(store: BlobStore) -> None:
    store.check()
    assert list(store.list()) == []


def test_a_store_keeps_its_identity_through_whatever_is_written(store: BlobStore) -> None:
    named = store.identity()
    assert re.fullmatch("[0-9a-f]{32}", named)
    store.put([b"more"])
    assert store.identity() == named
    assert len(list(store.list())) == 1


def test_the_store_is_what_images_are_written_to(store: BlobStore) -> None:
    sink: BlobSink = store
    assert content(store, sink.put([b"layer"]).digest) == b"layer"


class TestFullAndBroken:
    """A store that cannot go on says why, keeps what it has and works again when it can."""

    def test_the_fake_is_full(self) -> None:
        store = MemoryStore(capacity=10)
        store.put([b"12345"])
        with pytest.raises(StoreFullError):
            store.put([b"1234", b"1234"])
        assert store.put([b"abcde"]).size == 5
        with pytest.raises(StoreFullError):
            store.check()

    def test_the_fake_is_broken(self) -> None:
        store = MemoryStore()
        digest = store.put([b"12345"]).digest
        store.broken = True
        calls: list[Callable[[], object]] = [
            store.check,
            store.writer,
            lambda: store.open(digest),
            lambda: store.size(digest),
        ]
        for call in calls:
            with pytest.raises(StoreError):
                call()
        store.broken = False
        assert content(store, digest) == b"12345"

    def test_a_full_disk(self) -> None:
        """A file system of 1 MiB in a mount namespace of its own: nothing of it is left on the machine."""
        inside = f'mount -t tmpfs -o size=1m none /mnt && exec {sys.executable} -c "$1"'
        command = ["unshare", "--mount", "--map-root-user", "sh", "-ec", inside, "sh", _ON_A_FULL_DISK]
        probe = subprocess.run([*command[:3], "true"], capture_output=True, check=False)
        if probe.returncode:
            pytest.skip("needs user namespaces (sysctl kernel.unprivileged_userns_clone=1)")
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
        assert done.stderr == ""
        assert done.stdout.splitlines() == ["full: the blob store /mnt/blobs is full", "kept", "works again"]

    def test_a_disk_that_went_away(self, tmp_path: Path) -> None:
        store = FileStore(tmp_path / "blobs")
        store.put([b"gone"])
        shutil.rmtree(tmp_path / "blobs")
        for call in (store.check, store.writer, lambda: list(store.list())):
            with pytest.raises(StoreError, match="blobs failed"):
                call()

    def test_a_root_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "blobs").write_text("")
        with pytest.raises(StoreError, match="blobs failed being opened"):
            FileStore(tmp_path / "blobs")


_ON_A_FULL_DISK = """
import os
from pathlib import Path
from albatros.errors import StoreFullError
from albatros.store.files import FileStore

store = FileStore(Path("/mnt/blobs"))
kept = store.put([b"x" * 400_000])
try:
    store.put(os.urandom(100_000) for _ in range(20))
except StoreFullError as error:
    print("full:", str(error).partition(";")[0])
with store.open(kept.digest) as file:
    print("kept" if len(file.read()) == 400_000 and len(list(store.list())) == 1 else "damaged")
store.put([os.urandom(300_000)])
store.check()
print("works again")
"""


class TestFiles:
    """What only the store in files promises."""

    def test_nobody_else_can_enter(self, tmp_path: Path) -> None:
        root = tmp_path / "blobs"
        root.mkdir(mode=0o755)
        blob = FileStore(root).put([b"private"])
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
        hexadecimal = blob.digest.removeprefix("sha256:")
        assert stat.S_IMODE((root / "sha256" / hexadecimal[:2] / hexadecimal).stat().st_mode) == 0o600

    def test_two_directories_are_two_stores_and_one_of_them_is_one_for_everybody(self, tmp_path: Path) -> None:
        first, second = FileStore(tmp_path / "first"), FileStore(tmp_path / "second")
        assert first.identity() != second.identity()
        (tmp_path / "again").symlink_to(tmp_path / "first")
        assert FileStore(tmp_path / "again").identity() == first.identity()

    def test_servers_that_start_at_once_name_a_store_once(self, tmp_path: Path) -> None:
        stores = [FileStore(tmp_path) for _ in range(8)]
        with ThreadPoolExecutor(len(stores)) as pool:
            assert len(set(pool.map(FileStore.identity, stores))) == 1
        assert list((tmp_path / "tmp").iterdir()) == []

    def test_no_temporary_file_stays(self, tmp_path: Path) -> None:
        store = FileStore(tmp_path)
        store.put([b"a"])
        store.put([b"a"])
        with store.writer() as writer:
            writer.write(b"b")
        assert list((tmp_path / "tmp").iterdir()) == []

    def test_a_damaged_blob_heals_when_it_is_written_again(self, tmp_path: Path) -> None:
        store = FileStore(tmp_path)
        digest = store.put([b"whole"]).digest
        path = next(path for path in (tmp_path / "sha256").rglob("*") if path.is_file())
        path.write_bytes(b"who")
        store.put([b"whole"])
        assert content(store, digest) == b"whole"

    def test_what_a_killed_writer_left_is_removed_at_the_next_start(self, tmp_path: Path) -> None:
        FileStore(tmp_path)
        left, held, young = (tmp_path / "tmp" / name for name in ("left", "held", "young"))
        for path in (left, held, young):
            path.write_bytes(b"unfinished")
        for path in (left, held):
            os.utime(path, (0, 0))
        with held.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            FileStore(tmp_path)
        assert not left.exists()
        assert held.exists()
        assert young.exists()

    def test_a_sigkill_in_the_middle_of_a_write_leaves_no_blob(self, tmp_path: Path) -> None:
        program = (
            "import os, signal; from pathlib import Path; from albatros.store.files import FileStore\n"
            f"writer = FileStore(Path({str(tmp_path)!r})).writer(); writer.write(b'x' * 1_000_000)\n"
            "os.kill(os.getpid(), signal.SIGKILL)"
        )
        killed = subprocess.run([sys.executable, "-c", program], check=False, cwd=Path(__file__).parents[2])
        assert killed.returncode == -9
        left = list((tmp_path / "tmp").iterdir())
        assert len(left) == 1
        os.utime(left[0], (0, 0))
        assert list(FileStore(tmp_path).list()) == []
        assert not left[0].exists()

    def test_other_files_are_not_taken_for_blobs(self, tmp_path: Path) -> None:
        store = FileStore(tmp_path)
        digest = store.put([b"a"]).digest
        (tmp_path / "sha256" / digest[7:9] / "notes.txt").write_text("mine")
        assert [blob.digest for blob in store.list()] == [digest]

    def test_a_blob_written_while_it_is_deleted_is_there_afterwards(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FileStore(tmp_path)
        digest = store.put([b"wanted again"]).digest
        cutoff = now()
        writer = threading.Thread(target=store.put, args=([b"wanted again"],))
        age = files._written_at

        def written_meanwhile(stat: os.stat_result) -> datetime:
            """The collector has looked at the blob's age; let a writer come before it deletes."""
            writer.start()
            writer.join(timeout=0.2)
            return age(stat)

        monkeypatch.setattr(files, "_written_at", written_meanwhile)
        assert store.delete(digest, cutoff)
        writer.join()
        assert content(store, digest) == b"wanted again"
