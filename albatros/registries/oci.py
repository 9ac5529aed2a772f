"""A registry that speaks the OCI distribution protocol (spec 1.1): docker-registry, Gitea, Harbor, Docker Hub.

The scope of a token is computed here, since some registries answer a placeholder. Manifests of one registry go one
after the other, because Gitea fails otherwise (go-gitea#31964).
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from http import HTTPStatus
from typing import BinaryIO

from albatros.domain import docker_hub, media
from albatros.domain.references import Blob, Digest, RegistryUrl, digest_of, is_digest
from albatros.errors import NotFoundError, RegistryError
from albatros.registries.base import BlobOpener, Credentials, Manifest
from albatros.registries.retry import RetryPolicy
from albatros.registries.transport import Answer, Body, Transport
from albatros.registries.upload import BlobUpload

_MAX_TAG_PAGES = 1000
_ANSWER_LIMIT = 1 << 20
_MANIFEST_TYPES = ", ".join((media.INDEX, media.MANIFEST, media.DOCKER_LIST, media.DOCKER_MANIFEST))
_NEXT_LINK = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')


class OciRegistry:
    """One host and prefix of names, `docker://HOST/PREFIX`."""

    def __init__(self, url: RegistryUrl, credentials: Credentials | None, policy: RetryPolicy | None = None) -> None:
        self._url = url
        host = docker_hub.API_HOST if url.host == docker_hub.HOST else url.host
        self._transport = Transport(host, credentials, policy, plain=url.plain_http)
        self._writing: set[str] = set()
        self._manifests = threading.Lock()

    @property
    def address(self) -> str:
        """`HOST/PREFIX`, as it stands in a reference."""
        return "/".join(part for part in (self._url.host, self._url.prefix) if part)

    def hold(self, name: str, _digests: Sequence[Digest], /) -> AbstractContextManager[None]:
        """The registry's own collector decides; from here on, requests for `name` ask for the right to push."""
        self._writing.add(name)
        return nullcontext()

    def blob_size(self, name: str, digest: Digest) -> int | None:
        """HEAD a blob; None also when the registry does not tell its size."""
        answer = self._ask("HEAD", name, self._path(name, f"blobs/{digest}"))
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        if answer.status != HTTPStatus.OK:
            raise self._refused(answer, name, f"to look for blob {digest} in")
        length = answer.headers.get("Content-Length", "")
        return int(length) if length.isdigit() else None

    def put_blob(self, name: str, blob: Blob, open_blob: BlobOpener, mount_from: Sequence[str] = (), /) -> bool:
        """Upload a blob, unless the registry takes it from one of `mount_from`, names of its own."""
        scope = self._scope(name, push=True)
        upload = BlobUpload(self._transport, self._path(name, "blobs/uploads/"), scope, blob, open_blob)
        sources = [(self._full_name(source), f"{scope} {self._scope(source)}") for source in mount_from]

        def work(attempt: int) -> bool:
            # The registry may have taken the bytes before the connection broke.
            if attempt > 1 and self._present(name, blob):
                return True
            if attempt == 1 and upload.mount(sources):
                return False
            upload.send()
            return True

        return self._transport.gate.run(work)

    def put_manifest(self, name: str, reference: str, manifest: Manifest) -> bool:
        """PUT the exact bytes and compare the digest in the answer; `OCI-Subject` there says that it is listed."""
        body = Body.of(manifest.data, manifest.media_type)
        with self._manifests:
            answer = self._ask("PUT", name, self._path(name, f"manifests/{reference}"), body=body)
        if answer.status not in (HTTPStatus.CREATED, HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT):
            raise self._refused(answer, name, f"to put manifest {reference} into", push=True)
        told = answer.headers.get("Docker-Content-Digest")
        if told is not None and told != digest_of(manifest.data):
            raise RegistryError(
                f"{self._transport.host} stored other bytes than it was sent as {name}:{reference}: {told}"
            )
        return "OCI-Subject" in answer.headers

    def get_manifest(self, name: str, reference: str) -> Manifest | None:
        """GET a manifest of any type that this program knows; a digest is checked."""
        headers = {"Accept": _MANIFEST_TYPES}
        answer = self._ask(
            "GET", name, self._path(name, f"manifests/{reference}"), headers=headers, limit=media.MAX_MANIFEST
        )
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        if answer.status != HTTPStatus.OK:
            raise self._refused(answer, name, f"to give manifest {reference} of")
        if is_digest(reference) and digest_of(answer.body) != reference:
            raise RegistryError(f"{self._transport.host} gave {digest_of(answer.body)} when asked for {reference}")
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        return Manifest(media_type, answer.body)

    def get_referrers(self, name: str, subject: Digest) -> Manifest | None:
        """GET the index of referrers; None for a registry without the API, as docker-registry 2.8, Hub and GHCR are."""
        path = self._path(name, f"referrers/{subject}")
        answer = self._ask("GET", name, path, headers={"Accept": media.INDEX}, limit=media.MAX_MANIFEST)
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        # A proxy or an older registry may answer 200 with a page of its own (spec: only an index counts).
        if answer.status == HTTPStatus.OK and kind == media.INDEX:
            return Manifest(kind, answer.body)
        if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise self._refused(answer, name, f"to list what refers to {subject} in")
        return None

    @contextmanager
    def open_blob(self, name: str, blob: Blob) -> Iterator[BinaryIO]:
        """GET a blob as a stream of at most its size."""
        path = self._path(name, f"blobs/{blob.digest}")
        with self._transport.open(path, self._scope(name), blob.size) as (status, stream):
            if status == HTTPStatus.NOT_FOUND:
                raise NotFoundError(f"{self.address}/{name} has no blob {blob.digest}")
            if status != HTTPStatus.OK:
                raise RegistryError(f"{self._transport.host} refuses to give blob {blob.digest} of {name}: {status}")
            yield stream

    def list_tags(self, name: str) -> list[str]:
        """Every tag, page by page along the `Link` header."""
        tags: set[str] = set()
        path = self._path(name, "tags/list?n=1000")
        for _ in range(_MAX_TAG_PAGES):
            answer = self._ask("GET", name, path)
            if answer.status == HTTPStatus.NOT_FOUND:
                break
            if answer.status != HTTPStatus.OK:
                raise self._refused(answer, name, "to list the tags of")
            tags |= _parse_tags(answer.body, self._transport.host)
            link = _NEXT_LINK.search(answer.headers.get("Link", ""))
            if link is None:
                break
            path = self._transport.resolve(link[1], answer.url)
        return sorted(tags)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _present(self, name: str, blob: Blob) -> bool:
        answer = self._transport.request("HEAD", self._path(name, f"blobs/{blob.digest}"), self._scope(name))
        return answer.status == HTTPStatus.OK and answer.headers.get("Content-Length") == str(blob.size)

    def _ask(
        self,
        method: str,
        name: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        limit: int = _ANSWER_LIMIT,
    ) -> Answer:
        """A request that may be repeated, with its retries."""
        scope = self._scope(name, push=body is not None)
        return self._transport.gate.run(
            lambda _attempt: self._transport.request(method, url, scope, headers=headers, body=body, limit=limit)
        )

    def _full_name(self, name: str) -> str:
        if self._url.host == docker_hub.HOST:
            return docker_hub.full_name(self._url.prefix, name)
        return f"{self._url.prefix}/{name}" if self._url.prefix else name

    def _path(self, name: str, path: str) -> str:
        return f"/v2/{self._full_name(name)}/{path}"

    def _scope(self, name: str, *, push: bool = False) -> str:
        """What a token has to allow."""
        return f"repository:{self._full_name(name)}:" + ("pull,push" if push or name in self._writing else "pull")

    def _refused(self, answer: Answer, name: str, doing: str, *, push: bool = False) -> RegistryError:
        return self._transport.refused(answer, f"{doing} {self._full_name(name)}", self._scope(name, push=push))


def _parse_tags(body: bytes, host: str) -> set[str]:
    try:
        return {tag for tag in json.loads(body)["tags"] or () if isinstance(tag, str)}
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise RegistryError(f"{host} answered a list of tags that cannot be read") from error
