"""Calls that are tried again, calls that are not, and a log that is sent whole."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pytest

from albatros.runner.failure import JobFailedError, LeaseLostError
from albatros.runner.logstream import LogStream
from albatros.runner.protocol import Server
from tests.support.runner import evaluation_order
from tests.support.runner_server import TOKEN, Fault, RunnerServer

NONCE = "0" * 32


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def open(self) -> BinaryIO:
        return BytesIO(self.data)


@pytest.fixture
def remote() -> Iterator[RunnerServer]:
    server = RunnerServer(evaluation_order(Path("/r"), "c" * 40))
    yield server
    server.close()


@pytest.fixture
def server(remote: RunnerServer) -> Iterator[Server]:
    server = Server(remote.url, TOKEN, NONCE)
    server.claim("host", 1)
    yield server
    server.hang_up()


def spool(tmp_path: Path, server: Server, limit: int = 1 << 20, secrets: list[str] | None = None) -> LogStream:
    return LogStream(server, str(tmp_path / "log"), limit, secrets or [])


def test_an_unusable_url_is_refused() -> None:
    with pytest.raises(ValueError, match="not an http or https URL"):
        Server("ftp://x", TOKEN, NONCE)


def test_a_wrong_token_loses_the_attempt(remote: RunnerServer) -> None:
    server = Server(remote.url, "wrong", NONCE)
    with pytest.raises(LeaseLostError, match="bad token"):
        server.claim("host", 1)
    server.hang_up()
    assert server.lost.is_set()


def test_a_server_that_stays_away_loses_the_attempt() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        server = Server(f"http://127.0.0.1:{unused.getsockname()[1]}", TOKEN, NONCE, allowance=-30)
        with pytest.raises(LeaseLostError, match="could not be reached"):
            server.claim("host", 1)


def test_a_lost_attempt_ends_calls_that_wait_to_be_tried_again(remote: RunnerServer, server: Server) -> None:
    remote.faults.append(Fault(lambda _method, _path: True, 503, 1_000_000))
    ended: list[Exception] = []

    def call() -> None:
        try:
            server.heartbeat()
        except LeaseLostError as error:
            ended.append(error)
        server.hang_up()

    thread = threading.Thread(target=call)
    thread.start()
    server.lost.set()
    thread.join()
    assert len(ended) == 1


def test_the_lease_is_what_the_server_says(remote: RunnerServer, server: Server) -> None:
    remote.order["lease_seconds"] = 77
    remote.stop = "superseded"
    assert server.heartbeat() == (77.0, "superseded")
    assert server.lease_seconds == 77.0


def test_only_missing_blobs_are_named_and_asked_for_in_batches(remote: RunnerServer, server: Server) -> None:
    blobs = [(f"sha256:{number:064x}", number) for number in range(2500)]
    remote.known_blobs = {digest for digest, _ in blobs[::2]}
    assert server.missing_blobs(blobs) == {digest for digest, _ in blobs[1::2]}
    assert remote.count("/blobs/query") == 3


@pytest.mark.parametrize("status", [413, 507])
def test_a_blob_that_is_not_taken_fails_the_job(remote: RunnerServer, server: Server, status: int) -> None:
    remote.faults.append(Fault(lambda method, path: "/blobs/sha256" in path, status, 1))
    with pytest.raises(JobFailedError) as refused:
        server.put_blob("sha256:" + "0" * 64, Bytes(b"x"))
    assert refused.value.reason == "disk_full"


def test_an_answer_before_the_whole_blob_was_read_is_understood() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 413 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass

        thread = threading.Thread(target=answer)
        thread.start()
        server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}", TOKEN, NONCE)
        with pytest.raises(JobFailedError, match="did not take an output"):
            server.put_blob("sha256:" + "0" * 64, Bytes(bytes(8 << 20)))
        server.hang_up()
        thread.join()


def test_a_blob_is_sent_whole_again_after_a_broken_connection(remote: RunnerServer, server: Server) -> None:
    data = bytes(range(256)) * 40_000
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    remote.faults.append(Fault(lambda method, path: "/blobs/sha256" in path, 0, 2))
    server.put_blob(digest, Bytes(data))
    assert remote.blobs[digest] == data


def test_a_log_arrives_in_order_and_in_pieces(tmp_path: Path, remote: RunnerServer, server: Server) -> None:
    log = spool(tmp_path, server)
    lines = [f"line {number} {'x' * 50}" for number in range(5000)]
    for line in lines:
        log.line(line)
    pieces, size = log.close()
    assert remote.log.splitlines() == lines
    assert (pieces, size) == (len(remote.pieces), len(remote.log))


def test_an_empty_log_has_no_piece(tmp_path: Path, remote: RunnerServer, server: Server) -> None:
    assert spool(tmp_path, server).close() == (0, 0)
    assert remote.pieces == {}


def test_secrets_are_masked_before_they_are_kept(tmp_path: Path, remote: RunnerServer, server: Server) -> None:
    log = spool(tmp_path, server, secrets=["hidden-token", ""])
    log.line("the token is hidden-token, twice hidden-token")
    log.close()
    assert remote.log == "the token is ***, twice ***\n"
    assert b"hidden-token" not in (tmp_path / "log").read_bytes()


def test_a_line_break_inside_a_line_is_indented(tmp_path: Path, remote: RunnerServer, server: Server) -> None:
    log = spool(tmp_path, server)
    log.line("one\ntwo\r\nthree")
    log.close()
    assert remote.log == "one\n    two\n    three\n"


@pytest.mark.parametrize("lines", [1, 9, 10, 11, 100, 1000])
def test_a_log_never_has_more_than_its_limit(tmp_path: Path, remote: RunnerServer, server: Server, lines: int) -> None:
    log = spool(tmp_path, server, limit=1000)
    written = "".join(f"{number:098}\n" for number in range(lines))
    for line in written.splitlines():
        log.line(line)
    _, size = log.close()
    assert size == len(remote.log.encode()) <= 1000
    if len(written) <= 700:
        assert remote.log == written
    else:
        assert remote.log.startswith(written[:500])
        assert remote.log.endswith(written[-100:])
        left_out = int(remote.log.partition("[albatros] … ")[2].partition(" bytes")[0])
        note = len(remote.log) - remote.log.count("\0") - 500
        assert left_out + 500 + note >= len(written)


def test_lines_after_the_end_are_dropped(tmp_path: Path, remote: RunnerServer, server: Server) -> None:
    log = spool(tmp_path, server)
    log.line("last")
    assert log.close() == log.close() == (1, 5)
    log.line("too late")
    assert remote.log == "last\n"


def test_a_log_of_a_lost_attempt_says_so(tmp_path: Path, remote: RunnerServer, server: Server) -> None:
    log = spool(tmp_path, server)
    remote.closed = True
    log.line("to nobody")
    with pytest.raises(LeaseLostError):
        log.close()
