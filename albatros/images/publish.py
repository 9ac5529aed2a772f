"""Publishing one Image to one Registry: blobs, platform manifests, index, a check of it all, proofs, and the tags last.

Knows no database: whether a tag may still move, a gate says; what happened, an observer hears. Nothing is ever deleted,
and running it again finishes what was begun. Killed at any moment, a tag still names a whole image.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from albatros.domain.platforms import Platform
from albatros.domain.references import Blob, Digest, check_name, check_tag, digest_of
from albatros.errors import RegistryError
from albatros.images.base import BlobSource
from albatros.images.model import Image
from albatros.images.referrers import Proof
from albatros.registries.base import Manifest, Registry

PARALLEL_BLOBS = 4
"""Blobs sent to one registry at once."""


@dataclass(frozen=True, slots=True)
class BlobSkipped:
    """The registry has this blob already."""

    blob: Blob


@dataclass(frozen=True, slots=True)
class BlobMounted:
    """The registry took this blob from another of its names."""

    blob: Blob


@dataclass(frozen=True, slots=True)
class BlobUploaded:
    """This blob was sent and taken."""

    blob: Blob


@dataclass(frozen=True, slots=True)
class ManifestPut:
    """A platform's manifest is there under its digest."""

    platform: Platform
    digest: Digest


@dataclass(frozen=True, slots=True)
class IndexPut:
    """The index is there under its digest, and everything below it was seen."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class ProofPut:
    """A signature or another proof of this manifest or index is there."""

    subject: Digest


@dataclass(frozen=True, slots=True)
class TagMoved:
    """The tag names the index now."""

    tag: str


@dataclass(frozen=True, slots=True)
class TagSuperseded:
    """The gate kept this tag where it is."""

    tag: str


PublishEvent = BlobSkipped | BlobMounted | BlobUploaded | ManifestPut | IndexPut | ProofPut | TagMoved | TagSuperseded
TagGate = Callable[[str], bool]
"""Asked right before a tag moves; False leaves it and reports it as superseded."""
Observer = Callable[[PublishEvent], None]
"""Hears every event, one at a time though from several threads; what it raises ends the publishing."""


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What publishing did; sizes in bytes of the image's blobs, manifests and proofs not counted."""

    digest: Digest
    bytes_sent: int
    bytes_skipped: int
    tags_moved: tuple[str, ...]
    tags_superseded: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DryRun:
    """What publishing would do; sizes in bytes of blobs."""

    bytes_to_send: int
    bytes_there: int


def always(_tag: str) -> bool:
    """The gate of a command without a database: every tag may move."""
    return True


def ignore(_event: PublishEvent) -> None:
    """The observer that listens to nothing."""


def publish(  # noqa: PLR0913 - keywords with defaults, each a concern of its own
    image: Image,
    blobs: BlobSource,
    registry: Registry,
    name: str,
    tags: Sequence[str],
    *,
    proofs: Sequence[Proof] = (),
    mount_from: Sequence[str] = (),
    gate: TagGate = always,
    observe: Observer = ignore,
) -> PublishReport:
    """Bring `image` to `registry` under `name` and move `tags` to it, all of them last; no tags: by digest only.

    `mount_from` are names of the same registry whose blobs may be taken from there: what is known of them goes to
    whoever may publish this image, so they have to be of the same owner.
    `proofs` of its index and manifests are there before a tag moves.
    Raises UsageError for a name or tag that no registry takes, RegistryError or RegistryUnavailableError from the
    registry, NotFoundError or StoreError when a blob cannot be read.
    """
    check_name(name)
    for tag in tags:
        check_tag(tag)
    run = _Run(image, blobs, registry, name, observe, tuple(other for other in mount_from if other != name))
    every = [blob.digest for blob in image.all_blobs()] + [digest for proof in proofs for digest in proof.digests()]
    with registry.hold(name, every):
        sent = run.send_blobs()
        run.put_manifests()
        run.put_proofs(proofs)
        moved = [tag for tag in dict.fromkeys(tags) if run.move_tag(tag, gate)]
    total = sum(blob.size for blob in image.content_blobs())
    superseded = tuple(tag for tag in dict.fromkeys(tags) if tag not in moved)
    return PublishReport(image.digest, sent, total - sent, tuple(moved), superseded)


def dry_run(image: Image, registry: Registry, name: str) -> DryRun:
    """Ask which blobs are there, and change nothing. Raises what `publish` does."""
    check_name(name)
    every = image.content_blobs()
    there = sum(blob.size for blob in every if registry.blob_size(name, blob.digest) == blob.size)
    return DryRun(sum(blob.size for blob in every) - there, there)


class _Run:
    def __init__(
        self,
        image: Image,
        blobs: BlobSource,
        registry: Registry,
        name: str,
        observe: Observer,
        mount_from: tuple[str, ...],
    ) -> None:
        self._image = image
        self._blobs = blobs
        self._registry = registry
        self._name = name
        self._observe = observe
        self._mount_from = mount_from
        self._one_at_a_time = threading.Lock()
        self._failed = threading.Event()

    def send_blobs(self) -> int:
        """Send what is missing; the bytes sent. The first failure ends it, after the blobs under way."""
        with ThreadPoolExecutor(PARALLEL_BLOBS, thread_name_prefix="publish") as pool:
            futures = [pool.submit(self._send_blob, blob) for blob in self._image.content_blobs()]
        for future in futures:
            if error := future.exception():
                raise error
        return sum(future.result() for future in futures)

    def _send_blob(self, blob: Blob) -> int:
        if self._failed.is_set():
            return 0
        try:
            present = self._registry.blob_size(self._name, blob.digest)
            if present == blob.size:
                self._tell(BlobSkipped(blob))
                return 0
            opened = partial(self._blobs.open, blob.digest)
            if not self._registry.put_blob(self._name, blob, opened, self._mount_from):
                self._tell(BlobMounted(blob))
                return 0
            self._tell(BlobUploaded(blob))
        except BaseException:
            self._failed.set()
            raise
        return blob.size

    def put_manifests(self) -> None:
        """Platform manifests, the index by digest, and a look at each of them through the registry's own eyes."""
        for manifest in self._image.manifests:
            self._put(manifest.descriptor.digest, Manifest(manifest.descriptor.media_type, manifest.manifest_bytes))
            self._tell(ManifestPut(manifest.platform, manifest.descriptor.digest))
        for manifest in self._image.manifests:
            self._verify(manifest.descriptor.digest)
        self._put(self._image.digest, self._index)
        self._verify(self._image.digest)
        self._tell(IndexPut(self._image.digest))

    def put_proofs(self, proofs: Sequence[Proof]) -> None:
        """Signatures and other proofs, one after the other, since some share a tag that is read and written."""
        for proof in proofs:
            proof.push(self._registry, self._name)
            self._tell(ProofPut(proof.subject))

    def move_tag(self, tag: str, gate: TagGate) -> bool:
        """Move one tag if the gate lets it."""
        if not gate(tag):
            self._tell(TagSuperseded(tag))
            return False
        self._put(tag, self._index)
        self._tell(TagMoved(tag))
        return True

    @property
    def _index(self) -> Manifest:
        return Manifest(self._image.descriptor.media_type, self._image.index_bytes)

    def _put(self, reference: str, manifest: Manifest) -> None:
        self._registry.put_manifest(self._name, reference, manifest)

    def _verify(self, digest: Digest) -> None:
        found = self._registry.get_manifest(self._name, digest)
        if found is None or digest_of(found.data) != digest:
            seen = "does not give it back" if found is None else f"gives back {digest_of(found.data)}"
            raise RegistryError(
                f"{self._registry.address} took manifest {digest} of {self._name} and {seen}; no tag was moved"
            )

    def _tell(self, event: PublishEvent) -> None:
        with self._one_at_a_time:
            self._observe(event)
