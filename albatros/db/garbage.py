"""What the collector looks for and deletes. Each function is one step of one transaction, bounded by its caller.

A deletion repeats the condition it was chosen by wherever that could have changed since.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, Delete, Update, delete, exists, func, null, or_, select, update
from sqlalchemy.orm import Session

from albatros.db.models import (
    Artifact,
    Attempt,
    Blob,
    Build,
    CachedLayer,
    Delivery,
    Event,
    Image,
    ImageBlob,
    Job,
    LogPiece,
    Publication,
    PullRequest,
    ReadSource,
    RefHead,
)
from albatros.domain.references import Digest
from albatros.domain.retention import PastBuild
from albatros.domain.states import BuildState, PublicationState

_OPEN_PUBLICATIONS = (PublicationState.PENDING, PublicationState.PUSHING)


def past_builds(session: Session, ended_before: datetime) -> list[PastBuild]:
    """Builds that ended before a moment, without those that still publish."""
    publishes = select(Publication.id).join(Image, Image.id == Publication.image_id)
    open_ones = publishes.where(Image.build_id == Build.id, Publication.state.in_(_OPEN_PUBLICATIONS))
    return _past_builds(session, (Build.ended_at < ended_before) & ~exists(open_ones))


def builds_with_artifacts(session: Session, made_before: datetime) -> list[PastBuild]:
    """Ended Builds that have Artifacts from before a moment."""
    artifacts = select(Artifact.id).join(Job, Job.id == Artifact.job_id)
    return _past_builds(session, exists(artifacts.where(Job.build_id == Build.id, Artifact.created_at < made_before)))


def builds_with_image_bytes(session: Session, made_before: datetime) -> list[PastBuild]:
    """Ended Builds that have Images from before a moment, published, whose bytes are still kept."""
    bytes_kept = exists(select(ImageBlob.image_id).where(ImageBlob.image_id == Image.id))
    images = select(Image.id).where(Image.created_at < made_before, bytes_kept, ~_is_publishing())
    return _past_builds(session, exists(images.where(Image.build_id == Build.id)))


def delete_builds(session: Session, ids: Collection[int]) -> int:
    """Delete Builds with everything of them; how many were there."""
    _run(session, update(Build).where(Build.rerun_of.in_(ids)).values(rerun_of=None))
    return _run(session, delete(Build).where(Build.id.in_(ids)))


def delete_artifacts(session: Session, build_ids: Collection[int]) -> int:
    """Delete the Artifacts of Builds; how many there were."""
    jobs = select(Job.id).where(Job.build_id.in_(build_ids))
    return _run(session, delete(Artifact).where(Artifact.job_id.in_(jobs)))


def forget_image_bytes(session: Session, build_ids: Collection[int]) -> int:
    """Let the bytes of published Images go, while the Images stay as a record; how many Images."""
    published = select(Image.id).where(Image.build_id.in_(build_ids), ~_is_publishing())
    images = session.scalars(published).all()
    _run(session, delete(ImageBlob).where(ImageBlob.image_id.in_(images)))
    return len(images)


def attempts_with_logs(session: Session, ended_before: datetime) -> Sequence[str]:
    """Attempts of ended Builds that ended before a moment and still have a log or a result."""
    pieces = exists(select(LogPiece.seq).where(LogPiece.attempt_id == Attempt.id))
    statement = (
        select(Attempt.id)
        .join(Job, Job.id == Attempt.job_id)
        .join(Build, Build.id == Job.build_id)
        .where(Attempt.ended_at < ended_before, Build.ended_at.is_not(None))
        .where(or_(Attempt.log_digest.is_not(None), Attempt.result.is_not(None), pieces))
    )
    return session.scalars(statement).all()


def forget_logs(session: Session, attempt_ids: Collection[str]) -> int:
    """Let the logs and results of closed Attempts go; their length in bytes stays as a record. How many Attempts."""
    _run(session, delete(LogPiece).where(LogPiece.attempt_id.in_(attempt_ids)))
    return _run(session, update(Attempt).where(Attempt.id.in_(attempt_ids)).values(log_digest=None, result=null()))


def forget_bodies(session: Session, received_before: datetime, limit: int) -> int:
    """Drop the bodies of up to `limit` Deliveries; how many had one."""
    old = select(Delivery.id).where(Delivery.received_at < received_before, Delivery.body.is_not(None)).limit(limit)
    return _run(session, update(Delivery).where(Delivery.id.in_(old)).values(body=None))


def delete_deliveries(session: Session, received_before: datetime, limit: int) -> int:
    """Delete up to `limit` Deliveries that no Build names; how many there were."""
    made_a_build = exists(select(Build.id).where(Build.delivery_id == Delivery.id))
    old = select(Delivery.id).where(Delivery.received_at < received_before, ~made_a_build).limit(limit)
    return _run(session, delete(Delivery).where(Delivery.id.in_(old)))


def delete_events(session: Session, made_before: datetime, limit: int) -> int:
    """Delete up to `limit` Events; how many there were."""
    old = select(Event.id).where(Event.created_at < made_before).limit(limit)
    return _run(session, delete(Event).where(Event.id.in_(old)))


def unused_blobs(session: Session, touched_before: datetime, after: str, limit: int) -> Sequence[str]:
    """Up to `limit` digests behind `after`, in order, that nothing needs and nobody touched since a moment."""
    statement = select(Blob.digest).where(_is_unused(touched_before), Blob.digest > after)
    return session.scalars(statement.order_by(Blob.digest).limit(limit)).all()


def delete_unused_blobs(
    session: Session, digests: Collection[str], touched_before: datetime
) -> Sequence[tuple[str, int]]:
    """Delete the rows of those blobs that are still unused, and what is remembered of them: digest and size of each."""
    statement = delete(Blob).where(Blob.digest.in_(digests), _is_unused(touched_before))
    gone = session.execute(statement.returning(Blob.digest, Blob.size)).all()
    digests = [digest for digest, _ in gone]
    _run(session, delete(CachedLayer).where(CachedLayer.digest.in_(digests)))
    _run(session, delete(ReadSource).where(ReadSource.digest.in_(digests)))
    return gone


def with_row(session: Session, digests: Collection[Digest]) -> set[str]:
    """Those of `digests` that have a row."""
    return set(session.scalars(select(Blob.digest).where(Blob.digest.in_(digests))))


def _is_unused(touched_before: datetime) -> ColumnElement[bool]:
    """A cached layer alone keeps no blob: compressing it again costs less than keeping it for ever."""
    unused: ColumnElement[bool] = Blob.touched_at < touched_before
    for user in (Artifact.digest, Artifact.closure_digest, ImageBlob.digest, Attempt.log_digest):
        unused &= ~exists(select(1).where(user == Blob.digest))
    return unused


def _is_publishing() -> ColumnElement[bool]:
    of_image = select(Publication.id).where(Publication.image_id == Image.id)
    return exists(of_image.where(Publication.state.in_(_OPEN_PUBLICATIONS)))


def _past_builds(session: Session, condition: ColumnElement[bool]) -> list[PastBuild]:
    of_ref = (Build.repo_id, Build.ref, Build.flavor)
    green = func.max(Build.id).filter(Build.state == BuildState.SUCCEEDED)
    ranked = select(
        Build.id,
        (func.row_number().over(partition_by=of_ref, order_by=Build.id.desc()) - 1).label("newer"),
        green.over(partition_by=of_ref).label("newest_green"),
    ).subquery()
    same_ref = (RefHead.repo_id == Build.repo_id) & (RefHead.ref == Build.ref) & (RefHead.flavor == Build.flavor)
    same_pull = (PullRequest.repo_id == Build.repo_id) & (PullRequest.ref == Build.ref)
    statement = (
        select(
            Build.id,
            Build.ended_at,
            ranked.c.newer,
            ranked.c.newest_green,
            or_(
                exists(select(RefHead.id).where(same_ref, RefHead.commit.is_(None))),
                exists(select(PullRequest.id).where(same_pull, PullRequest.open.is_(False))),
            ),
        )
        .join(ranked, ranked.c.id == Build.id)
        .where(Build.ended_at.is_not(None), condition)
    )
    return [
        PastBuild(build_id, ended_at, newer, newest_green == build_id, not ref_deleted)
        for build_id, ended_at, newer, newest_green, ref_deleted in session.execute(statement)
    ]


def _run(session: Session, statement: Delete | Update) -> int:
    """Run a statement that changes rows nobody holds in this session; how many."""
    result = session.execute(statement.execution_options(synchronize_session=False))
    return cast("CursorResult[Any]", result).rowcount
