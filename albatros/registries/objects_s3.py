"""Objects in an S3 bucket, Garage's above all: the only place that knows the S3 library.

Large objects go in parts, so memory stays flat; small ones in one request. Each request is tried again with backoff
by the library itself. No error's text is the library's own: it holds requests, not sentences.
"""

from __future__ import annotations

import io
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, BinaryIO

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from albatros.domain.s3 import S3Location
from albatros.errors import AlbatrosError, NotFoundError, RegistryError, RegistryUnavailableError
from albatros.registries import layout
from albatros.registries.aws import S3Keys
from albatros.registries.base import BlobOpener
from albatros.registries.layout import Headers
from albatros.registries.objects import CHUNK, StoredObject
from albatros.registries.retry import HostGate, Result, RetryPolicy, TryAgainError

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta
    from obstore.store import S3Config, S3Credential
    from typing_extensions import Buffer

_PART = 5 << 20
"""Bytes of a part: the least that S3 takes, so that four blobs at once need little memory."""
_PARALLEL_PARTS = 2
_PAGE = 1000
_DEFAULT_REGION = "us-east-1"
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,60})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})</Message>")
_BROKE_OFF = "response body"
"""In the library's words for an answer whose body was cut short."""
_TRIES = 5
_TRY_FOR = timedelta(minutes=3)
_REQUEST_TIMEOUT = timedelta(minutes=5)
_CONNECT_TIMEOUT = timedelta(seconds=10)


class S3Objects:
    """Objects below one prefix of one bucket."""

    def __init__(self, location: S3Location, keys: S3Keys) -> None:
        self._location = location
        self._keys = keys
        self._prefix = f"{location.prefix}/" if location.prefix else ""
        self._bucket_seen = False
        self._gate = HostGate(RetryPolicy(), _PARALLEL_PARTS)
        self._store = S3Store(
            location.bucket,
            config=_place(location),
            credential_provider=lambda: _credential(keys),
            client_options={
                "allow_http": location.endpoint.startswith("http://"),
                "connect_timeout": _CONNECT_TIMEOUT,
                "timeout": _REQUEST_TIMEOUT,
                "user_agent": f"albatros/{version('albatros')}",
            },
            retry_config={"max_retries": _TRIES, "retry_timeout": _TRY_FOR},
        )

    def find(self, key: str) -> StoredObject | None:
        """What a HEAD says of an object."""

        def head() -> ObjectMeta | None:
            with suppress(FileNotFoundError):
                return obstore.head(self._store, self._prefix + key)
            return None

        found = self._again(f"to look for {key}", head)
        if found is None:
            self._check_bucket()
            return None
        return StoredObject(key, found["size"], found["last_modified"])

    def put(self, key: str, body: BlobOpener, headers: Headers) -> None:
        """Write an object; one that is larger than a part goes in parts, and appears when the last one is there."""
        self._again(f"to write {key}", lambda: self._put(self._prefix + key, body, headers))

    def open(self, key: str) -> BinaryIO:
        """Read an object as it comes."""

        def get() -> GetResult | None:
            with suppress(FileNotFoundError):
                return obstore.get(self._store, self._prefix + key)
            return None

        found = self._again(f"to read {key}", get)
        if found is None:
            self._check_bucket()
            raise NotFoundError(f"{self._location.address} has no {key}")
        return io.BufferedReader(_Reader(self, key, iter(found.stream(min_chunk_size=CHUNK))), CHUNK)

    def names(self, prefix: str) -> list[str]:
        """The names below a prefix, which ends with `/`."""
        found = self._again(
            f"to list {prefix}", lambda: obstore.list_with_delimiter(self._store, self._prefix + prefix)
        )
        return sorted(item["path"].rpartition("/")[2] for item in found["objects"])

    def walk(self, prefix: str) -> Iterator[StoredObject]:
        """Every object below a prefix, a page at a time."""
        page, last = self._page(prefix, None), ""
        while page:
            for item in page:
                last = item["path"]
                yield StoredObject(last.removeprefix(self._prefix), item["size"], item["last_modified"])
            page = self._page(prefix, last) if len(page) == _PAGE else ()

    def touch(self, key: str) -> bool:
        """Copy an object onto itself, which Garage takes for a new one; AWS refuses this."""
        try:
            with self._plain_errors(f"to touch {key}"):
                obstore.copy(self._store, self._prefix + key, self._prefix + key)
        except (RegistryError, NotFoundError):
            return False
        return True

    def delete(self, key: str) -> None:
        """Remove an object; S3 does not say whether it was there."""
        with suppress(NotFoundError):
            self._again(f"to delete {key}", lambda: obstore.delete(self._store, self._prefix + key))

    def _put(self, path: str, body: BlobOpener, headers: Headers) -> None:
        attributes = {"Content-Type": headers.content_type, "Cache-Control": headers.cache_control}
        with body() as stream:
            chunks = iter(lambda: stream.read(CHUNK), b"")
            head = bytearray()
            for chunk in chunks:
                head += chunk
                if len(head) >= _PART:
                    whole = itertools.chain((bytes(head),), chunks)
                    parallel = _PARALLEL_PARTS
                    obstore.put(
                        self._store, path, whole, attributes=attributes, chunk_size=_PART, max_concurrency=parallel
                    )
                    return
            obstore.put(self._store, path, bytes(head), attributes=attributes, use_multipart=False)

    def _page(self, prefix: str, after: str | None) -> Sequence[ObjectMeta]:
        """The first objects below a prefix, or those after one."""

        def first() -> Sequence[ObjectMeta]:
            return next(obstore.list(self._store, self._prefix + prefix, offset=after, chunk_size=_PAGE), ())

        return self._again(f"to list {prefix}", first)

    def _check_bucket(self) -> None:
        """A HEAD does not tell a missing bucket from a missing object, so it is asked for once."""
        if not self._bucket_seen:
            self.names(layout.LEASES)
            self._bucket_seen = True

    def _again(self, doing: str, work: Callable[[], Result]) -> Result:
        """The library repeats a request that got no answer, but not one whose answer broke off."""

        def attempt(_number: int) -> Result:
            with self._plain_errors(doing):
                return work()

        return self._gate.run(attempt)

    @contextmanager
    def _plain_errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            raise self._explained(str(error), doing) from error

    def _explained(self, text: str, doing: str) -> AlbatrosError:
        where = self._location
        status, code, message = (
            found[1] if (found := pattern.search(text)) else "" for pattern in (_STATUS, _CODE, _MESSAGE)
        )
        if code == "NoSuchBucket":
            return RegistryError(
                f"{where.host} has no bucket {where.bucket!r} that this key may see; make it, or correct the address"
            )
        said = f"{status} {code} {message}".strip()
        if not status or int(status) in _PASSING:
            kind = TryAgainError if _BROKE_OFF in text else RegistryUnavailableError
            return kind(
                f"{where.host} cannot be used {doing} in bucket {where.bucket!r}: {said or 'it does not answer'}; "
                "check that it runs and that the endpoint is right"
            )
        if status in ("400", "401", "403"):
            return RegistryError(
                f"{where.host} refuses {doing} in bucket {where.bucket!r} with key {self._keys.key_id} "
                f"from {self._keys.origin}, region {_region(where)}: {said}; "
                "check the key, its secret, the region, and that it may read and write this bucket"
            )
        if status == "404":
            return NotFoundError(f"{where.address}: what it takes {doing} is gone: {said}")
        return RegistryError(f"{where.host} refuses {doing} in bucket {where.bucket!r}: {said}")

    def reader_errors(self, key: str) -> AbstractContextManager[None]:
        """What a stream that is read later runs under."""
        return self._plain_errors(f"to read {key}")


class _Reader(io.RawIOBase):
    """An object's bytes as a file."""

    def __init__(self, objects: S3Objects, key: str, chunks: Iterator[Buffer]) -> None:
        super().__init__()
        self._objects = objects
        self._key = key
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override] # narrower than any buffer
        with self._objects.reader_errors(self._key):
            while not self._rest:
                chunk = next(self._chunks, None)
                if chunk is None:
                    return 0
                self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


def _region(location: S3Location) -> str:
    return location.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or _DEFAULT_REGION


def _place(location: S3Location) -> S3Config:
    config: S3Config = {"region": _region(location), "virtual_hosted_style_request": not location.path_style}
    if location.endpoint:
        scheme, _, host = location.endpoint.partition("://")
        # The library wants the bucket in the endpoint's host already, where it shall be there.
        config["endpoint"] = location.endpoint if location.path_style else f"{scheme}://{location.bucket}.{host}"
    return config


def _credential(keys: S3Keys) -> S3Credential:
    """Given as a provider, so that no variable of the environment is mixed with configured keys."""
    return {"access_key_id": keys.key_id, "secret_access_key": keys.secret, "token": keys.token, "expires_at": None}
