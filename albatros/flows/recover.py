"""Recover: what a server does before it takes new work, so that a killed one goes on where it was.

Safe beside other servers: only what this server's own dead process held, or what nobody renews, is taken up.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from albatros.db import events, queue
from albatros.db.models import Attempt, Build, StatusReport
from albatros.db.session import Database, now
from albatros.domain.states import OPEN_BUILDS, AttemptState, Reason
from albatros.flows import settle
from albatros.flows.publish import recover_pushes
from albatros.settings import LimitSettings


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a start found: open Builds, Attempts that run, Attempts that are lost, pushes and reports due again."""

    builds: int
    adopted: int
    lost: int
    pushes: int
    reports: int

    def __str__(self) -> str:
        parts = (
            (self.builds, "open builds go on"),
            (self.adopted, "running attempts adopted"),
            (self.lost, "attempts lost with their runners"),
            (self.pushes, "pushes are due again"),
            (self.reports, "commit statuses are due again"),
        )
        return ", ".join(f"{count} {what}" for count, what in parts if count) or "nothing was left open"


def recover(
    database: Database, limits: LimitSettings, executor_name: str, alive: Collection[str], holder: str
) -> Recovered:
    """Take up what a dead process of this server left; `alive` are the Attempts whose runners still run."""
    pushes = recover_pushes(database, holder)
    with database.write() as session:
        builds = session.scalars(select(Build.id).where(Build.state.in_(OPEN_BUILDS))).all()
        release = update(Build).where(Build.holder == holder).values(holder=None, lease_until=None)
        session.execute(release.execution_options(synchronize_session=False))
        reports = queue.changed(
            session,
            update(StatusReport)
            .where(StatusReport.holder == holder)
            .values(holder=None, lease_until=None)
            .execution_options(synchronize_session=False),
        )
        started = queue.open_attempts(session, (AttemptState.SUBMITTED, AttemptState.CLAIMED))
        mine = [attempt for attempt in started if attempt.executor == executor_name]
        adopted = [attempt for attempt in mine if attempt.id in alive]
        for attempt in mine:
            if attempt.id in alive:
                _adopt(session, attempt, limits)
            else:
                message = "its runner ended while the server was down"
                settle.close(session, attempt, limits, AttemptState.LOST, Reason.NODE_LOST, message)
    return Recovered(len(builds), len(adopted), len(mine) - len(adopted), pushes, reports)


def _adopt(session: Session, attempt: Attempt, limits: LimitSettings) -> None:
    """The runner could not renew its lease while the server was down: it gets a whole one to come back."""
    if attempt.state is AttemptState.CLAIMED:
        attempt.lease_until = now() + timedelta(seconds=limits.lease_seconds)
    events.emit(session, attempt.job.build, "attempt.adopted", attempt=attempt.id, job=attempt.job_id)
