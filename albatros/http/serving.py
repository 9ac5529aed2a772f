"""Serving the app from a thread, so that the main thread is free to wait for signals and to shut down in order."""

from __future__ import annotations

import socket
import threading

import uvicorn
from fastapi import FastAPI

from albatros.errors import ConfigError
from albatros.http.webhooks import Shortcut

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 30
STOP_SECONDS = 10


def bind(listen: str) -> socket.socket:
    """Listen on `HOST:PORT` (port 0 takes a free one). Raises ConfigError."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigError(f"server.listen = {listen!r} is not HOST:PORT")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, int(port)))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen on {listen}: {error.strerror}; set server.listen to a free address"
        ) from error
    # A child that inherits the listening socket would keep the port after the server is gone.
    sock.set_inheritable(False)
    return sock


class WebServer:
    """One uvicorn server in one thread."""

    def __init__(self, app: FastAPI, sock: socket.socket) -> None:
        config = uvicorn.Config(
            Shortcut(app),
            loop="uvloop",
            http="httptools",
            log_config=None,
            access_log=False,
            # X-Forwarded-* are read by our own middleware, from trusted proxies only.
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        self._app = app
        self._server = uvicorn.Server(config)
        self._sock = sock
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [sock]}, name="web", daemon=True)

    @property
    def local_url(self) -> str:
        """How a program on this machine reaches it."""
        host, port = self._sock.getsockname()[:2]
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is being answered, at most 10 s, and close the socket."""
        # Live streams end by themselves only after an hour.
        self._app.state.hub.close()
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS + 5)
        self._sock.close()
