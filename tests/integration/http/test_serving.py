"""Listening and serving from a thread."""

import socket

import httpx
import pytest
from fastapi import FastAPI

from albatros.errors import ConfigError
from albatros.http.serving import WebServer, bind
from tests.services.process import free_port


@pytest.fixture
def app() -> FastAPI:
    made = FastAPI()
    made.get("/")(lambda: "hello")
    made.state.hub = FakeHub()
    return made


class FakeHub:
    """In place of the live streams, which a stop has to close."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_it_answers_until_it_is_stopped(app: FastAPI) -> None:
    sock = bind(f"127.0.0.1:{free_port()}")
    server = WebServer(app, sock)
    server.start()
    url = server.local_url
    assert url == f"http://127.0.0.1:{sock.getsockname()[1]}"
    assert httpx.get(url, timeout=60).json() == "hello"
    server.stop()
    assert app.state.hub.closed
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, timeout=60)


def test_who_comes_before_it_answers_waits(app: FastAPI) -> None:
    server = WebServer(app, bind("127.0.0.1:0"))
    port = int(server.local_url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as early:
        early.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        server.start()
        assert early.recv(100).startswith(b"HTTP/1.1 200 ")
    server.stop()


def test_a_server_that_never_began_can_be_stopped(app: FastAPI) -> None:
    server = WebServer(app, bind(f"127.0.0.1:{free_port()}"))
    url = server.local_url
    server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, timeout=60)


@pytest.mark.parametrize(("listen", "begin"), [("0.0.0.0:0", "http://127.0.0.1:"), (":0", "http://127.0.0.1:")])
def test_its_address_is_one_that_this_machine_reaches(app: FastAPI, listen: str, begin: str) -> None:
    server = WebServer(app, bind(listen))
    assert server.local_url.startswith(begin)
    server.stop()


@pytest.mark.parametrize("listen", ["", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536", "127.0.0.1:²"])
def test_an_address_that_is_none_is_refused(listen: str) -> None:
    with pytest.raises(ConfigError, match="is not HOST:PORT"):
        bind(listen)


def test_an_address_that_is_taken_is_said() -> None:
    with bind("127.0.0.1:0") as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"cannot listen on {listen}: Address already in use; set server.listen"):
            bind(listen)


def test_a_foreign_address_is_said() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:0"):
        bind("192.0.2.1:0")


def test_children_do_not_keep_the_port() -> None:
    with bind("127.0.0.1:0") as sock:
        assert not sock.get_inheritable()
