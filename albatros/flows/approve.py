"""Approve: let a Build run that comes from somebody who may not push.

An approval holds for one commit: that of its Build, as long as it is the head of the pull request on the forge.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from albatros.db import queue
from albatros.db.models import Build, Job
from albatros.db.session import Database
from albatros.db.signals import Signals, Topic
from albatros.domain.states import BuildState, JobState
from albatros.errors import ConflictError, NotFoundError
from albatros.flows import progress
from albatros.forges.base import ForgeAdapter


def approve(
    database: Database, signals: Signals, forges: Mapping[str, ForgeAdapter], build_id: int, *, by: str
) -> None:
    """Let a Build run, whose commit the forge is asked about first.

    Raises NotFoundError; ConflictError when it does not wait, or its pull request has another head; ForgeError.
    """
    with database.read() as session:
        build = session.get(Build, build_id)
    if build is None:
        raise NotFoundError(f"there is no build {build_id}")
    _check_waits(build)
    forge = forges.get(build.repo.forge)
    if forge is None or build.pull is None:
        raise ConflictError(f"build {build_id} is of a forge that is no longer configured; add it to [[forges]] again")
    problem = head_problem(forge, build.repo.owner, build.repo.name, build.pull, build.commit)
    if problem:
        raise ConflictError(problem)
    with database.write() as session:
        locked = queue.lock_build(session, build_id)
        if locked is None:
            raise NotFoundError(f"there is no build {build_id}")
        approve_locked(session, locked, by=by)
    signals.notify(Topic.SCHEDULER, Topic.REPORTER, Topic.WATCHERS)


def head_problem(forge: ForgeAdapter, owner: str, name: str, number: int, commit: str) -> str:
    """Why a commit cannot be approved: it is not the head of its open pull request now. Raises ForgeError."""
    pull = forge.pull(owner, name, number)
    if pull is None or not pull.open:
        return f"pull request {number} is not open"
    if pull.commit != commit:
        return f"the head of pull request {number} is {pull.commit} by now; an approval holds for one commit alone"
    return ""


def approve_locked(session: Session, build: Build, *, by: str) -> None:
    """Queue a Build that waits, in the caller's transaction, which holds its row. Raises ConflictError.

    The others of the same commit of the pull request go with it: an approval is of the commit, and a merge result has
    nothing in it beside that commit and what was pushed to the base.
    """
    _check_waits(build)
    _queue(session, build, by)
    same = (Build.repo_id == build.repo_id, Build.pull == build.pull, Build.commit == build.commit)
    waiting = select(Build.id).where(*same, Build.state == BuildState.WAITING_APPROVAL, Build.id != build.id)
    for build_id in session.scalars(waiting.order_by(Build.id)).all():
        other = queue.lock_build(session, build_id)
        if other is not None and other.state is BuildState.WAITING_APPROVAL:
            _queue(session, other, by)


def _queue(session: Session, build: Build, by: str) -> None:
    build.approved_by = by[:255]
    progress.move_build(session, build, BuildState.QUEUED, message=f"approved by {by}")
    for job in session.scalars(select(Job).where(Job.build_id == build.id, Job.state == JobState.WAITING)):
        queue.move_job(session, job, JobState.QUEUED)
        progress.emit_job(session, job)


def _check_waits(build: Build) -> None:
    if build.state is not BuildState.WAITING_APPROVAL:
        raise ConflictError(f"build {build.id} does not wait for approval: it is {build.state.replace('_', ' ')}")
