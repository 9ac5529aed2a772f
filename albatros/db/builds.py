"""The one function that makes a Build, whatever asked for it, with the rows that belong to its first moment."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, Executable, bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from albatros.db.many import insert_rows, is_among
from albatros.db.models import Build, Event, Job, Repo
from albatros.db.outbox import DueStatus, StatusWish, aggregate_of, put_statuses
from albatros.db.session import now
from albatros.db.upsert import dialect_of, table_of
from albatros.domain.assigning import Assignment, builder_for
from albatros.domain.states import BuildState, JobKind, JobState, Reason, Trigger, is_end
from albatros.errors import ConflictError, OverloadedError

_OPEN_BUILDS = "open_builds"
_ALWAYS_COUNTED = 10_000
_COUNTED_SECONDS = 1.0
_ASK_APPROVAL = "waits: a person with write access comments /approve {}"
"""Short enough that the commit is still whole in a commit status."""
_REPOS, _BUILDS = table_of(Repo), table_of(Build)
_INSERT_BUILD = insert(_BUILDS).returning(_BUILDS.c.id, _BUILDS.c.repo_id, _BUILDS.c.number)
_COUNT_OPEN = select(func.count()).select_from(_BUILDS).where(_BUILDS.c.ended_at.is_(None))
_counted: WeakKeyDictionary[Engine, tuple[int, float]] = WeakKeyDictionary()
"""How many Builds of a database were open, and when: to count them takes longer the more there are."""
_INSERT_JOB, _INSERT_EVENT = insert(table_of(Job)), insert(table_of(Event))


@cache
def _take_of(dialect: str) -> Executable:
    return (
        update(_REPOS)
        .where(is_among(dialect, _REPOS.c.id, "repos"))
        .values(next_number=_REPOS.c.next_number + bindparam("count"))
        .returning(_REPOS.c.id, _REPOS.c.next_number)
    )


@dataclass(frozen=True, slots=True)
class NewBuild:
    """What a Build is made from; `sequence` is its place among the Builds of its ref.

    With `merge_into`, a whole ref, the merge of `commit` into its `base_commit` is built.
    """

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
    merge_into: str | None = None
    needs_approval: bool = False
    approved_by: str = ""
    changed_paths: tuple[str, ...] | None = None
    skip: str = ""
    """Why nothing is to be built: it ends with its first moment."""
    builder: str = ""
    """The builder of the operator's own that it is given to, instead of its flake being evaluated."""

    @property
    def waits(self) -> bool:
        """True until a person who may push has approved its commit."""
        return self.needs_approval and not self.approved_by


def trusted_build(session: Session, repo_id: int, commit: str, flavor: str | None = None) -> int | None:
    """The number of a Build of a commit by somebody who may push, in one flavor or any."""
    trusted = select(Build.number).where(Build.repo_id == repo_id, Build.commit == commit, Build.trusted.is_(True))
    if flavor is not None:
        trusted = trusted.where(Build.flavor == flavor)
    return session.scalar(trusted.limit(1))


def check_room(session: Session, queued_builds: int, new: int = 1) -> None:
    """Raise OverloadedError when `new` Builds would be more than `queued_builds` open ones.

    They are counted at most once for each transaction, and, as long as the bound is far, once a second.
    """
    if _OPEN_BUILDS not in session.info:
        session.info[_OPEN_BUILDS] = _open_builds(session, queued_builds)
    if session.info[_OPEN_BUILDS] + new > queued_builds:
        raise OverloadedError(f"{queued_builds} builds are open already (limits.queued_builds); send this again later")
    session.info[_OPEN_BUILDS] += new


def _open_builds(session: Session, queued_builds: int) -> int:
    """Builds that have not ended; as they were counted less than a second ago, where that was far from the bound."""
    engine, at = session.get_bind().engine, time.monotonic()
    count, since = _counted.get(engine, (queued_builds, at))
    if at - since < _COUNTED_SECONDS and count < queued_builds - _ALWAYS_COUNTED:
        return count
    counted = session.scalar(_COUNT_OPEN) or 0
    _counted[engine] = (counted, at)
    return counted


def create_build(session: Session, repo_id: int, new: NewBuild) -> int:
    """Make one Build as `create_builds` does; returns its id."""
    return create_builds(session, [(repo_id, new)])[0]


def create_builds(session: Session, wanted: Sequence[tuple[int, NewBuild]]) -> Sequence[int]:
    """Make Builds, each of the repo with that id, queued or waiting for approval, with all that belongs to their start.

    That is its first Job (an evaluation, or that of a builder), an event and a commit status for each. Returns their
    ids. All of it is in the caller's transaction, which wakes the scheduler, the reporter and the watchers once
    committed.
    """
    at = now()
    made = _insert_builds(session, wanted, at)
    jobs = [_first_job_of(build, at) for build in made if not build.new.skip]
    if jobs:
        insert_rows(session, _INSERT_JOB, jobs)
    insert_rows(session, _INSERT_EVENT, [_event_of(build, at) for build in made])
    put_statuses(session, [_status_of(build) for build in made])
    return [build.id for build in made]


@dataclass(frozen=True, slots=True)
class _Made:
    id: int
    repo_id: int
    number: int
    new: NewBuild


def _insert_builds(session: Session, wanted: Sequence[tuple[int, NewBuild]], at: datetime) -> Sequence[_Made]:
    numbers = _take_numbers(session, Tally(repo_id for repo_id, _ in wanted))
    numbered = [(repo_id, next(numbers[repo_id]), new) for repo_id, new in wanted]
    rows = [_row_of(repo_id, number, new, at) for repo_id, number, new in numbered]
    inserted = insert_rows(session, _INSERT_BUILD, rows)
    ids = {(repo_id, number): build_id for build_id, repo_id, number in inserted}
    return [_Made(ids[repo_id, number], repo_id, number, new) for repo_id, number, new in numbered]


def _take_numbers(session: Session, counts: Mapping[int, int]) -> Mapping[int, Iterator[int]]:
    """So many of the next numbers of each repo."""
    taken: dict[int, Iterator[int]] = {}
    for count in set(counts.values()):
        repos = sorted(repo_id for repo_id, wanted in counts.items() if wanted == count)
        for repo_id, after in session.execute(_take_of(dialect_of(session)), {"repos": repos, "count": count}):
            taken[repo_id] = iter(range(after - count, after))
    return taken


def _first_state(new: NewBuild) -> BuildState:
    if new.skip:
        return BuildState.SKIPPED
    return BuildState.WAITING_APPROVAL if new.waits else BuildState.QUEUED


def _first_message(new: NewBuild) -> str:
    if new.skip:
        return f"is skipped: {new.skip}"
    return _ASK_APPROVAL.format(new.commit) if new.waits else ""


def _row_of(repo_id: int, number: int, new: NewBuild, at: datetime) -> dict[str, object]:
    return {
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
        "state": _first_state(new),
        "reason": Reason.SKIPPED if new.skip else None,
        "message": _first_message(new),
        "changed_paths": list(new.changed_paths) if new.changed_paths is not None else None,
        "delivery_id": new.delivery_id,
        "rerun_of": new.rerun_of,
        "pull": new.pull,
        "from_fork": new.from_fork,
        "head_label": new.head_label,
        "base_commit": new.base_commit,
        "merge_into": new.merge_into,
        "needs_approval": new.needs_approval,
        "approved_by": new.approved_by,
        "created_at": at,
        "ended_at": at if new.skip else None,
    }


def _first_job_of(build: _Made, at: datetime) -> dict[str, object]:
    kind = JobKind.BUILDER if build.new.builder else JobKind.EVALUATION
    return {
        "build_id": build.id,
        "kind": kind,
        "key": kind.value,
        "system": "",
        "name": build.new.builder or "evaluation",
        "attributes": [],
        "state": JobState.WAITING if build.new.waits else JobState.QUEUED,
        "created_at": at,
    }


def _event_of(build: _Made, at: datetime) -> dict[str, object]:
    data = {"number": build.number, "ref": build.new.ref, "commit": build.new.commit}
    kind = f"build.{_first_state(build.new)}"
    return {"kind": kind, "repo_id": build.repo_id, "build_id": build.id, "data": data, "created_at": at}


def _status_of(build: _Made) -> DueStatus:
    text = f"build {build.number} {_first_message(build.new) or 'is queued'}"
    wish = StatusWish(
        aggregate_of(build.new.flavor, build.new.merge_into), _first_state(build.new), text, f"/builds/{build.id}"
    )
    return DueStatus(build.repo_id, build.new.commit, build.id, wish)


def build_again(session: Session, old: Build, queued_builds: int, assignments: Sequence[Assignment]) -> int:
    """Make a Build of the same commit at the same place of its ref; returns its id.

    It is built as the `assignments` of builders say now.

    What needs approval and has none waits for it again.
    Raises ConflictError while the old one is open, OverloadedError when `queued_builds` Builds are open.
    """
    if not is_end(old.state):
        raise ConflictError(f"build {old.id} is {old.state}: cancel it, or wait for its end, before a rerun")
    check_room(session, queued_builds)
    new = NewBuild(
        ref=old.ref,
        commit=old.commit,
        sequence=old.sequence,
        trigger=Trigger.RERUN,
        flavor=old.flavor,
        trusted=old.trusted,
        author=old.author,
        title=old.title,
        rerun_of=old.id,
        pull=old.pull,
        from_fork=old.from_fork,
        head_label=old.head_label,
        base_commit=old.base_commit,
        merge_into=old.merge_into,
        needs_approval=old.needs_approval,
        approved_by=old.approved_by,
        builder=builder_for(
            assignments,
            old.repo.forge,
            old.repo.full_name,
            old.ref,
            trusted=old.trusted,
            from_fork=old.from_fork,
        ),
    )
    return create_build(session, old.repo_id, new)
