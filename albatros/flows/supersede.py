"""Supersede: where `.albatros.toml` says so, an open Build of a branch ends when one of a newer commit is made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from operator import attrgetter

from sqlalchemy import Executable, select
from sqlalchemy.orm import Session

from albatros.db import queue
from albatros.db.many import find_rows, is_among
from albatros.db.models import Build
from albatros.db.upsert import dialect_of, table_of
from albatros.domain import repo_config
from albatros.domain.refs import BRANCH_PREFIX
from albatros.domain.states import BuildState, Reason
from albatros.errors import EvaluationError
from albatros.flows import cancel

_BUILDS = table_of(Build)
_BRANCH = _BUILDS.c.repo_id, _BUILDS.c.ref
_PLACE = *_BRANCH, _BUILDS.c.flavor, _BUILDS.c.sequence
_BRANCH_OF = attrgetter("repo_id", "ref", "flavor")
_IS_OPEN = _BUILDS.c.ended_at.is_(None)
_ENDED = (BuildState.QUEUED, BuildState.EVALUATING, BuildState.RUNNING)
"""Not those that publish already: they would leave one registry with the newer image and another without."""


@cache
def _newer(dialect: str) -> Executable:
    return select(_BUILDS.c.id, _BUILDS.c.number, *_PLACE).where(
        is_among(dialect, _BUILDS.c.id, "builds"),
        _BUILDS.c.state != BuildState.SKIPPED,
        _BUILDS.c.ref.startswith(BRANCH_PREFIX),
        # The first of its branch has none before it, and pushes to new branches need no more than this look.
        _BUILDS.c.sequence > 1,
    )


def end_older(session: Session, build_ids: Sequence[int]) -> None:
    """End the older open Builds of these Builds' branches, in the caller's transaction, where their repo wants that.

    Each flavor of a branch stands by itself.
    """
    newer = session.execute(_newer(dialect_of(session)), {"builds": build_ids}).all() if build_ids else []
    if not newer:
        return
    branches = sorted({(build.repo_id, build.ref) for build in newer})
    # Asked for by branch alone: with their states in the question, SQLite goes through all open Builds of the server.
    still_open = find_rows(session, (_BUILDS.c.id, _BUILDS.c.state, *_PLACE), _BRANCH, branches, _IS_OPEN).all()
    older = defaultdict(list)
    for build in still_open:
        if build.state in _ENDED:
            older[_BRANCH_OF(build)].append(build)
    for build in newer:
        older_ids = sorted(other.id for other in older[_BRANCH_OF(build)] if other.sequence < build.sequence)
        if older_ids and _is_wanted(session, build.id):
            _end(session, older_ids, f"build {build.number}, of a newer commit, took its place")


def _end(session: Session, build_ids: Sequence[int], message: str) -> None:
    for build_id in build_ids:
        build = queue.lock_build(session, build_id)
        if build is not None and build.state in _ENDED:
            cancel.end(session, build, BuildState.SUPERSEDED, Reason.SUPERSEDED, message)


def _is_wanted(session: Session, build_id: int) -> bool:
    """What the newest evaluated Build of the branch says; nothing is known of a branch without any."""
    this = session.get_one(Build, build_id)
    evaluated = select(Build.config).where(
        Build.repo_id == this.repo_id, Build.ref == this.ref, Build.config.is_not(None)
    )
    text = session.scalar(evaluated.order_by(Build.id.desc()).limit(1))
    try:
        return repo_config.parse(text).on.supersede
    except EvaluationError:
        return False
