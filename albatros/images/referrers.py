"""Artifacts that refer to an image: signatures, bills of materials, provenance. Pushed, listed, and read back.

Where a registry has no referrers API, the fallback tag `sha256-HEX` lists them (OCI distribution spec 1.1, "Referrers
Tag Schema"). It belongs to every pusher and nothing can lock it: it is read and written until it holds what this one
put there. Two who write it in the same instant may still lose an entry, which the next push of that one restores.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Protocol

from albatros.domain import media
from albatros.domain.references import Blob, Digest, digest_of
from albatros.domain.referrers import Referrer, describe, fallback_tag, read_index, subject_of, write_index
from albatros.errors import BadInputError, ImageError, NotFoundError, RegistryUnavailableError
from albatros.images.base import BlobSink, BlobSource
from albatros.images.model import Descriptor, Image, JsonObject, canonical_json, parse_json_object
from albatros.registries.base import BlobOpener, Manifest, Registry

EMPTY = b"{}"
EMPTY_CONFIG = Descriptor("application/vnd.oci.empty.v1+json", digest_of(EMPTY), len(EMPTY))
"""The config of an artifact that needs none (OCI image spec, "Guidance for an Empty Descriptor")."""
MAX_PROOF = 32 << 20
"""Most bytes of one blob of an artifact that are read into memory."""
_MAX_REFERRERS = 1000
_ROUNDS = 10


class Proof(Protocol):
    """Something that is published beside an image and says something about it."""

    @property
    def subject(self) -> Digest:
        """The manifest or index it is about."""

    def digests(self) -> Iterable[Digest]:
        """Everything that it is made of."""

    def push(self, registry: Registry, name: str, /) -> None:
        """Bring it to a registry whose `name` holds its subject."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A manifest with a `subject`, and how to open each blob that it names."""

    manifest: Manifest
    blobs: Mapping[Blob, BlobOpener]

    @property
    def digest(self) -> Digest:
        """Its own digest."""
        return digest_of(self.manifest.data)

    @property
    def referrer(self) -> Referrer:
        """How an index lists it."""
        return describe(self.manifest.media_type, self.manifest.data)

    @property
    def subject(self) -> Digest:
        """What it refers to. Raises BadInputError when it refers to nothing."""
        subject = subject_of(self.manifest.data)
        if subject is None:
            raise BadInputError(f"artifact {self.digest} refers to nothing")
        return subject

    def digests(self) -> Iterable[Digest]:
        """Everything that it is made of."""
        return (*(blob.digest for blob in self.blobs), self.digest)

    def push(self, registry: Registry, name: str, /) -> None:
        """Bring it there, and have it listed under its subject."""
        push_blobs(registry, name, self.blobs)
        if not registry.put_manifest(name, self.digest, self.manifest):
            _list_by_tag(registry, name, self)


def make_artifact(subject: Descriptor, kind: str, data: bytes, annotations: Mapping[str, str]) -> Artifact:
    """An artifact of one blob, both of type `kind`; the same arguments give the same bytes."""
    layer = Descriptor(kind, digest_of(data), len(data))
    value: JsonObject = {
        "schemaVersion": 2,
        "mediaType": media.MANIFEST,
        "artifactType": kind,
        "config": EMPTY_CONFIG.as_json(),
        "layers": [layer.as_json()],
        "subject": subject.as_json(),
    }
    if annotations:
        value["annotations"] = dict(annotations)
    manifest = Manifest(media.MANIFEST, canonical_json(value, "an artifact"))
    return Artifact(manifest, {EMPTY_CONFIG.blob: partial(io.BytesIO, EMPTY), layer.blob: partial(io.BytesIO, data)})


def artifact_of(manifest: Manifest, open_blob: Callable[[Blob], AbstractContextManager[BinaryIO]]) -> Artifact:
    """The artifact of a manifest that was read somewhere. Raises ImageError for one that names no blobs."""
    value = parse_json_object(manifest.data, "an artifact")
    layers = value.get("layers")
    if not isinstance(layers, list):
        raise ImageError("an artifact has no list of layers")
    found = [Descriptor.from_json(entry, "a blob of an artifact").blob for entry in (*layers, value.get("config"))]
    return Artifact(manifest, {blob: partial(open_blob, blob) for blob in found})


def load_artifact(blobs: BlobSource, digest: Digest) -> Artifact:
    """Read an artifact back from where its blobs are kept. Raises NotFoundError, ImageError."""
    with blobs.open(digest) as stream:
        data = stream.read(media.MAX_MANIFEST + 1)
    if digest_of(data) != digest:
        raise ImageError(f"the stored artifact {digest} does not match its digest: the store is damaged")
    return artifact_of(Manifest(media.MANIFEST, data), lambda blob: blobs.open(blob.digest))


def keep_artifact(artifact: Artifact, sink: BlobSink) -> tuple[Blob, ...]:
    """Keep an artifact's manifest and blobs; what was kept."""
    kept = [sink.put((read_checked(open_blob, blob),)) for blob, open_blob in artifact.blobs.items()]
    return (*kept, sink.put((artifact.manifest.data,)))


def push_blobs(registry: Registry, name: str, blobs: Mapping[Blob, BlobOpener]) -> None:
    """Bring those blobs that are not there."""
    for blob, open_blob in blobs.items():
        if registry.blob_size(name, blob.digest) != blob.size:
            registry.put_blob(name, blob, open_blob)


def list_referrers(registry: Registry, name: str, subject: Digest) -> tuple[Referrer, ...]:
    """What refers to a manifest, by the registry's API or the fallback tag. Raises BadInputError, RegistryError."""
    found = registry.get_referrers(name, subject) or registry.get_manifest(name, fallback_tag(subject))
    if found is None:
        return ()
    referrers = read_index(found.data)
    if len(referrers) > _MAX_REFERRERS:
        raise BadInputError(f"{len(referrers)} manifests refer to {subject}; at most {_MAX_REFERRERS} are read")
    return referrers


def read_artifact(registry: Registry, name: str, subject: Digest, referrer: Referrer) -> Artifact:
    """Read one of those that were listed. Raises ImageError for one that refers to something else."""
    found = registry.get_manifest(name, referrer.digest)
    if found is None:
        raise NotFoundError(f"{registry.address}/{name} lists {referrer.digest}, which is not there")
    if digest_of(found.data) != referrer.digest or subject_of(found.data) != subject:
        raise ImageError(f"{registry.address}/{name} lists {referrer.digest}, which does not refer to {subject}")
    return artifact_of(found, partial(registry.open_blob, name))


def read_only_layer(artifact: Artifact) -> bytes:
    """The bytes of the one blob beside the config, their digest checked. Raises ImageError."""
    openers = [(blob, open_blob) for blob, open_blob in artifact.blobs.items() if blob.digest != EMPTY_CONFIG.digest]
    if len(openers) != 1:
        raise ImageError(f"artifact {artifact.digest} has {len(openers)} blobs instead of one")
    return read_checked(openers[0][1], openers[0][0])


def subjects(image: Image) -> Sequence[Descriptor]:
    """What proofs are attached to: the index, and the manifest of each platform."""
    return tuple(dict.fromkeys((image.descriptor, *(manifest.descriptor for manifest in image.manifests))))


def _list_by_tag(registry: Registry, name: str, artifact: Artifact) -> None:
    mine = artifact.referrer
    tag = fallback_tag(artifact.subject)
    for _ in range(_ROUNDS):
        found = registry.get_manifest(name, tag)
        listed = read_index(found.data) if found is not None else ()
        if mine in listed:
            return
        registry.put_manifest(name, tag, Manifest(media.INDEX, write_index((*listed, mine))))
    raise RegistryUnavailableError(
        f"{registry.address}/{name}:{tag} loses what is listed there, since others write it too; try again"
    )


def read_checked(open_blob: BlobOpener, blob: Blob) -> bytes:
    """A small blob's bytes, their digest checked. Raises ImageError."""
    if blob.size > MAX_PROOF:
        raise ImageError(f"blob {blob.digest} of an artifact has {blob.size} bytes; at most {MAX_PROOF} are read")
    with open_blob() as stream:
        data = stream.read(blob.size + 1)
    if digest_of(data) != blob.digest:
        raise ImageError(f"blob {blob.digest} of an artifact has other bytes where it is kept")
    return data
