"""Blobs over HTTP: what is kept, what is refused, and that no Attempt can send more than it may."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from albatros.db.session import Database
from albatros.domain.references import digest_of
from tests.support.runner_site import LIMITS, Site, problem, serve_runner


@pytest.fixture
def claimed(database: Database, tmp_path: Path) -> Iterator[Site]:
    with serve_runner(database, tmp_path) as site:
        assert site.claim().status_code == 200
        yield site


def test_a_blob_is_kept_once_its_bytes_are_right(claimed: Site) -> None:
    data = os.urandom(300_000)
    answer = claimed.upload(data)
    assert (answer.status_code, answer.json()) == (201, {"digest": digest_of(data), "size": 300_000})
    assert claimed.store.blobs[digest_of(data)][0] == data
    blob = {"digest": digest_of(data), "size": 300_000}
    other = {"digest": digest_of(b"other"), "size": 5}
    assert claimed.query(blob, other).json() == {"missing": [other["digest"]]}
    assert claimed.upload(b"").status_code == 201


def test_other_bytes_than_promised_are_not_kept(claimed: Site) -> None:
    problem(claimed.upload(b"other", digest_of(b"promised")), 400, "nothing was kept")
    problem(claimed.upload(b"x", "sha256:zz"), 400, "is not a digest")
    assert claimed.store.blobs == {}
    assert claimed.query({"digest": digest_of(b"promised"), "size": 8}).json()["missing"] == [digest_of(b"promised")]


@pytest.mark.parametrize(
    "blob",
    [
        None,
        "x",
        {},
        {"digest": 3, "size": 1},
        {"digest": "sha256:x", "size": 1},
        {"digest": digest_of(b""), "size": -1},
        {"digest": digest_of(b""), "size": True},
    ],
)
def test_a_query_names_digests_and_sizes(claimed: Site, blob: object) -> None:
    problem(claimed.query(blob), 400)


def test_a_query_has_at_most_a_thousand(claimed: Site) -> None:
    blobs = [{"digest": digest_of(b"%d" % number), "size": 1} for number in range(1001)]
    assert len(claimed.query(*blobs[:1000]).json()["missing"]) == 1000
    problem(claimed.query(*blobs), 400, "at most 1000")
    problem(claimed.post("blobs/query", {"nonce": claimed.runner.nonce, "blobs": "x"}), 400)


def test_uploads_are_bounded_by_what_they_announce_and_by_what_comes(claimed: Site) -> None:
    limit = LIMITS["output_bytes"]
    problem(claimed.upload(bytes(limit + 1)), 413, "at most 1048576 bytes")

    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(limit // 10)

    problem(claimed.put(f"blobs/{digest_of(b'')}", endless()), 413, "nothing was kept")
    assert claimed.store.blobs == {}
    assert claimed.upload(bytes(limit - 10)).status_code == 201
    problem(claimed.upload(b"x" * 11), 413)
    assert claimed.upload(b"x" * 10).status_code == 201
    problem(claimed.upload(b"x"), 413)


def test_a_full_store_says_so(claimed: Site) -> None:
    claimed.store.capacity = 10
    problem(claimed.upload(b"x" * 11), 507, "full")
    assert claimed.store.blobs == {}
    claimed.store.broken = True
    answer = claimed.upload(b"x")
    problem(answer, 503, "broken")
    assert answer.headers["retry-after"] == "5"


def test_a_newer_upload_ends_the_older(claimed: Site) -> None:
    """A runner has one at a time: many half-sent ones together would pass every limit."""
    release = threading.Event()
    data = os.urandom(200_000)

    def slow() -> Iterator[bytes]:
        yield data[:100_000]
        release.wait(60)
        yield data[100_000:]

    with ThreadPoolExecutor(1) as pool:
        older = pool.submit(claimed.put, f"blobs/{digest_of(data)}", slow())
        while not claimed.context.uploads._running:
            time.sleep(0.01)
        assert claimed.upload(b"newer").status_code == 201
        release.set()
        problem(older.result(60), 503, "send this one again")
    assert set(claimed.store.blobs) == {digest_of(b"newer")}
    assert claimed.upload(data).status_code == 201


def test_an_upload_that_breaks_off_leaves_nothing(claimed: Site) -> None:
    digest = digest_of(b"x" * 1000)
    head = (
        f"PUT /runner/v1/blobs/{digest} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {claimed.runner.token}\r\n"
        f"X-Albatros-Nonce: {claimed.runner.nonce}\r\nContent-Length: 1000\r\n\r\n"
    )
    with socket.create_connection(claimed.address, timeout=60) as connection:
        connection.sendall(head.encode() + b"x" * 500)
    answer = claimed.upload(b"next")
    if answer.status_code == 503:
        # The server saw the broken one after this one.
        answer = claimed.upload(b"next")
    assert answer.status_code == 201
    assert set(claimed.store.blobs) == {digest_of(b"next")}
