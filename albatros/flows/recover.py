"""Recover: what a server does before it takes new work, so that a killed one goes on where it was.

Safe beside other servers: only what this server's own dead process held, or what nobody renews, is taken up.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select, update

from albatros.db import events, queue
from albatros.db.models import Build, StatusReport
from albatros.db.session import Database, now
from albatros.domain.states import OPEN_ATTEMPTS, OPEN_BUILDS, AttemptState, Reason
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
    database: Database, limits: LimitSettings, executor_name: str, alive: Collection[str] | None, holder: str
) -> Recovered:
    """Take up what a dead process of this server left; `alive` are the Attempts whose runners still run.

    None: the executor is shared and will tell of those that ended, so all are taken for running.
    """
    pushes = recover_pushes(database, holder)
    with database.write() as session:
        builds = session.scalars(select(Build.id).where(Build.state.in_(OPEN_BUILDS))).all()
        held = update(Build).where(queue.held_by(Build.holder, holder))
        queue.changed(session, held.values(holder=None, lease_until=None))
        reports = update(StatusReport).where(queue.held_by(StatusReport.holder, holder))
        reports_again = queue.changed(session, reports.values(holder=None, lease_until=None))
        started = queue.open_attempts(session, (AttemptState.SUBMITTED, AttemptState.CLAIMED))
    mine = [attempt.id for attempt in started if attempt.executor == executor_name]
    running = set(mine) if alive is None else set(mine) & set(alive)
    for attempt_id in mine:
        _take_up(database, limits, attempt_id, runs=attempt_id in running)
    adopted = len(running)
    return Recovered(len(builds), adopted, len(mine) - adopted, pushes, reports_again)


def _take_up(database: Database, limits: LimitSettings, attempt_id: str, *, runs: bool) -> None:
    with database.write() as session:
        attempt = queue.lock_attempt(session, attempt_id)
        if attempt is None or attempt.state not in OPEN_ATTEMPTS:
            return
        if not runs:
            message = "its runner ended while the server was down"
            settle.close(session, attempt, limits, AttemptState.LOST, Reason.NODE_LOST, message)
            return
        if attempt.state is AttemptState.CLAIMED:
            # The runner could not renew its lease while the server was down: it gets a whole one to come back.
            attempt.lease_until = now() + timedelta(seconds=limits.lease_seconds)
        events.emit(session, attempt.job.build, "attempt.adopted", attempt=attempt.id, job=attempt.job_id)
