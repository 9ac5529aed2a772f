"""Rows become bodies: the few that are more than their columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from albatros.db.models import Artifact, Attempt, Build, Image, Publication, Repo, StatusReport
from albatros.db.queries import DeliveryRow
from albatros.domain.states import is_end
from albatros.flows.allowed import is_allowed
from albatros.http.placement import placement_of
from albatros.http.schemas import (
    ArtifactOut,
    AttemptOut,
    BuildSummary,
    DeliveryOut,
    ImageOut,
    PlacementOut,
    PublicationOut,
    RepoName,
    RepoOut,
    StatusOut,
)
from albatros.settings import Settings


def repo_out(settings: Settings, repo: Repo, newest: Build | None) -> RepoOut:
    """A Repo with its newest Build."""
    return RepoOut(
        forge=repo.forge,
        owner=repo.owner,
        name=repo.name,
        private=repo.private,
        default_branch=repo.default_branch,
        allowed=is_allowed(settings, repo),
        created_at=repo.created_at,
        newest_build=BuildSummary.model_validate(newest) if newest is not None else None,
    )


def artifact_out(artifact: Artifact) -> ArtifactOut:
    """An Artifact with the name that a download gets."""
    return ArtifactOut(
        id=artifact.id,
        job_id=artifact.job_id,
        output=artifact.output,
        path=artifact.path,
        file_name=file_name(artifact),
        kind=artifact.kind,
        digest=artifact.digest,
        size=artifact.size,
        executable=artifact.executable,
        store_path=artifact.store_path,
        nar_hash=artifact.nar_hash,
        created_at=artifact.created_at,
    )


def attempt_out(attempt: Attempt) -> AttemptOut:
    """An Attempt with its place."""
    place = placement_of(attempt)
    return AttemptOut(
        id=attempt.id,
        number=attempt.number,
        state=attempt.state,
        reason=attempt.reason,
        message=attempt.message,
        executor=attempt.executor,
        host=attempt.host,
        allocation=attempt.allocation,
        placement=PlacementOut.model_validate(place) if place is not None else None,
        nix_version=attempt.nix_version,
        log_bytes=attempt.log_bytes,
        created_at=attempt.created_at,
        claimed_at=attempt.claimed_at,
        ended_at=attempt.ended_at,
    )


def file_name(artifact: Artifact) -> str:
    """The last part of its path; for a whole output the name of its store path, without the hash in front."""
    whole = artifact.store_path.rpartition("/")[2].partition("-")[2]
    return artifact.path.rpartition("/")[2] or whole or artifact.output


def images_out(images: Sequence[Image], publications: Sequence[Publication]) -> list[ImageOut]:
    """Images with their Publications."""
    by_image: Mapping[int, list[PublicationOut]] = {image.id: [] for image in images}
    for publication in publications:
        by_image[publication.image_id].append(_publication_out(publication))
    return [
        ImageOut(
            id=image.id,
            build_id=image.build_id,
            name=image.name,
            digest=image.digest,
            size=image.size,
            platforms=image.platforms,
            created_at=image.created_at,
            publications=by_image[image.id],
        )
        for image in images
    ]


def _publication_out(row: Publication) -> PublicationOut:
    next_try: datetime | None = None if is_end(row.state) else row.next_try_at
    return PublicationOut(
        id=row.id,
        registry=row.registry_name,
        name=row.name,
        tag=row.tag,
        required=row.required,
        state=row.state,
        reason=row.reason,
        message=row.message,
        tries=row.tries,
        next_try_at=next_try,
        bytes_sent=row.bytes_sent,
        bytes_skipped=row.bytes_skipped,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )


def status_out(row: StatusReport) -> StatusOut:
    """A commit status."""
    return StatusOut(
        context=row.context,
        state=row.state,
        description=row.description,
        delivered=row.sent == row.version and not row.error,
        tries=row.tries,
        error=row.error,
    )


def delivery_out(row: DeliveryRow) -> DeliveryOut:
    """A Delivery without its body, which may hold anything."""
    return DeliveryOut(
        id=row.delivery.id,
        forge=row.delivery.forge,
        delivery_id=row.delivery.delivery_id,
        event=row.delivery.event,
        repo=RepoName.model_validate(row.repo) if row.repo is not None else None,
        reason=row.delivery.reason,
        builds=list(row.builds),
        received_at=row.delivery.received_at,
    )
