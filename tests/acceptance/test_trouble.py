"""Full disks and locked databases: an error that says so, nothing lost, and the work goes on when there is room."""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.flakes import AMD64, elf, hello, wait_for
from tests.support.line import Line, make_line
from tests.support.server_process import eventually
from tests.tools import needs

pytestmark = needs("nix", "git", "skopeo")
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk")


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Path]:
    """A disk of so many bytes."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def own() -> Iterator[Line]:
    with make_line(None) as line:
        yield line


def fill(directory: Path) -> Path:
    """Take all the room on a disk that is left."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return path


@ROOT_ONLY
def test_a_full_store_says_so_and_the_build_goes_on_when_there_is_room(own: Line) -> None:
    with small_disk(own.paths.root / "disk", 512 << 10) as disk:
        own.write_config({"store": {"url": f"dir:{disk / 'blobs'}"}, "limits": {"attempts": 20}})
        own.server.start()
        filler = fill(disk)
        repo = own.repo("full")
        commit = repo.push_files(hello("kept in the end", [AMD64]))
        said = "SELECT message FROM attempts WHERE reason = 'disk_full'"
        ((message,), *_) = eventually(lambda: own.sql(said), lambda: own.server.log)
        assert f"the blob store {disk / 'blobs'} is full" in str(message)
        assert own.server.call("GET", "/readyz")[0] == 503
        assert own.build(commit)["state"] == "running"
        filler.unlink()
        own.wait_green(repo, commit)
        check_program(own, "full", "kept in the end")


@ROOT_ONLY
def test_a_full_database_says_so_and_work_goes_on_when_there_is_room(own: Line) -> None:
    with small_disk(own.paths.root / "disk", 24 << 20) as disk:
        own.write_config({"database": {"url": f"sqlite:///{disk / 'small.sqlite3'}"}})
        own.server.start()
        repo = own.repo("full")
        filler = fill(disk)
        commit = repo.commit(hello("told to a full server", [AMD64]))
        said = repo.push()
        assert "answered 503: the database's disk is full" in said
        assert "the database's disk is full" in own.server.log
        assert not builds_of(disk / "small.sqlite3")
        filler.unlink()
        own.wait_green(repo, commit)
        check_program(own, "full", "told to a full server")
        assert builds_of(disk / "small.sqlite3") == [("succeeded",)]


def builds_of(database: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT state FROM builds").fetchall()


def test_a_store_that_is_away_says_so_and_the_build_goes_on_when_it_is_back(own: Line) -> None:
    own.server.start()
    gate = own.paths.gate / "away"
    repo = own.repo("away")
    commit = repo.push_files(hello("uploaded late", [AMD64], wait_for(gate)))
    eventually(lambda: "waiting" in own.log_of(own.build(commit), "packages."), lambda: own.server.log)
    blobs = own.paths.data / "blobs"
    blobs.rename(blobs.with_name("away"))
    own.open_gate("away")
    eventually(lambda: f"the blob store {blobs} failed" in own.server.log, lambda: own.server.log)
    assert own.build(commit)["state"] == "running"
    blobs.with_name("away").rename(blobs)
    own.wait_green(repo, commit)
    check_program(own, "away", "uploaded late")


def test_a_locked_database_says_so_and_nothing_is_lost(own: Line) -> None:
    own.server.start()
    repo = own.repo("locked")
    first = repo.push_files(hello("before the lock", [AMD64]))
    own.wait_green(repo, first)
    with closing(sqlite3.connect(own.paths.data / "albatros.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        commit = repo.commit(hello("behind the lock", [AMD64]))
        assert "not told" in repo.push()
        eventually(lambda: "locked by another writer" in own.server.log, lambda: own.server.log)
        other.execute("ROLLBACK")
    own.wait_green(repo, commit)
    check_program(own, "locked", "behind the lock")
    assert own.sql("SELECT count(*) FROM builds") == [(2,)]


def check_program(line: Line, name: str, text: str) -> None:
    assert line.remotes(name)[0].pull("main", AMD64) == elf(AMD64, text)
