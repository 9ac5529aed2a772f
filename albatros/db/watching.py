"""Selects behind the live streams: events in the order of their ids, and how far the logs of some Jobs are.

Transactions get their event ids before they commit, so on PostgreSQL a higher id can be seen before a lower one.
Readers stay behind such a gap until it is filled, or so old that whoever held the id has rolled back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from albatros.db.models import Attempt, Event, Job, Repo
from albatros.db.session import now
from albatros.domain.states import JobState, Reason

GAP_PATIENCE = timedelta(seconds=5)
"""After this long an id that did not appear is taken for rolled back."""


@dataclass(frozen=True, slots=True)
class EventRow:
    """An Event with what decides who may see it."""

    id: int
    kind: str
    forge: str
    owner: str
    name: str
    private: bool
    build_id: int
    data: Mapping[str, object]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class LogPosition:
    """How a Job stands, with its newest Attempt and the bytes of log that there are."""

    state: JobState
    reason: Reason | None
    attempt_id: str | None
    attempt: int
    log_bytes: int


def events_after(session: Session, after: int, limit: int, up_to: int | None = None) -> Sequence[EventRow]:
    """The next events after an id, at most up to another, oldest first."""
    query = (
        select(
            Event.id,
            Event.kind,
            Repo.forge,
            Repo.owner,
            Repo.name,
            Repo.private,
            Event.build_id,
            Event.data,
            Event.created_at,
        )
        .join(Repo, Event.repo_id == Repo.id)
        .where(Event.id > after)
    )
    if up_to is not None:
        query = query.where(Event.id <= up_to)
    return [EventRow(*row) for row in session.execute(query.order_by(Event.id).limit(limit))]


def settled(rows: Sequence[EventRow], after: int) -> Sequence[EventRow]:
    """The first of `rows`, which follow id `after`, up to a gap that may yet be filled."""
    for index, row in enumerate(rows):
        if row.id != after + 1 and now() - row.created_at < GAP_PATIENCE:
            return rows[:index]
        after = row.id
    return rows


def newest_event(session: Session) -> int:
    """The id of the newest event; 0 when there is none."""
    return session.scalar(select(func.max(Event.id))) or 0


def log_positions(session: Session, job_ids: Collection[int]) -> Mapping[int, LogPosition]:
    """How far the newest Attempt of each of these Jobs is; a Job that is gone is left out."""
    newest = select(func.max(Attempt.number)).where(Attempt.job_id == Job.id).correlate(Job).scalar_subquery()
    query = (
        select(Job.id, Job.state, Job.reason, Attempt.id, Attempt.number, Attempt.log_bytes)
        .outerjoin(Attempt, (Attempt.job_id == Job.id) & (Attempt.number == newest))
        .where(Job.id.in_(job_ids))
    )
    return {
        job: LogPosition(state, reason, attempt, number or 0, size or 0)
        for job, state, reason, attempt, number, size in session.execute(query)
    }
