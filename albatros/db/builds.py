"""The one function that makes a Build, whatever asked for it, with the rows that belong to its first moment."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from albatros.db.models import Build, Event, Job, Repo
from albatros.db.outbox import AGGREGATE, StatusWish, put_status
from albatros.db.session import now
from albatros.db.upsert import table_of
from albatros.domain.states import BuildState, JobKind, JobState, Trigger
from albatros.errors import OverloadedError

_OPEN_BUILDS = "open_builds"
_ASK_APPROVAL = "waits: a person with write access comments /approve {}"
"""Short enough that the commit is still whole in a commit status."""
_REPOS, _BUILDS = table_of(Repo), table_of(Build)
_NEXT_NUMBER = (
    update(_REPOS)
    .where(_REPOS.c.id == bindparam("repo"))
    .values(next_number=_REPOS.c.next_number + 1)
    .returning(_REPOS.c.next_number)
)
_INSERT_BUILD = insert(_BUILDS).returning(_BUILDS.c.id)
_INSERT_JOB, _INSERT_EVENT = insert(table_of(Job)), insert(table_of(Event))


@dataclass(frozen=True, slots=True)
class NewBuild:
    """What a Build is made from; `sequence` is its place among the Builds of its ref."""

    ref: str
    commit: str
    sequence: int
    trigger: Trigger
    flavor: str = ""
    trusted: bool = True
    author: str = ""
    title: str = ""
    delivery_id: int | None = None
    rerun_of: int | None = None
    pull: int | None = None
    from_fork: bool = False
    head_label: str = ""
    base_commit: str | None = None
    needs_approval: bool = False
    approved_by: str = ""

    @property
    def waits(self) -> bool:
        """True until a person who may push has approved its commit."""
        return self.needs_approval and not self.approved_by


def check_room(session: Session, queued_builds: int) -> None:
    """Raise OverloadedError when `queued_builds` Builds are open; they are counted once for each transaction."""
    if _OPEN_BUILDS not in session.info:
        statement = select(func.count()).select_from(Build).where(Build.ended_at.is_(None))
        session.info[_OPEN_BUILDS] = session.scalar(statement) or 0
    if session.info[_OPEN_BUILDS] >= queued_builds:
        raise OverloadedError(f"{queued_builds} builds are open already (limits.queued_builds); send this again later")
    session.info[_OPEN_BUILDS] += 1


def create_build(session: Session, repo_id: int, new: NewBuild) -> int:
    """Make a Build, queued or waiting for approval, with its evaluation Job, event and commit status; returns its id.

    All of it is in the caller's transaction, which wakes the scheduler, the reporter and the watchers once committed.
    """
    at = now()
    state = BuildState.WAITING_APPROVAL if new.waits else BuildState.QUEUED
    message = _ASK_APPROVAL.format(new.commit) if new.waits else ""
    number = session.execute(_NEXT_NUMBER, {"repo": repo_id}).scalar_one() - 1
    build_id: int = session.execute(
        _INSERT_BUILD,
        {
            "repo_id": repo_id,
            "number": number,
            "ref": new.ref,
            "commit": new.commit,
            "flavor": new.flavor,
            "sequence": new.sequence,
            "trigger": new.trigger,
            "trusted": new.trusted,
            "author": new.author,
            "title": new.title,
            "state": state,
            "message": message,
            "delivery_id": new.delivery_id,
            "rerun_of": new.rerun_of,
            "pull": new.pull,
            "from_fork": new.from_fork,
            "head_label": new.head_label,
            "base_commit": new.base_commit,
            "needs_approval": new.needs_approval,
            "approved_by": new.approved_by,
            "created_at": at,
        },
    ).scalar_one()
    evaluation = {
        "build_id": build_id,
        "kind": JobKind.EVALUATION,
        "key": "evaluation",
        "system": "",
        "name": "evaluation",
        "attributes": [],
        "state": JobState.WAITING if new.waits else JobState.QUEUED,
        "created_at": at,
    }
    session.execute(_INSERT_JOB, evaluation)
    data = {"number": number, "ref": new.ref, "commit": new.commit}
    event = {"kind": f"build.{state}", "repo_id": repo_id, "build_id": build_id, "data": data, "created_at": at}
    session.execute(_INSERT_EVENT, event)
    text = f"build {number} {message}" if new.waits else f"build {number} is queued"
    wish = StatusWish(AGGREGATE, state, text, f"/builds/{build_id}")
    put_status(session, repo_id, new.commit, build_id, wish)
    return build_id
