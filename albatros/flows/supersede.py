"""Supersede: where `.albatros.toml` says so, an open Build of a branch ends when one of a newer commit is made."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from albatros.db import queue
from albatros.db.models import Build
from albatros.domain import repo_config
from albatros.domain.refs import BRANCH_PREFIX
from albatros.domain.states import BuildState, Reason
from albatros.errors import EvaluationError
from albatros.flows import cancel

_ENDED = (BuildState.QUEUED, BuildState.EVALUATING, BuildState.RUNNING)
"""Not those that publish already: they would leave one registry with the newer image and another without."""


def end_older(session: Session, build_ids: Sequence[int]) -> None:
    """End the older open Builds of these Builds' branches, in the caller's transaction, where their repo wants that.

    Each flavor of a branch stands by itself.
    """
    newer, older = aliased(Build), aliased(Build)
    found = (
        select(newer.id, newer.number, older.id)
        .join(older, (newer.repo_id == older.repo_id) & (newer.ref == older.ref) & (newer.flavor == older.flavor))
        .where(newer.id.in_(build_ids), newer.state != BuildState.SKIPPED, newer.ref.startswith(BRANCH_PREFIX))
        .where(older.ended_at.is_(None), older.sequence < newer.sequence, older.state.in_(_ENDED))
        .order_by(older.id)
    )
    rows = session.execute(found).all() if build_ids else []
    wanted = {build_id: _is_wanted(session, build_id) for build_id in {build_id for build_id, _, _ in rows}}
    for build_id, number, older_id in rows:
        build = queue.lock_build(session, older_id) if wanted[build_id] else None
        if build is not None and build.state in _ENDED:
            message = f"build {number}, of a newer commit, took its place"
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
