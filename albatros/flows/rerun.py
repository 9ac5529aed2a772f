"""Rerun: build the same commit again, at the same place of its ref, so that no tag goes back."""

from __future__ import annotations

from sqlalchemy.orm import Session

from albatros.db.builds import build_again
from albatros.db.models import Build
from albatros.db.writer import Writer
from albatros.errors import NotFoundError
from albatros.flows.allowed import assignments_of, check_allowed
from albatros.flows.receive import commit
from albatros.settings import Settings


def rerun(settings: Settings, writer: Writer, build_id: int) -> int:
    """Build a commit again; returns the new Build's id.

    Raises NotFoundError, ConflictError while the Build is open, ForbiddenError or OverloadedError.
    """

    def work(session: Session) -> int:
        old = session.get(Build, build_id)
        if old is None:
            raise NotFoundError(f"there is no build {build_id}")
        check_allowed(settings, old.repo)
        return build_again(session, old, settings.limits.queued_builds, assignments_of(settings))

    return commit(writer, work)
