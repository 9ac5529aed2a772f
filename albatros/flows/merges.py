"""Merge results: what a pull request would make of its base is built where the base's `.albatros.toml` asks for it.

A Build merges exactly two commits, the newest heads known of the pull request and of its base; the runner makes the
merge, since what a forge keeps for one may be of other commits. Whatever moves a head (a push, a webhook about the
pull request, the reconciler) comes here in the same transaction, and a guarded UPDATE of the pull request's row lets
one of them make the Build. What an evaluated `.albatros.toml` turns on is made up for then. There is one for each pull
request, in the plain flavor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from sqlalchemy import Select, or_, select, update
from sqlalchemy.orm import Session

from albatros.db import queue
from albatros.db.builds import NewBuild, check_room, create_build, trusted_build
from albatros.db.heads import MOVE_TRIES, find_head
from albatros.db.many import is_among
from albatros.db.models import Build, PullRequest, Repo
from albatros.db.upsert import dialect_of, insert, table_of
from albatros.domain import repo_config
from albatros.domain.inbound import Pull
from albatros.domain.refs import BRANCH_PREFIX, merge_of
from albatros.domain.states import BuildState, Reason, Trigger
from albatros.errors import EvaluationError, OverloadedError
from albatros.flows import cancel
from albatros.log import get_logger

_ENDED = (BuildState.WAITING_APPROVAL, BuildState.QUEUED, BuildState.EVALUATING, BuildState.RUNNING)
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all merge results: forges that want them by default, and Builds that may be open."""

    forges: frozenset[str]
    queued_builds: int


@dataclass(frozen=True, slots=True)
class _Due:
    head: str
    base: str


def note(session: Session, repo_id: int, pull: Pull, head_ref: str) -> PullRequest | None:
    """Keep a pull request as its forge has it now; None for one that was never seen open."""
    row = session.scalar(_of_number(repo_id, pull.number))
    if row is None:
        if not pull.open:
            return None
        fixed = {"repo_id": repo_id, "number": pull.number, "sequence": 0}
        statement = insert(session, PullRequest).values({**fixed, **_told(pull, head_ref)})
        session.execute(statement.on_conflict_do_nothing(index_elements=["repo_id", "number"]))
        row = session.scalars(_of_number(repo_id, pull.number)).one()
    for name, value in _told(pull, head_ref or row.head_ref).items():
        if getattr(row, name) != value:
            setattr(row, name, value)
    session.flush()
    if not row.open:
        close(session, row)
    return row


def close(session: Session, row: PullRequest) -> None:
    """Make no more of a pull request, and end what waits for approval."""
    row.open = False
    _end_open(session, row, (BuildState.WAITING_APPROVAL,), "it was closed")


def _of_number(repo_id: int, number: int) -> Select[PullRequest]:
    return select(PullRequest).where(PullRequest.repo_id == repo_id, PullRequest.number == number)


def _told(pull: Pull, head_ref: str) -> dict[str, object]:
    return {
        "ref": merge_of(pull.ref),
        "head_ref": head_ref,
        "base_ref": pull.base_ref,
        "label": pull.label,
        "from_fork": pull.from_fork,
        "author": pull.author,
        "title": pull.title,
        "open": pull.open,
    }


def is_noted(row: PullRequest, pull: Pull, head_ref: str) -> bool:
    """Whether a row says of a pull request what its forge does."""
    return all(getattr(row, name) == value for name, value in _told(pull, head_ref).items())


def leave(session: Session, row: PullRequest) -> None:
    """Take the heads as they are for built, unless something was: they are from before Albatros."""
    if row.built_head is not None:
        return
    head, base = find_head(session, row.repo_id, row.head_ref), find_head(session, row.repo_id, row.base_ref)
    row.built_head = head.commit if head is not None else None
    row.built_base = base.commit if base is not None else None


def follow(session: Session, build_ids: Sequence[int], rules: Rules) -> tuple[int, ...]:
    """Make the merge results that are due since these Builds' refs moved or were evaluated; their ids."""
    if not build_ids:
        return ()
    found = session.execute(_touched(dialect_of(session)), {"builds": build_ids})
    rows = {row.id: (row, delivery_id) for row, delivery_id in found}
    made = (make(session, row, rules, delivery_id) for row, delivery_id in rows.values())
    return tuple(build_id for build_id in made if build_id is not None)


@cache
def _touched(dialect: str) -> Select[PullRequest, int | None]:
    """The open pull requests whose head or base one of the Builds is of."""
    moved = or_(PullRequest.head_ref == Build.ref, PullRequest.base_ref == Build.ref)
    return (
        select(PullRequest, Build.delivery_id)
        .join(Build, (Build.repo_id == PullRequest.repo_id) & moved)
        .where(is_among(dialect, table_of(Build).c.id, "builds"), Build.merge_into.is_(None), Build.flavor == "")
        .where(PullRequest.open.is_(True))
        .order_by(PullRequest.id)
    )


def due(session: Session, rows: Iterable[PullRequest], rules: Rules) -> list[PullRequest]:
    """Those whose merge result is to be built and is not."""
    return [row for row in rows if row.open and _due(session, row, rules) is not None]


def make(session: Session, row: PullRequest, rules: Rules, delivery_id: int | None = None) -> int | None:
    """Make the merge result's Build if it is due and there is room for it, and end the older ones; its id."""
    for _ in range(MOVE_TRIES):
        wanted = _due(session, row, rules)
        if wanted is None:
            return None
        try:
            check_room(session, rules.queued_builds)
        except OverloadedError as error:
            # What moved the head is not refused for it; the reconciler makes up for it.
            _log.warning("a merge result has to wait", repo_id=row.repo_id, pull=row.number, error=error.detail)
            return None
        same = update(PullRequest).where(PullRequest.id == row.id, PullRequest.sequence == row.sequence)
        values = {"built_head": wanted.head, "built_base": wanted.base, "sequence": row.sequence + 1}
        won = queue.changed(session, same.values(values))
        session.refresh(row)
        if won:
            return _create(session, row, wanted, delivery_id)
    return None


def _due(session: Session, row: PullRequest, rules: Rules) -> _Due | None:
    head, base = find_head(session, row.repo_id, row.head_ref), find_head(session, row.repo_id, row.base_ref)
    if head is None or head.commit is None or base is None or base.commit is None:
        return None
    if (head.commit, base.commit) == (row.built_head, row.built_base) or not _is_wanted(session, row, rules):
        return None
    of_head = _build_of_head(session, row, head.commit)
    if of_head is not None and of_head.state is BuildState.SKIPPED and of_head.started_at is None:
        return None  # Its message says so: the rules of a file are read by an evaluation.
    trusted = of_head.trusted if of_head is not None else _is_own(row)
    # A stranger's Build must not hide the commit status of one by somebody who may push.
    if not trusted and trusted_build(session, row.repo_id, head.commit) is not None:
        return None
    return _Due(head.commit, base.commit)


def _is_wanted(session: Session, row: PullRequest, rules: Rules) -> bool:
    """What the newest evaluated Build of the base says, or else the forge's settings."""
    evaluated = select(Build.config).where(
        Build.repo_id == row.repo_id,
        Build.ref == row.base_ref,
        Build.flavor == "",
        Build.trusted.is_(True),
        Build.commit_time.is_not(None),
    )
    text = session.scalar(evaluated.order_by(Build.id.desc()).limit(1))
    try:
        said = repo_config.parse(text).on.merge
    except EvaluationError:
        said = None
    if said is not None:
        return said
    return session.get_one(Repo, row.repo_id).forge in rules.forges


def _build_of_head(session: Session, row: PullRequest, commit: str) -> Build | None:
    same = (Build.repo_id == row.repo_id, Build.ref == row.head_ref, Build.commit == commit, Build.flavor == "")
    return session.scalar(select(Build).where(*same).order_by(Build.id.desc()).limit(1))


def _is_own(row: PullRequest) -> bool:
    return row.head_ref.startswith(BRANCH_PREFIX)


def _create(session: Session, row: PullRequest, wanted: _Due, delivery_id: int | None) -> int:
    of_head = _build_of_head(session, row, wanted.head)
    approved = select(Build.approved_by).where(
        Build.repo_id == row.repo_id, Build.pull == row.number, Build.commit == wanted.head, Build.approved_by != ""
    )
    new = NewBuild(
        ref=row.ref,
        commit=wanted.head,
        sequence=row.sequence,
        trigger=Trigger.PULL_REQUEST,
        trusted=of_head.trusted if of_head is not None else _is_own(row),
        author=row.author,
        title=row.title,
        delivery_id=delivery_id,
        pull=row.number,
        from_fork=row.from_fork,
        head_label=row.label,
        base_commit=wanted.base,
        merge_into=row.base_ref,
        needs_approval=of_head.needs_approval if of_head is not None else not _is_own(row),
        approved_by=session.scalar(approved.limit(1)) or "",
    )
    build_id = create_build(session, row.repo_id, new)
    number = session.get_one(Build, build_id).number
    _end_open(session, row, _ENDED, f"build {number}, of newer commits, took its place", build_id)
    return build_id


def _end_open(
    session: Session, row: PullRequest, states: Collection[BuildState], message: str, but: int | None = None
) -> None:
    """End the Builds of a pull request's merge results that are in one of these states."""
    still = select(Build.id).where(Build.repo_id == row.repo_id, Build.ref == row.ref, Build.ended_at.is_(None))
    for build_id in session.scalars(still.order_by(Build.id)).all():
        build = queue.lock_build(session, build_id) if build_id != but else None
        if build is not None and build.state in states:
            cancel.end(session, build, BuildState.SUPERSEDED, Reason.SUPERSEDED, message)
