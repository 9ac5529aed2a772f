"""Timetables: the default branch is built when `[schedule]` of its `.albatros.toml` says so.

A run is taken off the timetable in the transaction that makes its Build. What was missed while nobody ran the server is
made up by one Build, however much it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from albatros.db import queue
from albatros.db.models import Build, Repo, Schedule
from albatros.db.session import Database, now
from albatros.db.upsert import insert
from albatros.db.writer import Writer
from albatros.domain.refs import BRANCH_PREFIX
from albatros.domain.schedule import next_after
from albatros.domain.states import Trigger
from albatros.errors import AlbatrosError, ConflictError, DatabaseUnavailableError, ForbiddenError, NotFoundError
from albatros.flows import receive
from albatros.forges.base import ForgeAdapter
from albatros.log import get_logger
from albatros.settings import Settings

PAUSE = timedelta(minutes=5)
"""Between two Builds of one timetable, and before another try when a forge cannot be asked."""
BATCH = 50
_log = get_logger(__name__)


def remember(session: Session, build: Build, crons: tuple[str, ...]) -> None:
    """Keep the timetable that a Build of its repo's default branch has."""
    if not build.trusted or build.flavor or build.ref != BRANCH_PREFIX + build.repo.default_branch:
        return
    if crons:
        first = insert(session, Schedule).values(repo_id=build.repo_id, ref=build.ref, sequence=0, crons=[])
        session.execute(first.on_conflict_do_nothing())
    row = session.get(Schedule, build.repo_id, with_for_update=True)
    if row is None or (row.ref == build.ref and row.sequence > build.sequence):
        return
    row.ref, row.sequence = build.ref, build.sequence
    if row.crons != list(crons):
        row.crons, row.next_at = list(crons), next_after(crons, now())


def run_due(settings: Settings, database: Database, writer: Writer, forges: Mapping[str, ForgeAdapter]) -> int:
    """Make the Builds that are due; how many. One repo's trouble does not stop the others."""
    with database.read() as session:
        due = select(Schedule, Repo).join(Repo, Repo.id == Schedule.repo_id).where(Schedule.next_at <= now())
        rows = session.execute(due.order_by(Schedule.next_at).limit(BATCH)).all()
    made = 0
    for row, repo in rows:
        try:
            _run(settings, writer, forges, row, repo)
            made += 1
        except DatabaseUnavailableError:
            raise
        except AlbatrosError as error:
            gone = isinstance(error, NotFoundError | ForbiddenError)
            _log.warning("a scheduled build was not made", repo=repo.full_name, again=not gone, error=error.detail)
            with database.write() as session:
                _take(session, row, next_after(row.crons, now() + PAUSE) if gone else now() + PAUSE)
    return made


def _run(settings: Settings, writer: Writer, forges: Mapping[str, ForgeAdapter], row: Schedule, repo: Repo) -> None:
    forge = forges.get(repo.forge)
    if forge is None:
        raise NotFoundError(f"no forge named {repo.forge!r} is configured")

    def take(session: Session) -> None:
        if not _take(session, row, next_after(row.crons, now() + PAUSE)):
            raise ConflictError("another server made it")

    ref = BRANCH_PREFIX + repo.default_branch
    build_id = receive.trigger(settings, writer, forge, (repo.owner, repo.name), ref, Trigger.SCHEDULE, take)
    _log.info("scheduled build", build=build_id, repo=repo.full_name)


def _take(session: Session, row: Schedule, next_at: datetime | None) -> bool:
    """Move a timetable on, unless somebody else did."""
    mine = update(Schedule).where(Schedule.repo_id == row.repo_id, Schedule.next_at == row.next_at)
    return queue.changed(session, mine.values(next_at=next_at)) == 1
