"""A small file server of a static registry directory, for demos and tests: GET and HEAD on loopback.

It follows the directory's own table of headers, as any web server in front of one has to.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from albatros.log import get_logger
from albatros.registries import layout
from albatros.registries.layout import Rule

_log = get_logger(__name__)
_IDLE_SECONDS = 60


@contextmanager
def serve_directory(root: Path, port: int = 0) -> Iterator[str]:
    """Serve `root` on 127.0.0.1 while the context is open; gives `HOST:PORT`. Port 0 takes a free one."""

    class Handler(_Handler):
        directory = root.resolve()

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="static-registry", daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    directory: Path
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    # Head and body go out as two writes, which would otherwise wait for each other.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        found = self._find(path)
        if found is None:
            self.send_response(HTTPStatus.NOT_FOUND)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        file, rule = found
        with file.open("rb") as stream:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", rule.headers.content_type)
            self.send_header("Cache-Control", rule.headers.cache_control)
            self.send_header("Content-Length", str(file.stat().st_size))
            self.end_headers()
            if with_body:
                shutil.copyfileobj(stream, self.wfile)

    def _find(self, path: str) -> tuple[Path, Rule] | None:
        if ".." in path.split("/") or "\0" in path:
            return None
        for rule in layout.find_rules(path):
            file = self.directory / (rule.file or f"{rule.shadow}/{path}".lstrip("/"))
            if file.is_file():
                return file, rule
        return None

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature of http.server
        _log.debug("static registry request", line=format % args)
