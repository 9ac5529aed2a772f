"""A TCP proxy that breaks a connection once, after a chosen byte in one of the two directions."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum

SECONDS = 60
_PIECE = 64 << 10
_MOST_CONNECTIONS = 16


class Direction(Enum):
    """Which bytes are counted, those of all connections together."""

    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


@dataclass
class CuttingProxy:
    """`seen` counts the bytes that passed; `cut` is when the connection that carries the next one breaks, if ever."""

    upstream: tuple[str, int]
    host: str = ""
    seen: dict[Direction, int] = field(default_factory=lambda: dict.fromkeys(Direction, 0))
    cut: tuple[Direction, int] | None = None
    cuts: int = 0
    sockets: list[socket.socket] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def arm(self, direction: Direction, after: int) -> None:
        """Break the connection that carries byte number `after`, counted from now on."""
        with self.lock:
            self.seen = dict.fromkeys(Direction, 0)
            self.cut = (direction, after)

    def close(self) -> None:
        """Break every connection: clients keep some for later."""
        with self.lock:
            for open_socket in self.sockets:
                _shut(open_socket)

    def allowed(self, direction: Direction, size: int) -> int:
        """How many of the next bytes may pass; fewer than `size`: then the connection breaks."""
        with self.lock:
            before = self.seen[direction]
            self.seen[direction] += size
            if self.cut is None or self.cut[0] is not direction or self.cut[1] >= before + size:
                return size
            after, self.cut = self.cut[1], None
            self.cuts += 1
            return after - before


@contextmanager
def cutting_proxy(upstream: str) -> Iterator[CuttingProxy]:
    """A running proxy on loopback to `HOST:PORT`."""
    host, _, port = upstream.rpartition(":")
    proxy = CuttingProxy((host, int(port)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy.host = f"127.0.0.1:{listener.getsockname()[1]}"
        accepting = threading.Thread(target=_accept, args=(listener, proxy))
        accepting.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            proxy.close()
            accepting.join()


def _accept(listener: socket.socket, proxy: CuttingProxy) -> None:
    with ThreadPoolExecutor(_MOST_CONNECTIONS) as pool:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            pool.submit(_connect, client, proxy)


def _connect(client: socket.socket, proxy: CuttingProxy) -> None:
    with client, socket.create_connection(proxy.upstream, SECONDS) as server:
        with proxy.lock:
            proxy.sockets += [client, server]
        back = threading.Thread(target=_carry, args=(server, client, Direction.TO_CLIENT, proxy))
        back.start()
        _carry(client, server, Direction.TO_SERVER, proxy)
        back.join()


def _carry(source: socket.socket, target: socket.socket, direction: Direction, proxy: CuttingProxy) -> None:
    with suppress(OSError):
        while data := source.recv(_PIECE):
            allowed = proxy.allowed(direction, len(data))
            target.sendall(data[:allowed])
            if allowed < len(data):
                break
    _shut(source)
    _shut(target)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
