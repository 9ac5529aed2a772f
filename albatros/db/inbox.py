"""What arrives becomes rows here: the repo, the delivery, the heads that that it moves and the Builds that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from sqlalchemy import ColumnElement, Executable, and_, bindparam, or_, select, update
from sqlalchemy.orm import Session

from albatros.db.builds import NewBuild, check_room, create_build, trusted_build
from albatros.db.heads import Confirmed, move_head, raise_doubts
from albatros.db.models import Build, Delivery, Repo
from albatros.db.session import now
from albatros.db.upsert import dialect_of, insert, insert_into, table_of
from albatros.domain.assigning import Assignment, builder_for
from albatros.domain.inbound import HeadMoved, Inbound, RepoInfo
from albatros.domain.refs import BRANCH_PREFIX
from albatros.domain.rules import SKIP_WORDS

_REPOS, _DELIVERIES = table_of(Repo), table_of(Delivery)
_FIND_REPO = select(_REPOS.c.id, _REPOS.c.private, _REPOS.c.default_branch, _REPOS.c.allowed).where(
    _REPOS.c.forge == bindparam("forge"), _REPOS.c.owner == bindparam("owner"), _REPOS.c.name == bindparam("name")
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A webhook, or a head that the reconciler found; `listed` when the forge's settings let the repo build."""

    forge: str
    inbound: Inbound
    body: bytes | None
    listed: bool
    queued_builds: int
    """Open Builds that there may be before it is refused."""
    confirmed: Mapping[str, Confirmed] = field(default_factory=dict)
    merges: bool = False
    """The forge's settings have merge results of pull requests built."""
    assignments: tuple[Assignment, ...] = ()
    """Builders of the operator's own, with what each is for."""

    def builder_of(self, move: HeadMoved) -> str:
        """The builder that a commit is given to; empty: its flake is evaluated."""
        if self.inbound.repo is None:
            return ""
        from_fork = move.pull is not None and move.pull.from_fork
        name = self.inbound.repo.full_name
        return builder_for(self.assignments, self.forge, name, move.ref, trusted=move.trusted, from_fork=from_fork)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of an arrival; `repeated` when the same delivery was recorded before."""

    builds: tuple[int, ...]
    reason: str
    repeated: bool = False


def record_arrival(session: Session, arrival: Arrival) -> Recorded:
    """Write a delivery and what follows from it, in the caller's transaction.

    Raises HeadsInDoubtError when the forge must be asked first, OverloadedError when too many Builds are open.
    """
    inbound = arrival.inbound
    repo_id, allowed = _repo_of(session, arrival) if inbound.repo is not None else (None, False)
    delivery_id = _insert_delivery(session, arrival, repo_id)
    if delivery_id is None:
        return _first_answer(session, arrival, repo_id)
    builds: tuple[int, ...] = ()
    reason = inbound.ignored
    if inbound.repo is not None and not allowed:
        reason = (
            f"{inbound.repo.full_name} may not build here: run `albatros repo add`, or list it in the forge's `repos`"
        )
    elif repo_id is not None and not reason:
        builds, reason = _follow_moves(session, repo_id, delivery_id, arrival)
    if reason:
        session.execute(update(Delivery).where(Delivery.id == delivery_id).values(reason=reason))
    return Recorded(builds, reason)


def note_reason(session: Session, arrival: Arrival, reason: str) -> None:
    """Write down beside a delivery what became of it."""
    same = (Delivery.forge == arrival.forge, Delivery.delivery_id == arrival.inbound.delivery_id)
    session.execute(update(Delivery).where(*same).values(reason=reason))


def _follow_moves(session: Session, repo_id: int, delivery_id: int, arrival: Arrival) -> tuple[tuple[int, ...], str]:
    """The ids of the Builds made; without any, why there is none."""
    moves, flavor = arrival.inbound.moves, arrival.inbound.flavor
    if len(moves) > 1:
        raise_doubts(session, repo_id, moves, arrival.confirmed, flavor)
    builds: list[int] = []
    reasons: list[str] = []
    for move in moves:
        sequence, why_not = move_head(session, repo_id, move, arrival.confirmed.get(move.ref), flavor)
        if sequence is None or move.after is None:
            reasons.append(why_not)
            _link_pull(session, repo_id, move, flavor)
            continue
        # A stranger's Build must not hide the commit status of one by somebody who may push.
        stranger = move.pull is not None and not move.trusted
        if stranger and (number := trusted_build(session, repo_id, move.after, flavor)):
            reasons.append(f"{move.after} is built already, as build {number}")
            continue
        check_room(session, arrival.queued_builds)
        # Of a head that was not where the push began, or that the forge was asked about, more has changed than it says.
        follows = sequence > 1 and move.ref not in arrival.confirmed
        new = build_of(arrival, move, move.after, sequence, delivery_id, follows=follows)
        builds.append(create_build(session, repo_id, new))
    return tuple(builds), "" if builds else "; ".join(reasons)


def _link_pull(session: Session, repo_id: int, move: HeadMoved, flavor: str) -> None:
    """Have the Build that a push made of a pull request's head know of the pull request."""
    if move.pull is None or move.after is None:
        return
    of_head = (Build.repo_id == repo_id, Build.ref == move.ref, Build.flavor == flavor)
    same = (*of_head, Build.commit == move.after, Build.pull.is_(None))
    session.execute(update(Build).where(*same).values(pull=move.pull.number, head_label=move.pull.label))


def build_of(
    arrival: Arrival, move: HeadMoved, commit: str, sequence: int, delivery_id: int, *, follows: bool
) -> NewBuild:
    """What a move to a commit has built; `follows` when it began at the head that was known."""
    pull = move.pull
    return NewBuild(
        ref=move.ref,
        commit=commit,
        sequence=sequence,
        trigger=move.trigger,
        flavor=arrival.inbound.flavor,
        trusted=move.trusted,
        author=move.author,
        title=move.title,
        delivery_id=delivery_id,
        pull=pull.number if pull is not None else None,
        from_fork=pull is not None and pull.from_fork,
        head_label=pull.label if pull is not None else "",
        base_commit=pull.base_commit if pull is not None else None,
        needs_approval=move.needs_approval,
        changed_paths=move.paths if follows else None,
        skip=f"its message says {SKIP_WORDS}" if move.skip and move.ref.startswith(BRANCH_PREFIX) else "",
        builder=arrival.builder_of(move),
    )


def find_delivery(session: Session, arrival: Arrival) -> int | None:
    """The id of a delivery that is recorded."""
    same = (Delivery.forge == arrival.forge, Delivery.delivery_id == arrival.inbound.delivery_id)
    return session.scalar(select(Delivery.id).where(*same))


def find_repo(session: Session, arrival: Arrival) -> int | None:
    """The id of the arrival's repo; None when it may not build."""
    return next((repo_id for repo_id, allowed in [_repo_of(session, arrival)] if allowed), None)


def _repo_of(session: Session, arrival: Arrival) -> tuple[int | None, bool]:
    """The repo's id, and whether it may build; its row is written only when the forge says something new of it."""
    info = arrival.inbound.repo
    if info is None:
        return None, False
    key = {"forge": arrival.forge, "owner": info.owner, "name": info.name}
    row = session.execute(_FIND_REPO, key).one_or_none()
    if row is not None and (row.private, row.default_branch) == (info.private, info.default_branch):
        return row.id, arrival.listed or row.allowed
    repo = upsert_repo(session, arrival.forge, info)
    return repo.id, arrival.listed or repo.allowed


def upsert_repo(session: Session, forge: str, info: RepoInfo) -> Repo:
    """The Repo's row, made when it is missing, with what the forge says about it now."""
    known = select(Repo).where(Repo.forge == forge, Repo.owner == info.owner, Repo.name == info.name)
    repo = session.scalar(known)
    if repo is None:
        statement = insert(session, Repo).values(repo_row(forge, info))
        session.execute(statement.on_conflict_do_nothing(index_elements=["forge", "owner", "name"]))
        repo = session.scalars(known).one()
    if repo.private != info.private or repo.default_branch != info.default_branch:
        repo.private, repo.default_branch = info.private, info.default_branch
    return repo


def hide_repo(session: Session, forge: str, info: RepoInfo) -> None:
    """Take a Repo that is known for a private one."""
    known = (Repo.forge == forge, Repo.owner == info.owner, Repo.name == info.name)
    session.execute(update(Repo).where(*known).values(private=True))


def repo_row(forge: str, info: RepoInfo) -> dict[str, object]:
    """The row of a repo that nobody has built yet."""
    return {
        "forge": forge,
        "owner": info.owner,
        "name": info.name,
        "private": info.private,
        "default_branch": info.default_branch,
        "allowed": False,
        "heads_known": False,
        "next_number": 1,
        "created_at": now(),
    }


@cache
def _insert(dialect: str) -> Executable:
    statement = insert_into(dialect, _DELIVERIES).on_conflict_do_nothing()
    return statement.returning(_DELIVERIES.c.id)


def _insert_delivery(session: Session, arrival: Arrival, repo_id: int | None) -> int | None:
    """The new row's id, or None when this delivery is recorded already, or the comment whose command it brings."""
    return session.execute(_insert(dialect_of(session)), delivery_row(arrival, repo_id)).scalar()


def delivery_row(arrival: Arrival, repo_id: int | None) -> dict[str, object]:
    """A delivery as it is kept, before anything is known of what follows."""
    command = arrival.inbound.command
    return {
        "forge": arrival.forge,
        "delivery_id": arrival.inbound.delivery_id,
        "event": arrival.inbound.event,
        "body": arrival.body,
        "repo_id": repo_id,
        "comment": command.comment if command is not None else None,
        "reason": "",
        "received_at": now(),
    }


def _first_answer(session: Session, arrival: Arrival, repo_id: int | None) -> Recorded:
    command = arrival.inbound.command
    same: ColumnElement[bool] = and_(
        Delivery.forge == arrival.forge, Delivery.delivery_id == arrival.inbound.delivery_id
    )
    if command is not None:
        same = or_(same, and_(Delivery.repo_id == repo_id, Delivery.comment == command.comment))
    delivery = session.scalars(select(Delivery).where(same).order_by(Delivery.id).limit(1)).one()
    builds = session.scalars(select(Build.id).where(Build.delivery_id == delivery.id).order_by(Build.id))
    return Recorded(tuple(builds), delivery.reason, repeated=True)
