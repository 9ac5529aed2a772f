"""HTTP to one registry: login, redirects, bounds, and what passes by itself told from what does not.

Plain http is spoken with this machine only, unless the operator asked for it. The Authorization header goes to the
registry's own origin only. Bodies that are read are bounded; bodies that are sent are opened anew for each try.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPMessage
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit, urlunsplit

from albatros.domain.references import is_loopback
from albatros.errors import RegistryError
from albatros.registries.auth import Authorizer, TokenRequest
from albatros.registries.base import BlobOpener, Credentials
from albatros.registries.connections import CHUNK, BrokenConnectionError, Connections, Response, pieces
from albatros.registries.retry import HostGate, RetryPolicy, TryAgainError, wished_pause

_ANSWER_LIMIT = 1 << 20
_ERROR_LIMIT = 64 << 10
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_ALWAYS = {"User-Agent": "albatros", "Accept": "*/*", "Accept-Encoding": "identity"}
PARALLEL_REQUESTS = 4


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: its body read, up to the limit; `url` is what was asked last, after redirects."""

    status: int
    headers: HTTPMessage
    body: bytes = field(repr=False)
    url: str


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body: `size` bytes of `media_type`, from byte `start` of what `open` opens."""

    open: BlobOpener
    size: int
    media_type: str
    start: int = 0

    @classmethod
    def of(cls, data: bytes, media_type: str) -> Body:
        """Bytes at hand."""
        return cls(lambda: io.BytesIO(data), len(data), media_type)


class Transport:
    """Requests to one registry's API, with its login. `host` is `HOST[:PORT]`; `plain`: asked for http by a person."""

    def __init__(
        self, host: str, credentials: Credentials | None, policy: RetryPolicy | None = None, *, plain: bool = False
    ) -> None:
        local = is_loopback(host)
        self.host = host
        self.base = f"{'http' if local or plain else 'https'}://{host}"
        self.gate = HostGate(policy or RetryPolicy(), PARALLEL_REQUESTS)
        # A proxy out of the environment is for the world outside; it could not reach this machine's own ports.
        self._connections = Connections(direct=local)
        self._auth = Authorizer(host, credentials, self._fetch_token, plain=plain)

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

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
            answer = Answer(response.status, response.headers, data, response.url)
        if answer.status in _TRANSIENT:
            detail = f"{self.host} answered {answer.status} to {method}{self._said(answer)}"
            raise TryAgainError(detail, wished_pause(answer.headers))
        return answer

    @contextmanager
    def open(self, url: str, scope: str, limit: int) -> Iterator[tuple[int, BinaryIO]]:
        """GET a body as a stream of at most `limit` bytes, with its status."""
        with self._send("GET", url, scope, {}, None) as response:
            raw = _ResponseReader(response, self.host, limit)
            yield response.status, io.BufferedReader(raw, CHUNK)

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
        own = urlsplit(self.base)
        local = is_loopback(absolute.netloc) and is_loopback(self.host)
        if absolute.scheme == "https" or (absolute.scheme == "http" and (local or absolute[:2] == own[:2])):
            return urlunsplit(absolute)
        if absolute.scheme == "http" and absolute.hostname == own.hostname and own.scheme == "https":
            return urlunsplit(absolute._replace(scheme="https", netloc=own.netloc))
        raise RegistryError(
            f"{self.host} sends requests on to {absolute.scheme}://{absolute.hostname}, which is not https"
        )

    @contextmanager
    def _send(
        self, method: str, url: str, scope: str, headers: Mapping[str, str], body: Body | None
    ) -> Iterator[Response]:
        target = self.resolve(url, self.base + "/")
        try:
            for _ in range(_MAX_REDIRECTS):
                with self._send_authorized(method, target, scope, headers, body) as response:
                    location = response.headers.get("Location")
                    if method not in ("GET", "HEAD") or response.status not in _REDIRECTS or not location:
                        yield response
                        return
                    target = self.resolve(location, target)
        except BrokenConnectionError as error:
            raise TryAgainError(
                f"{self.host} cannot be reached or broke off ({error}); check its address, and that it runs"
            ) from error
        raise RegistryError(f"{self.host} redirects {method} more than {_MAX_REDIRECTS} times")

    @contextmanager
    def _send_authorized(
        self, method: str, url: str, scope: str, headers: Mapping[str, str], body: Body | None
    ) -> Iterator[Response]:
        """Once with what is known, and once more with what a 401 asks for."""
        own = urlsplit(url)[:2] == urlsplit(self.base)[:2]
        authorization = self._auth.header(scope) if own else None
        with self._send_once(method, url, headers, authorization, body) as response:
            if not own or response.status != HTTPStatus.UNAUTHORIZED:
                yield response
                return
            asked = ", ".join(response.every("WWW-Authenticate"))
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
    ) -> Iterator[Response]:
        every = {**_ALWAYS, **headers} | ({"Authorization": authorization} if authorization else {})
        if body is None:
            length = {"Content-Length": "0"} if method in ("POST", "PUT", "PATCH") else {}
            with self._connections.send(method, url, every | length, iter(())) as response:
                yield response
            return
        every |= {"Content-Length": str(body.size), "Content-Type": body.media_type}
        with (
            body.open() as stream,
            self._connections.send(method, url, every, pieces(stream, body.start, body.size)) as response,
        ):
            yield response

    def _fetch_token(self, request: TokenRequest) -> tuple[int, bytes]:
        body = Body.of(request.form, "application/x-www-form-urlencoded") if request.form else None
        method = "POST" if body else "GET"
        try:
            with self._send_once(method, request.url, {}, request.authorization, body) as response:
                data = _read_bounded(response, _ANSWER_LIMIT, self.host)
        except BrokenConnectionError as error:
            raise TryAgainError(f"the token endpoint of {self.host} cannot be reached: {error}") from error
        if response.status in _TRANSIENT:
            detail = f"the token endpoint of {self.host} answered {response.status}"
            raise TryAgainError(detail, wished_pause(response.headers))
        return response.status, data

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

    def __init__(self, response: Response, host: str, limit: int) -> None:
        super().__init__()
        self._response = response
        self._host = host
        self._left = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override] # narrower than any buffer
        try:
            data = self._response.read(len(buffer))
        except BrokenConnectionError as error:
            raise TryAgainError(f"{self._host} broke off in the middle of a blob ({error})") from error
        count = len(data)
        buffer[:count] = data
        self._left -= count
        if self._left < 0:
            raise RegistryError(f"{self._host} sends more bytes of a blob than it may have")
        return count


def _read_bounded(response: Response, limit: int, host: str) -> bytes:
    data = bytearray()
    while len(data) <= limit and (chunk := response.read(CHUNK)):
        data += chunk
    if len(data) > limit and response.is_success:
        raise RegistryError(f"{host} answered more than {limit} bytes where no such answer may be")
    return bytes(data[:limit])
