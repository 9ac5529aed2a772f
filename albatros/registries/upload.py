"""One blob on its way into one name of an OCI registry (distribution spec 1.1, "Pushing blobs").

In one piece first; in chunks where that is refused. What broke off goes on where the registry says that it is, unless
that cannot be: some tell a stale Range (aws/containers-roadmap#2831), so no more than was sent is ever believed, and
docker-registry 2.8 knows no session any more after what came over a connection that broke.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import quote, urlsplit, urlunsplit

from albatros.domain import media
from albatros.domain.references import Blob
from albatros.errors import RegistryError
from albatros.registries.base import BlobOpener
from albatros.registries.retry import TryAgainError
from albatros.registries.transport import Answer, Body, Transport

CHUNK_BYTES = 4 << 20
"""GHCR takes no more in one PATCH."""
_TAKEN = (HTTPStatus.CREATED, HTTPStatus.NO_CONTENT)
_TOO_MUCH_AT_ONCE = (405, 411, 413, 416, 501)
"""What registries and proxies before them answer to a whole blob that they would take in chunks."""
_LOST = (404, 410)
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,15})")


class BlobUpload:
    """Keeps, from try to try, how far the registry is. `scope` is of the name, `mount_scope` of a source as well."""

    def __init__(self, transport: Transport, uploads: str, scope: str, blob: Blob, open_blob: BlobOpener) -> None:
        self._transport = transport
        self._uploads = uploads
        self._scope = scope
        self._blob = blob
        self._open = open_blob
        self._location = ""
        self._offered = 0
        self._sent = 0
        self._in_chunks = False
        self._least = 0
        self._resumed = False

    def mount(self, sources: Sequence[tuple[str, str]]) -> bool:
        """Ask for the blob out of other names of this registry, each with the scope that this takes; True when done.

        Only 201 says so. A 202 is the session of an ordinary upload, which then goes on (harbor#22863); who may not
        read the source is told 401 or 403, and uploads as well (oras#1924).
        """
        for source, scope in sources:
            try:
                answer = self._transport.request(
                    "POST", f"{self._uploads}?mount={quote(self._blob.digest)}&from={quote(source, safe='')}", scope
                )
            except TryAgainError:
                raise
            except RegistryError:
                continue
            if answer.status == HTTPStatus.CREATED:
                return True
            if answer.status == HTTPStatus.ACCEPTED and answer.headers.get("Location"):
                self._take_session(answer)
                return False
        return False

    def send(self) -> None:
        """One try at the bytes. Raises TryAgainError when another may finish them, RegistryError when none will."""
        if self._location and self._offered and not self._resume():
            self._forget()
        if not self._location:
            self._begin()
        if not self._in_chunks and not self._sent and self._send_whole():
            return
        self._send_chunks()
        self._finish()

    def _begin(self) -> None:
        answer = self._transport.request("POST", self._uploads, self._scope)
        if answer.status != HTTPStatus.ACCEPTED or not answer.headers.get("Location"):
            raise self._refused(answer, "to begin an upload to")
        self._take_session(answer)

    def _take_session(self, answer: Answer) -> None:
        self._follow(answer)
        least = answer.headers.get("OCI-Chunk-Min-Length", "")
        self._least = int(least) if least.isdecimal() and len(least) < 12 else 0

    def _follow(self, answer: Answer) -> None:
        """Each answer may name another place to go on."""
        if location := answer.headers.get("Location"):
            self._location = self._transport.resolve(location, answer.url)

    def _forget(self) -> None:
        self._location, self._offered, self._sent, self._resumed = "", 0, 0, False

    def _send_whole(self) -> bool:
        self._offered = self._blob.size
        body = Body(self._open, self._blob.size, media.BYTES)
        answer = self._transport.request("PUT", self._closing(), self._scope, body=body)
        if answer.status in _TAKEN:
            return True
        if answer.status not in _TOO_MUCH_AT_ONCE or not self._blob.size:
            raise self._not_taken(answer)
        self._forget()
        self._in_chunks = True
        self._begin()
        return False

    def _send_chunks(self) -> None:
        step = max(CHUNK_BYTES, self._least)
        while self._sent < self._blob.size:
            size = min(step, self._blob.size - self._sent)
            self._offered = self._sent + size
            body = Body(self._open, size, media.BYTES, self._sent)
            span = {"Content-Range": f"{self._sent}-{self._offered - 1}"}
            answer = self._transport.request("PATCH", self._location, self._scope, headers=span, body=body)
            if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and self._sent:
                raise self._lost()
            if answer.status not in (HTTPStatus.ACCEPTED, *_TAKEN):
                raise self._not_taken(answer)
            self._follow(answer)
            self._sent = self._offered

    def _finish(self) -> None:
        answer = self._transport.request("PUT", self._closing(), self._scope)
        if answer.status not in _TAKEN:
            if self._resumed and answer.status not in (401, 403):
                raise self._lost()
            raise self._not_taken(answer)

    def _resume(self) -> bool:
        """Ask how far the registry is; False when it does not know, or says what cannot be."""
        answer = self._transport.request("GET", self._location, self._scope)
        told = _RANGE.fullmatch(answer.headers.get("Range", ""))
        if answer.status != HTTPStatus.NO_CONTENT or told is None:
            return False
        # "0-0" is said of one byte and of none.
        there = int(told[1]) + 1 if told[1] != "0" else 0
        if not self._sent <= there <= self._offered:
            return False
        self._follow(answer)
        self._sent, self._resumed = there, True
        return True

    def _closing(self) -> str:
        parts = urlsplit(self._location)
        query = "&".join(part for part in (parts.query, f"digest={quote(self._blob.digest)}") if part)
        return urlunsplit(parts._replace(query=query))

    def _not_taken(self, answer: Answer) -> RegistryError:
        if answer.status in _LOST:
            return self._lost()
        return self._refused(answer, f"to take blob {self._blob.digest} into")

    def _lost(self) -> TryAgainError:
        self._forget()
        return TryAgainError(f"{self._transport.host} lost the upload of blob {self._blob.digest}")

    def _refused(self, answer: Answer, doing: str) -> RegistryError:
        name = self._uploads.removeprefix("/v2/").removesuffix("/blobs/uploads/")
        return self._transport.refused(answer, f"{doing} {name}", self._scope)
