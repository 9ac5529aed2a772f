"""The spool of a command: a sink like the server's store, and nothing of it stays."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from albatros.domain.references import digest_of
from albatros.errors import NotFoundError, StoreError
from albatros.images.spool import Spool


def test_a_blob_is_read_as_it_was_written(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        blob = spool.put([b"ab", b"", b"c"])
        assert (blob.digest, blob.size) == (digest_of(b"abc"), 3)
        assert spool.size(blob.digest) == 3
        for _ in range(2):
            with spool.open(blob.digest) as stream:
                assert stream.read() == b"abc"
    assert list(tmp_path.iterdir()) == []


def test_what_was_never_written_is_not_there(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        assert spool.size(digest_of(b"x")) is None
        with pytest.raises(NotFoundError):
            spool.open(digest_of(b"x"))


def test_a_source_that_breaks_keeps_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"first"
        raise ConnectionResetError

    with Spool(tmp_path) as spool:
        with pytest.raises(ConnectionResetError):
            spool.put(broken())
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with (
        Spool(tmp_path) as spool,
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(os, "fdopen", lambda descriptor, *_, **__: full)
        with pytest.raises(StoreError, match="No space left on device; set TMPDIR"):
            spool.put([b"x" * (1 << 20)])
