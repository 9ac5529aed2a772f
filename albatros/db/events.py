"""Events: one row for each change that somebody may watch, written in the transaction that makes the change."""

from __future__ import annotations

from sqlalchemy.orm import Session

from albatros.db.models import Build, Event
from albatros.db.session import now


def emit(session: Session, build: Build, kind: str, **data: object) -> None:
    """Record that `kind` (such as `build.running`) happened to a Build or something of it; `data` must be JSON."""
    session.add(Event(kind=kind, repo_id=build.repo_id, build_id=build.id, data=data, created_at=now()))
