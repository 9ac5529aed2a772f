"""Connections to registries: an answer is read whole or not at all."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from albatros.registries.connections import BrokenConnectionError, Connections

BODY = b"0123456789"
PLAIN = b"HTTP/1.1 202 Accepted\r\nLocation: /v2/x\r\nContent-Length: 10\r\n\r\n" + BODY
CHUNKED = b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n4\r\n6789\r\n"
END = b"0\r\n\r\n"


@contextmanager
def answering(answers: list[bytes]) -> Iterator[str]:
    """A server that gives one of these to each connection, and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                for answer in answers:
                    client, _ = listener.accept()
                    with client:
                        client.recv(1 << 16)
                        client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def ask(url: str) -> tuple[int, str | None, bytes]:
    """Status, Location and body, on a connection of its own."""
    with closing(Connections(direct=True)) as connections, connections.send("GET", url, {}, iter(())) as answer:
        data = bytearray()
        while piece := answer.read(4):
            data += piece
        return answer.status, answer.headers["Location"], bytes(data)


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED], ids=["plain", "chunked"])
def test_an_answer_that_ends_too_early_is_none_at_any_byte(answer: bytes) -> None:
    with answering([answer[:size] for size in range(len(answer))]) as url:
        for _ in answer:
            with pytest.raises(BrokenConnectionError):
                ask(url)


def test_a_whole_answer_is_read() -> None:
    with answering([PLAIN, CHUNKED + END, b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN]) as url:
        assert ask(url) == (202, "/v2/x", BODY)
        assert ask(url) == (202, None, BODY)
        assert ask(url) == (202, "/v2/x", BODY)
