"""HTTP connections to registries, kept open from request to request, with the standard library alone.

An HTTP library takes longer to import than an unchanged push takes in all. A connection carries one request at a time,
and goes back into the pool only when its response was read to the end.
"""

from __future__ import annotations

import base64
import http.client
import io
import select
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO
from urllib.parse import SplitResult, unquote, urlsplit

from albatros.errors import RegistryError, StoreError

CHUNK = 256 << 10
_CONNECT_SECONDS = 10.0
_EXCHANGE_SECONDS = 120.0


class BrokenConnectionError(Exception):
    """A connection could not be made, or broke off; a later try may do better."""


class _Lines(io.BufferedReader):
    """Remembers the last line that was read as one."""

    last = b""

    def readline(self, size: int | None = -1, /) -> bytes:
        self.last = super().readline(size)
        return self.last


class _WholeHead(http.client.HTTPResponse):
    """http.client takes the end of a connection for the end of the headers, and those that are missing for not sent."""

    def begin(self) -> None:
        self.fp = lines = _Lines(self.fp.detach())
        super().begin()
        if lines.last not in (b"\r\n", b"\n"):
            raise http.client.IncompleteRead(lines.last)


class Response:
    """An answer whose body is read piece by piece; `url` is what was asked."""

    def __init__(self, raw: http.client.HTTPResponse, url: str) -> None:
        self._raw = raw
        self.url = url
        self.status = raw.status
        self.headers = raw.headers

    @property
    def is_success(self) -> bool:
        """A status from 200 to 299."""
        return 200 <= self.status < 300

    def every(self, name: str) -> list[str]:
        """All values of a header that may come several times."""
        return self._raw.headers.get_all(name) or []

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, none at the end. Raises BrokenConnectionError, also when the end came too early."""
        try:
            data = self._raw.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise BrokenConnectionError(_words(error)) from error
        if not data and self._raw.length:
            raise BrokenConnectionError(f"{self._raw.length} bytes of the answer are missing")
        return data


class Connections:
    """A pool for all hosts that one registry leads to. `direct`: not through the environment's proxies."""

    def __init__(self, *, direct: bool) -> None:
        self._direct = direct
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            every = [connection for idle in self._idle.values() for connection in idle]
            self._idle.clear()
        for connection in every:
            connection.close()

    @contextmanager
    def send(self, method: str, url: str, headers: Mapping[str, str], body: Iterator[bytes]) -> Iterator[Response]:
        """One request; `headers` have the Content-Length of `body`. Raises BrokenConnectionError or RegistryError."""
        target = urlsplit(url)
        key = (target.scheme, target.netloc)
        connection = self._take(key) or self._connect(target)
        try:
            raw = _exchange(connection, method, target, headers, body)
            yield Response(raw, url)
            if method == "HEAD" or raw.length == 0:
                raw.read()
            if raw.isclosed() and not raw.will_close:
                with self._lock:
                    self._idle.setdefault(key, []).append(connection)
                return
            connection.close()
        except BaseException:
            connection.close()
            raise

    def _take(self, key: tuple[str, str]) -> http.client.HTTPConnection | None:
        """An idle connection that the other side has not closed in the meantime."""
        while True:
            with self._lock:
                idle = self._idle.get(key)
                if not idle:
                    return None
                connection = idle.pop()
            if connection.sock is not None and not _readable(connection):
                return connection
            connection.close()

    def _connect(self, target: SplitResult) -> http.client.HTTPConnection:
        try:
            host, port = target.hostname or "", target.port
        except ValueError as error:
            raise RegistryError(f"{target.netloc!r} is no host and port") from error
        try:
            connection = self._connection(target.scheme, host, port)
            connection.response_class = _WholeHead
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            raise RegistryError(
                f"the certificate of {host} is not trusted ({error.verify_message}); "
                "SSL_CERT_FILE may name a file with the authority that signed it"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise BrokenConnectionError(_words(error)) from error
        connection.sock.settimeout(_EXCHANGE_SECONDS)
        return connection

    def _connection(self, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        proxy = None if self._direct else _proxy(scheme, host)
        if scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=_CONNECT_SECONDS)
        context = ssl.create_default_context()
        if proxy is None:
            return http.client.HTTPSConnection(host, port, timeout=_CONNECT_SECONDS, context=context)
        connection = http.client.HTTPSConnection(
            proxy.hostname or "", proxy.port or 80, timeout=_CONNECT_SECONDS, context=context
        )
        connection.set_tunnel(host, port, _proxy_login(proxy))
        return connection


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    target: SplitResult,
    headers: Mapping[str, str],
    body: Iterator[bytes],
) -> http.client.HTTPResponse:
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    left = int(headers.get("Content-Length", "0"))
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for key, value in headers.items():
            connection.putheader(key, value)
        connection.endheaders()
    except (http.client.InvalidURL, ValueError) as error:
        raise RegistryError(f"{target.netloc} sends requests on to something that is no URL") from error
    except (OSError, http.client.HTTPException) as error:
        raise BrokenConnectionError(_words(error)) from error
    broken: OSError | None = None
    for data in body:
        left -= len(data)
        try:
            connection.send(data)
        except OSError as error:
            # Whoever refuses a body may close before it has read it, and still have answered.
            broken = error
            break
    if left and broken is None:
        raise StoreError("a blob changed its length while it was sent; try again")
    try:
        response = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise BrokenConnectionError(_words(broken or error)) from error
    response.will_close = response.will_close or broken is not None
    return response


def pieces(stream: BinaryIO, start: int, length: int) -> Iterator[bytes]:
    """`length` bytes of `stream` from `start` on, in pieces of at most CHUNK."""
    if start and stream.seekable():
        stream.seek(start)
    elif start:
        for _ in pieces(stream, 0, start):
            pass
    while length and (data := stream.read(min(CHUNK, length))):
        length -= len(data)
        yield data


def _readable(connection: http.client.HTTPConnection) -> bool:
    """An idle connection has nothing to read unless it was closed."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _proxy(scheme: str, host: str) -> SplitResult | None:
    """The proxy that the environment names for a host; only https goes through one, as a tunnel."""
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - not needed for this machine's own registries

    address = getproxies().get(scheme)
    if not address or proxy_bypass(host):
        return None
    parts = urlsplit(address if "//" in address else f"//{address}")
    return parts if parts.hostname else None


def _proxy_login(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode("ascii")}


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
