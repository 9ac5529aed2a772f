"""Mirroring: a published image with everything that is said about it, as it is, to another registry.

What is copied keeps its bytes, so digests and signatures stay what they were; a signature goes on naming the original.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import islice
from typing import BinaryIO

from albatros.domain.references import Blob, Digest
from albatros.errors import ImageError, NotFoundError
from albatros.images.model import Image
from albatros.images.referrers import Artifact, Proof, list_referrers, read_artifact, subjects
from albatros.images.signing import SignatureTag, read_signatures
from albatros.registries.base import Registry

MAX_PROOFS = 1000
MAX_DEPTH = 3
"""How far proofs of proofs are followed."""


class PublishedBlobs:
    """The blobs of a published image as a BlobSource."""

    def __init__(self, registry: Registry, name: str, image: Image) -> None:
        self._registry = registry
        self._name = name
        self._blobs = {blob.digest: blob for blob in image.content_blobs()}

    def open(self, digest: Digest) -> AbstractContextManager[BinaryIO]:
        """Read from the registry. Raises NotFoundError."""
        return self._registry.open_blob(self._name, self._blob(digest))

    def size(self, digest: Digest) -> int | None:
        """What the image says of its size."""
        blob = self._blobs.get(digest)
        return blob.size if blob else None

    def _blob(self, digest: Digest) -> Blob:
        if digest not in self._blobs:
            raise NotFoundError(f"{digest} is no blob of the image")
        return self._blobs[digest]


def read_proofs(registry: Registry, name: str, image: Image) -> list[Proof]:
    """Signatures and referrers of an image's index and manifests, and what refers to these in turn.

    Raises ImageError for more than MAX_PROOFS of one manifest.
    """
    found: list[Proof] = []
    for subject in subjects(image):
        if signatures := read_signatures(registry, name, subject.digest):
            found.append(SignatureTag(subject.digest, signatures))
        artifacts = list(islice(_artifacts(registry, name, subject.digest, MAX_DEPTH), MAX_PROOFS + 1))
        if len(artifacts) > MAX_PROOFS:
            raise ImageError(f"more than {MAX_PROOFS} proofs refer to {subject.digest}; copy it without Albatros")
        found += artifacts
    return found


def _artifacts(registry: Registry, name: str, subject: Digest, depth: int) -> Iterator[Artifact]:
    for referrer in list_referrers(registry, name, subject):
        artifact = read_artifact(registry, name, subject, referrer)
        yield artifact
        if depth > 1:
            yield from _artifacts(registry, name, artifact.digest, depth - 1)
