"""Images that scripts ask for, as rows: kept when asked, claimed by a publisher, and ended once."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from albatros.db.models import Image, ImageRequest, Job, Publication
from albatros.db.queue import claim_name
from albatros.db.session import now
from albatros.db.upsert import insert
from albatros.domain.states import JobState, PublicationState


def put(session: Session, job_id: int, key: str, values: dict[str, object]) -> ImageRequest:
    """Keep a request; the same one again is the one that is there."""
    row = insert(session, ImageRequest).values(job_id=job_id, key=key, created_at=now(), **values)
    session.execute(row.on_conflict_do_nothing(index_elements=["job_id", "key"]))
    return session.scalars(_of(job_id, key)).one()


def find(session: Session, job_id: int, key: str) -> ImageRequest | None:
    """A request that was kept."""
    return session.scalars(_of(job_id, key)).first()


def _of(job_id: int, key: str) -> Select[ImageRequest]:
    return select(ImageRequest).where(ImageRequest.job_id == job_id, ImageRequest.key == key)


def count(session: Session, job_id: int) -> int:
    """How many requests a Job has made."""
    return session.scalar(select(func.count()).select_from(ImageRequest).where(ImageRequest.job_id == job_id)) or 0


def claim(session: Session, holder: str, lease: timedelta) -> ImageRequest | None:
    """Hold the oldest request that is due, of a Job that runs; its `holder` names this claim."""
    at = now()
    due = (
        select(ImageRequest)
        .join(Job, Job.id == ImageRequest.job_id)
        .where(ImageRequest.ended_at.is_(None), Job.state == JobState.RUNNING)
        .where(or_(ImageRequest.lease_until.is_(None), ImageRequest.lease_until < at))
        .order_by(ImageRequest.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=ImageRequest)
    )
    row = session.scalars(due).first()
    if row is not None:
        row.holder, row.lease_until = claim_name(holder), at + lease
    return row


def held(session: Session, request_id: int, holder: str | None) -> ImageRequest | None:
    """A request's row, held for this transaction, while this claim has it."""
    statement = select(ImageRequest).where(ImageRequest.id == request_id).with_for_update(of=ImageRequest)
    row = session.scalars(statement.execution_options(populate_existing=True)).first()
    return row if row is not None and row.ended_at is None and row.holder == holder else None


def end(row: ImageRequest, message: str, image: Image | None = None) -> None:
    """End a request: with its Image, or with why there is none."""
    row.message, row.image_id, row.ended_at = message, image.id if image is not None else None, now()
    row.holder, row.lease_until = None, None


def postpone(row: ImageRequest, message: str, until: datetime) -> None:
    """Let go of a request until a moment."""
    row.message, row.holder, row.lease_until = message, None, until


def publication_of(session: Session, row: ImageRequest) -> Publication | None:
    """Where the Image of a request is, or goes."""
    same = (Publication.image_id == row.image_id, Publication.registry_name == row.registry_name)
    return session.scalars(select(Publication).where(*same, Publication.tag == row.tag)).first()


def images_named(session: Session, build_id: int, name: str) -> Image | None:
    """The Image that a Build has under a name."""
    return session.scalars(select(Image).where(Image.build_id == build_id, Image.name == name)).first()


def is_pushing(session: Session, image: Image) -> bool:
    """Whether an Image is being pushed right now."""
    same = Publication.image_id == image.id, Publication.state == PublicationState.PUSHING
    pushing = select(Publication.id).where(*same)
    return session.scalars(pushing.limit(1)).first() is not None
