"""Signatures of images that cosign reads: the signature tag `sha256-HEX.sig`, and a sigstore bundle as referrer.

Both are made for the index and for every platform's manifest, and both bind the image's name, and repo and commit when
they are known: otherwise an image signed for one name could be passed off as another's.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from albatros.domain import media
from albatros.domain.references import Blob, Digest, digest_of
from albatros.domain.referrers import fallback_tag
from albatros.errors import ImageError, RegistryUnavailableError
from albatros.images.bundle import make_proof, make_statement
from albatros.images.model import Descriptor, Image, JsonObject, canonical_json, parse_json_object
from albatros.images.referrers import Artifact, Proof, push_blobs, read_checked, subjects
from albatros.registries.base import BlobOpener, Manifest, Registry

if TYPE_CHECKING:
    from albatros.images.keys import SigningKey

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
SIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
PAYLOAD_TYPE = "cosign container image signature"
_MAX_SIGNATURES = 100
_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Claims:
    """What a signature says of an image beside its digest: its name as `identity` gives it, and where it came from."""

    name: str
    repo: str = ""
    commit: str = ""

    def origin(self) -> dict[str, object]:
        """Repo and commit, as far as they are known."""
        return {key: value for key, value in (("repo", self.repo), ("commit", self.commit)) if value}


@dataclass(frozen=True, slots=True)
class PayloadSignature:
    """One signed payload of a signature tag; the annotations hold the signature."""

    payload: bytes = field(repr=False)
    annotations: Mapping[str, str]

    @property
    def descriptor(self) -> Descriptor:
        """The payload's descriptor, without annotations."""
        return Descriptor(SIMPLE_SIGNING, digest_of(self.payload), len(self.payload))

    @property
    def signature(self) -> bytes:
        """The signature itself; nothing for one that cannot be read."""
        try:
            return base64.b64decode(self.annotations.get(SIGNATURE_ANNOTATION, ""), validate=True)
        except ValueError:
            return b""


@dataclass(frozen=True, slots=True)
class SignatureTag:
    """What is added to the signature tag of one manifest."""

    subject: Digest
    signatures: tuple[PayloadSignature, ...]

    def digests(self) -> Iterable[Digest]:
        """Everything that it is made of."""
        return (*(signature.descriptor.digest for signature in self.signatures), digest_of(_write(self.signatures)))

    def push(self, registry: Registry, name: str) -> None:
        """Add the signatures to the tag, beside those of others, until they are seen there."""
        tag = signature_tag(self.subject)
        for _ in range(_ROUNDS):
            there = read_signatures(registry, name, self.subject)
            missing = [signature for signature in self.signatures if signature not in there]
            if not missing:
                return
            every = (*there, *missing)
            if len(every) > _MAX_SIGNATURES:
                raise ImageError(f"{registry.address}/{name}:{tag} has {len(there)} signatures; remove old ones")
            data = _write(every)
            push_blobs(registry, name, dict(_blobs(every)))
            registry.put_manifest(name, tag, Manifest(media.MANIFEST, data))
        raise RegistryUnavailableError(f"{registry.address}/{name}:{tag} is written by others all the time; try again")


def identity(address: str, name: str) -> str:
    """The name that a signature binds: `HOST/PREFIX/NAME`; `NAME` alone in a static registry, which knows no host."""
    return name if ":/" in address else f"{address}/{name}"


def signature_tag(subject: Digest) -> str:
    """Where cosign looks for the signatures of a manifest."""
    return f"{fallback_tag(subject)}.sig"


def sign_image(image: Image, key: SigningKey, claims: Claims) -> list[Proof]:
    """Sign index and manifests, each in both ways."""
    return [proof for subject in subjects(image) for proof in _sign(subject, key, claims)]


def _sign(subject: Descriptor, key: SigningKey, claims: Claims) -> tuple[SignatureTag, Artifact]:
    value: JsonObject = {
        "critical": {
            "identity": {"docker-reference": claims.name},
            "image": {"docker-manifest-digest": subject.digest},
            "type": PAYLOAD_TYPE,
        },
        "optional": claims.origin() or None,
    }
    payload = canonical_json(value, "a signature")
    encoded = base64.b64encode(key.sign(payload)).decode()
    signature = PayloadSignature(payload, {SIGNATURE_ANNOTATION: encoded})
    statement = make_statement(subject.digest, claims.name, SIGN_PREDICATE, claims.origin())
    return SignatureTag(subject.digest, (signature,)), make_proof(subject, statement, SIGN_PREDICATE, key)


def read_signatures(registry: Registry, name: str, subject: Digest) -> tuple[PayloadSignature, ...]:
    """The signatures under a manifest's signature tag. Raises ImageError for a tag that cannot be read."""
    found = registry.get_manifest(name, signature_tag(subject))
    if found is None:
        return ()
    layers = parse_json_object(found.data, "a signature tag").get("layers")
    if not isinstance(layers, list) or len(layers) > _MAX_SIGNATURES:
        raise ImageError(f"{signature_tag(subject)} holds no list of at most {_MAX_SIGNATURES} signatures")
    return tuple(_read_signature(registry, name, layer) for layer in layers)


def _read_signature(registry: Registry, name: str, layer: object) -> PayloadSignature:
    descriptor = Descriptor.from_json(layer, "a signature")
    annotations = layer.get("annotations") if isinstance(layer, dict) else None
    texts = annotations.items() if isinstance(annotations, dict) else ()
    payload = read_checked(partial(registry.open_blob, name, descriptor.blob), descriptor.blob)
    return PayloadSignature(payload, {key: text for key, text in texts if isinstance(text, str)})


def _config(signatures: Iterable[PayloadSignature]) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [signature.descriptor.digest for signature in signatures]}
    return canonical_json({"architecture": "", "os": "", "config": {}, "rootfs": rootfs}, "a signature's config")


def _write(signatures: Iterable[PayloadSignature]) -> bytes:
    every = tuple(signatures)
    config = _config(every)
    value: JsonObject = {
        "schemaVersion": 2,
        "mediaType": media.MANIFEST,
        "config": Descriptor(media.CONFIG, digest_of(config), len(config)).as_json(),
        "layers": [item.descriptor.as_json() | {"annotations": dict(item.annotations)} for item in every],
    }
    return canonical_json(value, "a signature tag")


def _blobs(signatures: tuple[PayloadSignature, ...]) -> Iterable[tuple[Blob, BlobOpener]]:
    for data in (_config(signatures), *(signature.payload for signature in signatures)):
        yield Blob(digest_of(data), len(data)), partial(io.BytesIO, data)
