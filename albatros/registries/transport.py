"""HTTP to one registry: the only place that knows the HTTP library.

Plain http is spoken with this machine only. The Authorization header goes to the registry's own origin only. Bodies
that are read are bounded; bodies that are sent are opened anew for each try.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx

from albatros.domain.references import is_loopback
from albatros.errors import RegistryError
from albatros.registries.auth import Authorizer
from albatros.registries.base import BlobOpener, Credentials
from albatros.registries.retry import HostGate, RetryPolicy, TryAgainError, parse_retry_after

CHUNK = 256 << 10
_ANSWER_LIMIT = 1 << 20
_ERROR_LIMIT = 64 << 10
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_TIMEOUT = httpx.Timeout(connect=10.0, read=120.0, write=120.0, pool=None)
PARALLEL_REQUESTS = 4


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: its body read, up to the limit; `url` is what was asked last, after redirects."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    url: str


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body: `size` bytes of `media_type`, opened by `open`."""

    open: BlobOpener
    size: int
    media_type: str

    @classmethod
    def of(cls, data: bytes, media_type: str) -> Body:
        """Bytes at hand."""
        return cls(lambda: io.BytesIO(data), len(data), media_type)


class Transport:
    """Requests to one registry's API, with its login. `host` is `HOST[:PORT]`."""

    def __init__(self, host: str, credentials: Credentials | None, policy: RetryPolicy | None = None) -> None:
        local = is_loopback(host)
        self.host = host
        self.base = f"{'http' if local else 'https'}://{host}"
        self.gate = HostGate(policy or RetryPolicy(), PARALLEL_REQUESTS)
        # A proxy out of the environment is for the world outside; it could not reach this machine's own ports.
        self._client = httpx.Client(
            timeout=_TIMEOUT,
            follow_redirects=False,
            trust_env=not local,
            headers={"User-Agent": f"albatros/{version('albatros')}", "Accept-Encoding": "identity"},
        )
        self._auth = Authorizer(host, credentials, self._fetch_token)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def request(
        self,
        method: str,
        url: str,
        scope: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        limit: int = _ANSWER_LIMIT,
    ) -> Answer:
        """One request with its login and redirects; any status that does not pass by itself is an Answer.

        `url` is absolute or relative to the registry. Raises TryAgainError when a later try may help, RegistryError
        when the answer is over `limit` bytes or leads where no request may go.
        """
        with self.gate.slot(), self._send(method, url, scope, headers or {}, body) as response:
            data = _read_bounded(response, limit if response.is_success else _ERROR_LIMIT, self.host)
            answer = Answer(response.status_code, response.headers, data, str(response.url))
        if answer.status in _TRANSIENT:
            wish = parse_retry_after(answer.headers.get("Retry-After"))
            raise TryAgainError(f"{self.host} answered {answer.status} to {method}{self._said(answer)}", wish)
        return answer

    @contextmanager
    def open(self, url: str, scope: str, limit: int) -> Iterator[tuple[int, BinaryIO]]:
        """GET a body as a stream of at most `limit` bytes, with its status."""
        with self._send("GET", url, scope, {}, None) as response:
            raw = _ResponseReader(response.iter_raw(CHUNK), self.host, limit)
            yield response.status_code, io.BufferedReader(raw, CHUNK)

    def refused(self, answer: Answer, doing: str, scope: str) -> RegistryError:
        """The error of an answer that will be the same the next time."""
        who = f" {self._auth.identity}, scope {scope}" if answer.status in (401, 403) else ""
        return RegistryError(f"{self.host} refuses {doing}{who}: {answer.status}{self._said(answer)}")

    def resolve(self, url: str, base: str) -> str:
        """A Location as an absolute URL that may be asked. Raises RegistryError.

        A registry behind a TLS proxy may believe that it is spoken to in http (distribution#479): on the same host that
        is put right, elsewhere it is refused.
        """
        try:
            absolute = urlsplit(urljoin(base, url))
        except ValueError as error:
            raise RegistryError(f"{self.host} sends requests on to something that is no URL") from error
        if absolute.scheme == "https" or (
            absolute.scheme == "http" and is_loopback(absolute.netloc) and is_loopback(self.host)
        ):
            return urlunsplit(absolute)
        if (
            absolute.scheme == "http"
            and absolute.hostname == urlsplit(self.base).hostname
            and self.base.startswith("https")
        ):
            return urlunsplit(absolute._replace(scheme="https", netloc=urlsplit(self.base).netloc))
        raise RegistryError(
            f"{self.host} sends requests on to {absolute.scheme}://{absolute.hostname}, which is not https"
        )

    @contextmanager
    def _send(
        self, method: str, url: str, scope: str, headers: Mapping[str, str], body: Body | None
    ) -> Iterator[httpx.Response]:
        target = self.resolve(url, self.base + "/")
        try:
            for _ in range(_MAX_REDIRECTS):
                with self._send_authorized(method, target, scope, headers, body) as response:
                    location = response.headers.get("Location")
                    if method not in ("GET", "HEAD") or response.status_code not in _REDIRECTS or not location:
                        yield response
                        return
                    target = self.resolve(location, target)
        except httpx.InvalidURL as error:
            raise RegistryError(f"{self.host} sends requests on to something that is no URL") from error
        except httpx.TransportError as error:
            raise TryAgainError(
                f"{self.host} cannot be reached or broke off ({type(error).__name__}): {error}"
            ) from error
        raise RegistryError(f"{self.host} redirects {method} more than {_MAX_REDIRECTS} times")

    @contextmanager
    def _send_authorized(
        self, method: str, url: str, scope: str, headers: Mapping[str, str], body: Body | None
    ) -> Iterator[httpx.Response]:
        """Once with what is known, and once more with what a 401 asks for."""
        own = urlsplit(url)[:2] == urlsplit(self.base)[:2]
        authorization = self._auth.header(scope) if own else None
        with self._send_once(method, url, headers, authorization, body) as response:
            if not own or response.status_code != httpx.codes.UNAUTHORIZED:
                yield response
                return
            asked = ", ".join(response.headers.get_list("WWW-Authenticate"))
            better = self._auth.challenged(asked, scope, authorization)
            if better is None:
                yield response
                return
            _read_bounded(response, _ERROR_LIMIT, self.host)
        with self._send_once(method, url, headers, better, body) as response:
            yield response

    @contextmanager
    def _send_once(
        self, method: str, url: str, headers: Mapping[str, str], authorization: str | None, body: Body | None
    ) -> Iterator[httpx.Response]:
        every = dict(headers) | ({"Authorization": authorization} if authorization else {})
        if body is None:
            length = {"Content-Length": "0"} if method in ("POST", "PUT", "PATCH") else {}
            with self._client.stream(method, url, headers=every | length) as response:
                yield response
            return
        every |= {"Content-Length": str(body.size), "Content-Type": body.media_type}
        with (
            body.open() as stream,
            self._client.stream(method, url, headers=every, content=_chunks(stream)) as response,
        ):
            yield response

    def _fetch_token(self, url: str, authorization: str | None) -> tuple[int, bytes]:
        try:
            with self._send_once("GET", url, {}, authorization, None) as response:
                data = _read_bounded(response, _ANSWER_LIMIT, self.host)
        except httpx.TransportError as error:
            raise TryAgainError(f"the token endpoint of {self.host} cannot be reached: {error}") from error
        if response.status_code in _TRANSIENT:
            wish = parse_retry_after(response.headers.get("Retry-After"))
            raise TryAgainError(f"the token endpoint of {self.host} answered {response.status_code}", wish)
        return response.status_code, data

    def _said(self, answer: Answer) -> str:
        """What the registry says of its error (distribution spec, "Error codes"), without any secret it may repeat."""
        try:
            first = json.loads(answer.body)["errors"][0]
            text = f"{first.get('code', '')} {first.get('message', '')}".strip()
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            return ""
        for secret in self._auth.secrets():
            text = text.replace(secret, "***")
        return f" ({text[:300]})" if text else ""


class _ResponseReader(io.RawIOBase):
    """A response's body as a file; what breaks on the way is a TryAgainError."""

    def __init__(self, chunks: Iterator[bytes], host: str, limit: int) -> None:
        super().__init__()
        self._chunks = chunks
        self._host = host
        self._left = limit
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override] # narrower than any buffer
        try:
            while not self._rest:
                self._rest = next(self._chunks)
        except StopIteration:
            return 0
        except httpx.TransportError as error:
            raise TryAgainError(f"{self._host} broke off in the middle of a blob ({type(error).__name__})") from error
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        self._left -= count
        if self._left < 0:
            raise RegistryError(f"{self._host} sends more bytes of a blob than it may have")
        return count


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while data := stream.read(CHUNK):
        yield data


def _read_bounded(response: httpx.Response, limit: int, host: str) -> bytes:
    data = bytearray()
    for chunk in response.iter_raw(CHUNK):
        data += chunk
        if len(data) > limit:
            if response.is_success:
                raise RegistryError(f"{host} answered more than {limit} bytes where no such answer may be")
            break
    return bytes(data[:limit])
