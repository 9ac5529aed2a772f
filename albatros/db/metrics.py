"""The counts behind /metrics, all of them read in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from albatros.db.models import Attempt, Build, Counter, Job, Publication, StatusReport
from albatros.db.queue import IS_OPEN, IS_QUEUED
from albatros.db.session import now
from albatros.domain.states import OPEN_ATTEMPTS, BuildState, JobState, PublicationState

S = TypeVar("S", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Figures:
    """How a server stands; ages in seconds."""

    builds: Mapping[str, int]
    jobs: Mapping[str, int]
    publications: Mapping[str, int]
    attempts_open: Mapping[str, int]
    statuses_due: int
    statuses_lag: float
    """How long the oldest commit status that is due waits."""
    queue_age: float
    """How long the oldest Job waits that could run now."""
    counters: Mapping[str, int]


def gather(session: Session) -> Figures:
    """Count everything."""
    at = now()
    late, due = session.execute(
        select(func.min(StatusReport.next_try_at), func.count()).where(StatusReport.sent < StatusReport.version)
    ).one()
    oldest = select(Job.created_at).where(IS_QUEUED).order_by(Job.id).limit(1)
    opened = select(Attempt.state, func.count()).where(IS_OPEN).group_by(Attempt.state)
    attempts = dict(session.execute(opened).all())
    return Figures(
        builds=_by_state(session, Build.state, BuildState),
        jobs=_by_state(session, Job.state, JobState),
        publications=_by_state(session, Publication.state, PublicationState),
        attempts_open={state.value: attempts.get(state, 0) for state in OPEN_ATTEMPTS},
        statuses_due=due,
        statuses_lag=_age(late, at),
        queue_age=_age(session.scalar(oldest), at),
        counters=dict(session.execute(select(Counter.name, Counter.value)).all()),
    )


def _by_state(session: Session, column: InstrumentedAttribute[S], states: type[S]) -> dict[str, int]:
    """Every state with its count: one that nothing is in counts nought, so that a graph does not break off."""
    found = dict(session.execute(select(column, func.count()).group_by(column)).all())
    return {state.value: found.get(state, 0) for state in states}


def _age(since: datetime | None, at: datetime) -> float:
    return max(0.0, (at - since).total_seconds()) if since is not None else 0.0
