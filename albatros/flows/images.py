"""What every Image of a Build has in common, whether its flake made it or its script asked for it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from albatros.db import blobs
from albatros.db.layers import RepoLayerCache
from albatros.db.models import Build, Image, ImageBlob, ImageProof, Publication
from albatros.db.session import Database, now
from albatros.db.sources import RepoSourceMemory
from albatros.domain.publishing import Destination, Origin, RegistryRule
from albatros.domain.states import PublicationState
from albatros.flows.proofs import KeptProofs
from albatros.images.assemble import AssembleOptions
from albatros.images.base import LayerCache, NullLayerCache, NullSourceMemory, SourceMemory
from albatros.images.model import Image as OciImage
from albatros.settings import RegistrySettings, Settings


def origin_of(build: Build) -> Origin:
    """A Build as far as publishing asks."""
    repo = build.repo
    return Origin(
        repo.owner,
        repo.name,
        repo.private,
        build.ref,
        build.commit,
        repo.default_branch,
        build.trigger,
        build.trusted,
        is_merge=build.merge_into is not None,
    )


def rule_of(item: RegistrySettings) -> RegistryRule:
    """What a registry's settings say of who may publish."""
    return RegistryRule(item.name, item.public, item.names, item.repos, item.refs, item.required)


def options_of(settings: Settings, build: Build) -> AssembleOptions:
    """How the images of a Build are made: its commit's time and annotations."""
    created = datetime.fromtimestamp(build.commit_time, UTC) if build.commit_time is not None else None
    annotations = {"revision": build.commit} if build.merge_into is None else {}
    forge = next((forge for forge in settings.forges if forge.name == build.repo.forge), None)
    if forge is not None and forge.url.startswith(("http://", "https://")):
        annotations["source"] = f"{forge.url.rstrip('/')}/{build.repo.full_name}"
    if build.ref.startswith("refs/tags/"):
        annotations["version"] = build.ref.removeprefix("refs/tags/")
    return AssembleOptions(annotations=annotations, created=created, max_size=settings.limits.output_bytes)


def remembered(database: Database, build: Build) -> tuple[LayerCache, SourceMemory]:
    """What the Repo's earlier Builds found out; a stranger's Build neither adds to it nor learns from it."""
    if not build.trusted:
        return NullLayerCache(), NullSourceMemory()
    return RepoLayerCache(database, build.repo_id), RepoSourceMemory(database, build.repo_id)


def add_image(session: Session, build: Build, name: str, image: OciImage, proofs: KeptProofs) -> Image:
    """The row of an Image whose blobs are in the store, with what keeps them there."""
    every = [*image.all_blobs(), *proofs.blobs]
    row = Image(
        build_id=build.id,
        name=name,
        digest=str(image.digest),
        size=sum(blob.size for blob in image.all_blobs()),
        platforms=[str(platform) for platform in image.platforms],
        created_at=now(),
    )
    session.add(row)
    for blob in sorted(set(every), key=lambda blob: blob.digest):
        blobs.record(session, build.repo_id, blob.digest, blob.size)
    session.flush()
    session.add_all(ImageBlob(image_id=row.id, digest=str(blob.digest)) for blob in dict.fromkeys(every))
    session.add_all(ImageProof(image_id=row.id, digest=digest) for digest in proofs.digests)
    return row


def add_publications(session: Session, image: Image, destinations: Iterable[Destination]) -> None:
    """What is to be published of an Image: one row for each destination and tag."""
    session.add_all(
        Publication(
            image_id=image.id,
            registry_name=destination.registry,
            name=destination.name,
            tag=tag,
            required=destination.required,
            state=PublicationState.PENDING,
            next_try_at=now(),
            created_at=now(),
        )
        for destination in destinations
        for tag in destination.tags
    )
    session.flush()
