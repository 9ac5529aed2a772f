"""Calls to a forge's REST API: bounded answers, no redirects; failures are for good, or worth another try.

What a forge marks with an ETag is asked for again with If-None-Match: GitHub does not count what did not change.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from albatros.domain.refs import one_line
from albatros.errors import ForgeError, ForgeUnavailableError

if TYPE_CHECKING:
    import httpx

MAX_ANSWER = 8 << 20
CALL_SECONDS = 20
"""One call may take no longer in all, and no step of it longer than half of that."""
MAX_REMEMBERED = 200
MAX_REMEMBERED_BYTES = 256 << 10
"""Of one answer; together they are at most 50 MiB, and far less as a rule."""
MAX_WAIT = 3600.0
NO_HEADERS: Mapping[str, str] = {}
_LATER = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class RestClient:
    """One forge's API under a base URL, for several threads. Errors name the forge and the path, never a header."""

    def __init__(self, forge: str, base: str, headers: Mapping[str, str]) -> None:
        self._forge = forge
        self._base = base
        self._headers = dict(headers)
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()
        self._remembered: OrderedDict[str, tuple[str, bytes]] = OrderedDict()

    def get(
        self,
        path: str,
        missing: Collection[int] = (HTTPStatus.NOT_FOUND,),
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> object:
        """The JSON at a path; None when the answer is one of `missing`. Raises ForgeError or ForgeUnavailableError."""
        with self._lock:
            etag, known = self._remembered.get(path, ("", b""))
        answer = self._call("GET", path, None, {**headers, **({"If-None-Match": etag} if etag else {})})
        if answer.status == HTTPStatus.NOT_MODIFIED and etag:
            return self._decode(path, known)
        if answer.status in missing:
            return None
        self._check("GET", path, answer)
        self._remember(path, answer)
        return self._decode(path, answer.body)

    def post(self, path: str, body: Mapping[str, object], headers: Mapping[str, str] = NO_HEADERS) -> object:
        """Send JSON and return the JSON answer. Raises ForgeError or ForgeUnavailableError."""
        return self._send("POST", path, body, headers)

    def patch(self, path: str, body: Mapping[str, object]) -> object:
        """Change what is at a path and return the JSON answer. Raises ForgeError or ForgeUnavailableError."""
        return self._send("PATCH", path, body, NO_HEADERS)

    def _send(self, method: str, path: str, body: Mapping[str, object], headers: Mapping[str, str]) -> object:
        answer = self._call(method, path, body, headers)
        self._check(method, path, answer)
        return self._decode(path, answer.body)

    def _remember(self, path: str, answer: _Answer) -> None:
        etag = answer.headers.get("etag", "")
        with self._lock:
            self._remembered.pop(path, None)
            if etag and len(answer.body) <= MAX_REMEMBERED_BYTES:
                self._remembered[path] = (etag, answer.body)
            while len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)

    def exchange(
        self, method: str, path: str, headers: Mapping[str, str], form: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """The status and bytes of one call, for a caller that judges them. Raises ForgeError, ForgeUnavailableError."""
        answer = self._call(method, path, None, headers, form)
        return answer.status, answer.body

    def delete(self, path: str) -> bool:
        """Delete what is at a path; False when there was nothing. Raises ForgeError or ForgeUnavailableError."""
        answer = self._call("DELETE", path, None)
        if answer.status == HTTPStatus.NOT_FOUND:
            return False
        self._check("DELETE", path, answer)
        return True

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = None

    def _open(self) -> httpx.Client:
        import httpx  # noqa: PLC0415 - 40 ms and 8 MiB that a server without such a forge does not pay

        with self._lock:
            if self._client is None:
                self._client = httpx.Client(headers=self._headers, timeout=CALL_SECONDS / 2, follow_redirects=False)
            return self._client

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> _Answer:
        client = self._open()
        import httpx  # noqa: PLC0415 - loaded by now

        deadline = time.monotonic() + CALL_SECONDS
        answer = bytearray()
        try:
            with client.stream(method, self._base + path, json=body, data=form, headers=headers) as response:
                for chunk in response.iter_bytes():
                    answer += chunk
                    if len(answer) > MAX_ANSWER:
                        raise ForgeError(f"{self._forge}: {method} {path} answered more than {MAX_ANSWER} bytes")
                    if time.monotonic() > deadline:
                        raise ForgeUnavailableError(f"{self._forge}: {method} {path} took over {CALL_SECONDS} s")
                return _Answer(response.status_code, dict(response.headers), bytes(answer))
        except httpx.InvalidURL as error:
            raise ForgeError(f"{self._forge}: forges.url is no usable address: {error}") from None
        except httpx.HTTPError as error:
            kind = type(error).__name__
            raise ForgeUnavailableError(
                f"{self._forge}: {method} {path}: {kind}: {one_line(str(error), 200)}"
            ) from None

    def _check(self, method: str, path: str, answer: _Answer) -> None:
        status = answer.status
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return
        what = f"{self._forge}: {method} {path} answered {status}"
        wait = _seconds_to_wait(answer)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _LATER or wait is not None:
            raise ForgeUnavailableError(f"{what}{_reason(answer.body)}; it is tried again", wait)
        if status < HTTPStatus.BAD_REQUEST:
            raise ForgeError(f"{what}, a redirect, which is not followed: set forges.url to where it points")
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise ForgeError(f"{what}: check that forges.token is valid and may do this{_reason(answer.body)}")
        raise ForgeError(f"{what}{_reason(answer.body)}")

    def _decode(self, path: str, answer: bytes) -> object:
        try:
            value: object = json.loads(answer) if answer else None
        except (ValueError, RecursionError):
            raise ForgeError(f"{self._forge}: {path} answered something that is not JSON; check forges.url") from None
        return value


def _seconds_to_wait(answer: _Answer) -> float | None:
    """What a refused call says of its rate limit: Retry-After, or GitHub's X-RateLimit-Reset once nothing remains."""
    found = answer.headers.get("retry-after", "")
    if found.isascii() and found.isdigit() and len(found) < 10:
        return min(float(found), MAX_WAIT)
    reset = answer.headers.get("x-ratelimit-reset", "")
    if answer.headers.get("x-ratelimit-remaining") == "0" and reset.isascii() and reset.isdigit() and len(reset) < 16:
        return min(max(float(reset) - time.time(), 0.0), MAX_WAIT)
    return None


def _reason(answer: bytes) -> str:
    """What the forge itself says: `message`, with GitHub's `errors` behind it; GitLab has `error` too, or a list."""
    try:
        value = json.loads(answer)
        if not isinstance(value, dict):
            return ""
        said, errors = [value.get("message") or value.get("error")], value.get("errors")
        said += [one.get("message") for one in errors if isinstance(one, dict)] if isinstance(errors, list) else []
        texts = [one if isinstance(one, str) else json.dumps(one) for one in said if one]
    except (ValueError, RecursionError):
        return ""
    return f" ({one_line(': '.join(texts), 200)})" if texts else ""
