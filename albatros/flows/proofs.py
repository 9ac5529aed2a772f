"""Proofs of a Build's images: bills of materials and provenance, made with the Image and kept beside it.

They follow from rows and bytes alone, so assembling again makes the same ones. Signatures name the registry, and are
made when the Image is published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from albatros.db.models import Artifact, Build
from albatros.domain.platforms import Platform
from albatros.domain.references import Blob, parse_digest
from albatros.errors import StoreError
from albatros.images.components import Component, from_closure, from_layers
from albatros.images.model import Image, PlatformManifest, annotations_of, created_of
from albatros.images.provenance import BuildRecord, Derivation, make_provenance
from albatros.images.referrers import MAX_PROOF, keep_artifact
from albatros.images.referrers import Artifact as Proof
from albatros.images.sbom import make_sboms
from albatros.images.signing import Claims
from albatros.settings import Settings, SigningSettings
from albatros.store.base import BlobStore

if TYPE_CHECKING:
    from albatros.images.keys import SigningKey


@dataclass(frozen=True, slots=True)
class BuiltFrom:
    """What one platform of an Image was made of."""

    attribute: str
    artifact: Artifact


@dataclass(frozen=True, slots=True)
class KeptProofs:
    """Manifests of proofs by digest, and every blob that they need, themselves included."""

    digests: tuple[str, ...]
    blobs: tuple[Blob, ...]


def signing_key(settings: SigningSettings) -> SigningKey | None:
    """The key that the settings name. Raises ConfigError for one that cannot be used."""
    pem = settings.key.get_secret_value()
    if not pem:
        return None
    from albatros.images.keys import SigningKey  # noqa: PLC0415 - its library takes 7 MiB, and few servers have a key

    return SigningKey.parse(pem.encode(), settings.passphrase.get_secret_value(), "signing.key")


def claims_of(build: Build, image: Image, name: str) -> Claims:
    """What a signature says of a Build's Image, whose full name is `name`."""
    return Claims(name, _origin(build, image), build.commit)


class ProofMaker:
    """Makes and keeps what `[signing]` asks for."""

    def __init__(self, store: BlobStore, settings: Settings, key: SigningKey | None) -> None:
        self._store = store
        self._settings = settings
        self._key = key

    def make(self, build: Build, name: str, image: Image, parts: Mapping[Platform, BuiltFrom]) -> KeptProofs:
        """The proofs of one Image; without `parts` a script made it. Raises ImageError, TooLargeError, StoreError."""
        proofs: list[Proof] = []
        if self._settings.signing.sbom:
            components = {m.platform: self._components(m, parts.get(m.platform)) for m in image.manifests}
            proofs += make_sboms(image, name, created_of(image), components)
        if self._settings.signing.provenance:
            proofs += make_provenance(image, name, self._record(build, image, parts), self._key)
        blobs = [blob for proof in proofs for blob in keep_artifact(proof, self._store)]
        return KeptProofs(tuple(proof.digest for proof in proofs), tuple(dict.fromkeys(blobs)))

    def _components(self, manifest: PlatformManifest, part: BuiltFrom | None) -> tuple[Component, ...]:
        """The closure but for the output itself: that of an archive is the archive alone, and its layers say more."""
        in_layers = partial(from_layers, self._store, manifest, self._settings.limits.output_bytes)
        if part is None:
            return in_layers()
        closure = self._closure(part.artifact)
        output = ("nix:store-path", part.artifact.store_path)
        rest = tuple(component for component in closure if output not in component.properties)
        return rest or in_layers() or closure

    def _closure(self, artifact: Artifact) -> tuple[Component, ...]:
        if artifact.closure_digest is None:
            return ()
        with self._store.open(parse_digest(artifact.closure_digest)) as stream:
            data = stream.read(MAX_PROOF + 1)
        if len(data) > MAX_PROOF:
            raise StoreError(f"closure {artifact.closure_digest} has more than {MAX_PROOF} bytes")
        return from_closure(data)

    def _record(self, build: Build, image: Image, parts: Mapping[Platform, BuiltFrom]) -> BuildRecord:
        server = self._settings.server
        url = (server.url or f"http://{server.listen}").rstrip("/")
        return BuildRecord(
            source=_origin(build, image),
            ref=build.ref,
            commit=build.commit,
            builder=url,
            invocation=f"{url}/builds/{build.id}",
            derivations={
                platform: Derivation(part.attribute, part.artifact.job.drv_path or "")
                for platform, part in parts.items()
            },
        )


def _origin(build: Build, image: Image) -> str:
    """The repo's address as the image says it; `FORGE/OWNER/NAME` for bare repos, which have none."""
    source = annotations_of(image).get("org.opencontainers.image.source")
    return source or f"{build.repo.forge}/{build.repo.full_name}"
