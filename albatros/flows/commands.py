"""Commands in comments on pull requests: /approve FULL_SHA, /rerun and /cancel, by a person who may push.

The forge is asked at that moment what the person may do, and what the head is. The comment's id is kept with its
delivery, so that a webhook that is sent again does nothing.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from albatros.db import queue
from albatros.db.builds import build_again
from albatros.db.inbox import Arrival, Recorded, note_reason, record_arrival
from albatros.db.models import Build, Repo
from albatros.domain.inbound import Command, CommentCommand, Inbound
from albatros.domain.states import OPEN_BUILDS, BuildState, is_end
from albatros.errors import ForgeError
from albatros.flows.approve import approve_locked, head_problem
from albatros.flows.cancel import cancel_locked
from albatros.forges.base import ForgeAdapter, Permission


def judge(forge: ForgeAdapter, inbound: Inbound) -> Inbound:
    """A command with the reason why it is not obeyed, if the forge gives one."""
    command, repo = inbound.command, inbound.repo
    if command is None or repo is None:
        return inbound
    try:
        problem = _problem(forge, repo.owner, repo.name, command)
    except ForgeError as error:
        problem = f"the forge could not be asked about {command.author} and the pull request: {error.detail}"
    return replace(inbound, ignored=problem)


def _problem(forge: ForgeAdapter, owner: str, name: str, command: CommentCommand) -> str:
    if not command.author or not forge.permission(owner, name, command.author).covers(Permission.WRITE):
        who = command.author or "somebody unknown"
        return f"{who} may not push to {owner}/{name}, which /{command.command} needs"
    if command.command is Command.APPROVE:
        return head_problem(forge, owner, name, command.pull, command.commit)
    return ""


def obey(session: Session, arrival: Arrival) -> Recorded:
    """Record a judged command and do what it says, in the caller's transaction; once for each comment."""
    command, info = arrival.inbound.command, arrival.inbound.repo
    recorded = record_arrival(session, arrival)
    if command is None or info is None or recorded.repeated or recorded.reason:
        return recorded
    of_repo = (Repo.forge == arrival.forge, Repo.owner == info.owner, Repo.name == info.name)
    statement = select(Build.id).join(Repo, Repo.id == Build.repo_id).where(*of_repo, Build.pull == command.pull)
    ids = session.scalars(statement.order_by(Build.id.desc()).limit(100)).all()
    builds = [build for build_id in ids if (build := queue.lock_build(session, build_id)) is not None]
    made: tuple[int, ...] = ()
    if command.command is Command.APPROVE:
        reason = _approve(session, builds, command)
    elif command.command is Command.CANCEL:
        reason = _cancel(session, builds, command)
    else:
        made, reason = _rerun(session, builds, command, arrival)
    note_reason(session, arrival, reason)
    return Recorded(made, reason)


def _approve(session: Session, builds: list[Build], command: CommentCommand) -> str:
    waiting = [build for build in builds if build.state is BuildState.WAITING_APPROVAL]
    meant = [build for build in waiting if build.commit == command.commit]
    if meant:
        approve_locked(session, meant[0], by=command.author)
        return f"build {', '.join(str(build.number) for build in meant)} was approved by {command.author}"
    return f"no build of pull request {command.pull} waits for approval of {command.commit}"


def _cancel(session: Session, builds: list[Build], command: CommentCommand) -> str:
    numbers = []
    for build in builds:
        if build.state in OPEN_BUILDS:
            cancel_locked(session, build, by=command.author)
            numbers.append(str(build.number))
    if not numbers:
        return f"no build of pull request {command.pull} is open"
    return f"cancelled by {command.author}: build {', '.join(numbers)}"


def _rerun(
    session: Session, builds: list[Build], command: CommentCommand, arrival: Arrival
) -> tuple[tuple[int, ...], str]:
    if not builds:
        return (), f"pull request {command.pull} has no build yet"
    heads = {build.flavor: build for build in reversed(builds) if build.merge_into is None}
    commits = {build.commit for build in heads.values()}
    merge = next((build for build in builds if build.merge_into is not None and build.commit in commits), None)
    newest = [*heads.values(), *([merge] if merge is not None else [])]
    running = next((build for build in newest if not is_end(build.state)), None)
    if running is not None:
        return (), f"build {running.number} has not ended: /cancel it first, or wait"
    again = (build_again(session, build, arrival.queued_builds, arrival.assignments) for build in newest)
    return tuple(again), f"asked by {command.author}"
