"""Commit statuses that are due: one row for each (repo, commit, context), written in the transaction that made it due.

A row is due while `sent` is behind `version`. Whoever posts it holds it by a lease, and marks it sent only when the
version it posted is still the newest, so that the last state always wins. A newer Build's row is never taken back by
an older Build of the same commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy import Insert, or_, select, update
from sqlalchemy.orm import Session

from albatros.db.many import insert_rows
from albatros.db.models import StatusReport
from albatros.db.queue import changed
from albatros.db.session import now
from albatros.db.upsert import dialect_of, insert_into, table_of
from albatros.domain.refs import one_line
from albatros.domain.states import BuildState

AGGREGATE = "albatros"
MERGE = "albatros/merge"
_OF_MERGE = f"{MERGE}:"
"""A `:` is in no image's name, so that none of an Image has such a context."""
CONTEXT_LENGTH = 255
DESCRIPTION_LENGTH = 140


def aggregate_of(flavor: str, merge_into: str | None = None) -> str:
    """The context that a Build of a flavor, or of a merge result, has on its commit."""
    if merge_into is not None:
        return MERGE
    return f"{AGGREGATE}:{flavor}" if flavor else AGGREGATE


def part_of(flavor: str, merge_into: str | None, name: str) -> str:
    """The context of a part of such a Build."""
    return f"{_OF_MERGE}{name}" if merge_into is not None else f"{aggregate_of(flavor)}/{name}"


def is_part(context: str, flavor: str, merge_into: str | None) -> bool:
    """Whether a context is that of a part of such Builds."""
    of_merge = context == MERGE or context.startswith(_OF_MERGE)
    return context.startswith(part_of(flavor, merge_into, "")) and of_merge == (merge_into is not None)


@dataclass(frozen=True, slots=True)
class StatusWish:
    """What a commit should show under one context."""

    context: str
    state: BuildState
    description: str
    target_path: str


@dataclass(frozen=True, slots=True)
class DueStatus:
    """What a Build wishes a commit to show."""

    repo_id: int
    commit: str
    build_id: int
    wish: StatusWish


@cache
def _put(dialect: str) -> Insert:
    statement = insert_into(dialect, table_of(StatusReport))
    known, newest = table_of(StatusReport).c, statement.excluded
    kept = ("build_id", "state", "description", "target_path", "tries", "error", "next_try_at")
    return statement.on_conflict_do_update(
        index_elements=["repo_id", "commit", "context"],
        set_={"version": known.version + 1, **{name: newest[name] for name in kept}},
        where=known.build_id <= newest.build_id,
    )


def put_status(session: Session, repo_id: int, commit: str, build_id: int, wish: StatusWish) -> None:
    """Make a status due, in the caller's transaction; nothing happens when a newer Build has the context already."""
    put_statuses(session, [DueStatus(repo_id, commit, build_id, wish)])


def put_statuses(session: Session, due: Sequence[DueStatus]) -> None:
    """Make statuses due as `put_status` does; of two of one commit and context, the newer Build's."""
    at = now()
    newest = {(one.repo_id, one.commit, one.wish.context): one for one in sorted(due, key=lambda one: one.build_id)}
    insert_rows(session, _put(dialect_of(session)), [_row_of(status, at) for status in newest.values()])


def _row_of(due: DueStatus, at: datetime) -> dict[str, object]:
    wish = due.wish
    return {
        "repo_id": due.repo_id,
        "commit": due.commit,
        "context": one_line(wish.context, CONTEXT_LENGTH),
        "build_id": due.build_id,
        "state": wish.state,
        "description": one_line(wish.description, DESCRIPTION_LENGTH),
        "target_path": wish.target_path,
        "version": 1,
        "sent": 0,
        "tries": 0,
        "error": "",
        "next_try_at": at,
    }


def statuses_of(session: Session, repo_id: int, commit: str) -> Sequence[StatusReport]:
    """Every status of a commit, oldest first."""
    statement = select(StatusReport).where(StatusReport.repo_id == repo_id, StatusReport.commit == commit)
    return session.scalars(statement.order_by(StatusReport.id)).all()


def claim_status(session: Session, holder: str, lease: timedelta) -> StatusReport | None:
    """Hold the status that is due longest."""
    at = now()
    due = (
        select(StatusReport)
        .where(StatusReport.sent < StatusReport.version, StatusReport.next_try_at <= at)
        .where(or_(StatusReport.lease_until.is_(None), StatusReport.lease_until < at))
        .order_by(StatusReport.next_try_at, StatusReport.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=StatusReport)
    )
    report = session.scalars(due).first()
    if report is not None:
        report.holder, report.lease_until = holder, at + lease
        report.tries += 1
    return report


def finish_status(session: Session, report: StatusReport, *, sent: bool, error: str, next_try_at: datetime) -> bool:
    """Let go of a claimed status; False when its state changed meanwhile, or its lease went to somebody else.

    `sent` marks the claimed version as done with (an `error` beside it says that it was given up).
    """
    held = update(StatusReport).where(StatusReport.id == report.id, StatusReport.holder == report.holder)
    outcome = held.where(StatusReport.version == report.version).values(
        sent=report.version if sent else StatusReport.sent,
        error=error,
        next_try_at=next_try_at,
        holder=None,
        lease_until=None,
    )
    if changed(session, outcome):
        return True
    overtaken = held.values(holder=None, lease_until=None, next_try_at=now())
    changed(session, overtaken)
    return False
