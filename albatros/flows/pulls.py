"""Pull requests: what of one is built, for whom, and what waits for approval.

The head of a pull request from the same repo is a branch that somebody who may push moved: it is built as a push of
that branch is, once for both. Any other head is a stranger's: it is never trusted, and where its sender or its author
may not push to the repo, its Build waits until a person who may has approved its commit.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from albatros.db import queue
from albatros.db.heads import find_head
from albatros.db.models import Build, Job, Repo
from albatros.domain.inbound import Head, HeadMoved, Inbound, Pull, PullAction, PullEvent, RepoInfo
from albatros.domain.refs import BRANCH_PREFIX
from albatros.domain.states import OPEN_JOBS, BuildState, JobState, Reason, Trigger
from albatros.errors import ForgeError, NotFoundError
from albatros.flows import progress
from albatros.forges.base import ForgeAdapter, Permission
from albatros.log import get_logger

_log = get_logger(__name__)


def decide(forge: ForgeAdapter, inbound: Inbound) -> Inbound:
    """A webhook about a pull request with the move of a head that it is, or with the reason why it is none."""
    event, repo = inbound.pull, inbound.repo
    if event is None or repo is None:
        return inbound
    pull = event.pull
    if event.action is PullAction.LABELLED:
        return replace(inbound, ignored=f"pull request {pull.number} was labelled, which builds nothing")
    event = replace(event, now=_as_it_is(forge, repo, pull))
    inbound = replace(inbound, pull=event)
    if event.action is PullAction.CLOSED:
        closed = HeadMoved(pull.ref, pull.commit, None, Trigger.PULL_REQUEST, pull=pull)
        return replace(inbound, moves=(closed,))
    try:
        own = None if pull.from_fork else _own_branch(forge, repo, pull)
    except ForgeError as error:
        _log.warning("a forge cannot be asked for a pull request's branch", forge=forge.name, error=error.detail)
        return replace(inbound, ignored="the forge could not be asked for the branch; its head is compared later")
    if own is None:
        inbound = replace(inbound, pull=replace(event, head_ref=pull.ref))
        return replace(inbound, moves=(_strangers_move(forge, repo, event),))
    inbound = replace(inbound, pull=replace(event, head_ref=BRANCH_PREFIX + pull.branch))
    if own.commit != pull.commit:
        return replace(inbound, ignored=f"the branch {pull.branch} is elsewhere by now: a replay, or a newer push came")
    ref = BRANCH_PREFIX + pull.branch
    move = HeadMoved(ref, None, pull.commit, Trigger.PUSH, pull.author, pull.title, pull=pull, skip=own.skip)
    return replace(inbound, moves=(move,))


def _own_branch(forge: ForgeAdapter, repo: RepoInfo, pull: Pull) -> Head | None:
    """The head of the repo's own branch that a pull request comes from; None when it comes from none."""
    if not pull.branch:
        return None
    try:
        return forge.head(repo.owner, repo.name, BRANCH_PREFIX + pull.branch)
    except NotFoundError:
        return None


def _strangers_move(forge: ForgeAdapter, repo: RepoInfo, event: PullEvent) -> HeadMoved:
    pull = event.pull
    if pull.base_commit is None:
        pull = replace(pull, base_commit=_base_commit(forge, repo, pull))
    if not pull.author:
        pull = replace(pull, author=event.now.author if event.now is not None else "")
    known = all(may_write(forge, repo.owner, repo.name, login) for login in {event.sender, pull.author})
    return HeadMoved(
        pull.ref,
        None,
        pull.commit,
        Trigger.PULL_REQUEST,
        pull.author,
        pull.title,
        trusted=False,
        pull=pull,
        needs_approval=not known,
    )


def _base_commit(forge: ForgeAdapter, repo: RepoInfo, pull: Pull) -> str | None:
    try:
        head = forge.head(repo.owner, repo.name, pull.base_ref)
    except ForgeError as error:
        _log.warning("a forge cannot be asked for a pull request's base", forge=forge.name, error=error.detail)
        return None
    return head.commit if head is not None else None


def _as_it_is(forge: ForgeAdapter, repo: RepoInfo, pull: Pull) -> Pull | None:
    """A pull request as the forge has it now: a webhook may be an old one, and need not name the author."""
    try:
        return forge.pull(repo.owner, repo.name, pull.number)
    except ForgeError as error:
        _log.warning("a forge cannot be asked for a pull request", forge=forge.name, error=error.detail)
        return None


def may_write(forge: ForgeAdapter, owner: str, name: str, login: str) -> bool:
    """Whether the forge says now that a person may push; no where it cannot be asked."""
    try:
        return bool(login) and forge.permission(owner, name, login).covers(Permission.WRITE)
    except ForgeError as error:
        _log.warning("a forge cannot be asked what a person may do", forge=forge.name, login=login, error=error.detail)
        return False


def end_overtaken(session: Session, forge: str, inbound: Inbound) -> None:
    """End the Builds that wait for approval of what is no longer the head of their pull request."""
    event, info = inbound.pull, inbound.repo
    if event is None or info is None:
        return
    waiting = (
        select(Build.id)
        .join(Repo, Repo.id == Build.repo_id)
        .where(Repo.forge == forge, Repo.owner == info.owner, Repo.name == info.name)
        .where(Build.ref == event.pull.ref, Build.state == BuildState.WAITING_APPROVAL)
    )
    for build_id in session.scalars(waiting).all():
        build = queue.lock_build(session, build_id)
        if build is None or build.state is not BuildState.WAITING_APPROVAL:
            continue
        head = find_head(session, build.repo_id, build.ref, build.flavor)
        if head is None or head.commit != build.commit:
            _end(session, build, "the pull request has another head" if head and head.commit else "it was closed")


def _end(session: Session, build: Build, message: str) -> None:
    progress.move_build(session, build, BuildState.SUPERSEDED, Reason.SUPERSEDED, message)
    for job in session.scalars(select(Job).where(Job.build_id == build.id, Job.state.in_(OPEN_JOBS))):
        progress.end_job(session, job, JobState.CANCELLED, Reason.SUPERSEDED, message)
