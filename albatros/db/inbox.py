"""What arrives becomes rows here: repos, deliveries, heads, and the one function that makes a Build.

A Build is made when a head moves, by a guarded UPDATE; the head's sequence only grows. A move that may be a replay or
came out of order is not believed: `HeadsInDoubtError` asks for the forge's own word, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session

from albatros.db.events import emit
from albatros.db.models import Build, Delivery, Job, RefHead, Repo
from albatros.db.outbox import AGGREGATE, StatusWish, put_status
from albatros.db.queue import changed
from albatros.db.session import now
from albatros.db.upsert import insert
from albatros.domain.inbound import HeadMoved, Inbound, RepoInfo
from albatros.domain.states import BuildState, JobKind, JobState, Trigger
from albatros.errors import ConflictError, OverloadedError

MOVE_TRIES = 5
_OPEN_BUILDS = "open_builds"


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A forge's own word on a ref, asked when the head had `sequence`; `asked` is False when it could not be had."""

    sequence: int
    commit: str | None
    asked: bool = True


@dataclass(frozen=True, slots=True)
class Arrival:
    """A webhook, or a head that the reconciler found; `listed` when the forge's settings let the repo build."""

    forge: str
    inbound: Inbound
    body: bytes | None
    listed: bool
    confirmed: Mapping[str, Confirmed] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of an arrival; `repeated` when the same delivery was recorded before."""

    builds: tuple[int, ...]
    reason: str
    repeated: bool = False


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


class HeadsInDoubtError(Exception):
    """Moves that do not follow from the heads known: each ref with the sequence that its head has."""

    def __init__(self, refs: Mapping[str, int]) -> None:
        super().__init__(f"{len(refs)} heads are in doubt")
        self.refs = refs


def record_arrival(session: Session, arrival: Arrival, queued_builds: int) -> Recorded:
    """Write a delivery and what follows from it, in the caller's transaction.

    Raises HeadsInDoubtError when the forge must be asked first, OverloadedError when `queued_builds` Builds are open.
    """
    inbound = arrival.inbound
    repo = upsert_repo(session, arrival.forge, inbound.repo) if inbound.repo is not None else None
    delivery_id = _insert_delivery(session, arrival, repo)
    if delivery_id is None:
        return _first_answer(session, arrival)
    reason = inbound.ignored
    if repo is not None and not (arrival.listed or repo.allowed):
        reason = f"{repo.full_name} may not build here: add it with `albatros repo add`, or to `repos` of the forge"
    builds: list[int] = []
    if not reason and repo is not None:
        _raise_doubts(session, repo, arrival)
        reasons = []
        for move in inbound.moves:
            sequence, why_not = move_head(session, repo, move, arrival.confirmed.get(move.ref))
            if sequence is None or move.after is None:
                reasons.append(why_not)
                continue
            check_room(session, queued_builds)
            builds.append(create_build(session, repo, _build_of(move, move.after, sequence, delivery_id)).id)
        reason = "; ".join(reasons) if not builds else ""
    if reason:
        session.execute(update(Delivery).where(Delivery.id == delivery_id).values(reason=reason))
    return Recorded(tuple(builds), reason)


def _build_of(move: HeadMoved, commit: str, sequence: int, delivery_id: int) -> NewBuild:
    return NewBuild(
        ref=move.ref,
        commit=commit,
        sequence=sequence,
        trigger=move.trigger,
        trusted=move.trusted,
        author=move.author,
        title=move.title,
        delivery_id=delivery_id,
    )


def upsert_repo(session: Session, forge: str, info: RepoInfo) -> Repo:
    """The Repo's row, made when it is missing, with what the forge says about it now."""
    known = select(Repo).where(Repo.forge == forge, Repo.owner == info.owner, Repo.name == info.name)
    repo = session.scalar(known)
    if repo is None:
        statement = insert(session, Repo).values(
            forge=forge,
            owner=info.owner,
            name=info.name,
            private=info.private,
            default_branch=info.default_branch,
            allowed=False,
            heads_known=False,
            next_number=1,
            created_at=now(),
        )
        session.execute(statement.on_conflict_do_nothing(index_elements=["forge", "owner", "name"]))
        repo = session.scalars(known).one()
    if repo.private != info.private or repo.default_branch != info.default_branch:
        repo.private, repo.default_branch = info.private, info.default_branch
    return repo


def _insert_delivery(session: Session, arrival: Arrival, repo: Repo | None) -> int | None:
    """The new row's id, or None when this delivery is recorded already."""
    statement = insert(session, Delivery).values(
        forge=arrival.forge,
        delivery_id=arrival.inbound.delivery_id,
        event=arrival.inbound.event,
        body=arrival.body,
        repo_id=repo.id if repo is not None else None,
        reason="",
        received_at=now(),
    )
    unique = statement.on_conflict_do_nothing(index_elements=["forge", "delivery_id"])
    return session.execute(unique.returning(Delivery.id)).scalar()


def _first_answer(session: Session, arrival: Arrival) -> Recorded:
    delivery = session.scalars(
        select(Delivery).where(Delivery.forge == arrival.forge, Delivery.delivery_id == arrival.inbound.delivery_id)
    ).one()
    builds = session.scalars(select(Build.id).where(Build.delivery_id == delivery.id).order_by(Build.id))
    return Recorded(tuple(builds), delivery.reason, repeated=True)


def _find_head(session: Session, repo_id: int, ref: str, flavor: str) -> RefHead | None:
    statement = select(RefHead).where(RefHead.repo_id == repo_id, RefHead.ref == ref, RefHead.flavor == flavor)
    return session.scalar(statement.execution_options(populate_existing=True))


def _raise_doubts(session: Session, repo: Repo, arrival: Arrival) -> None:
    doubts = {}
    for move in arrival.inbound.moves:
        head = find_head(session, repo.id, move.ref)
        if head is not None and _is_doubtful(session, head, move, arrival.confirmed.get(move.ref)):
            doubts[move.ref] = head.sequence
    if doubts:
        raise HeadsInDoubtError(doubts)


def find_head(session: Session, repo_id: int, ref: str) -> RefHead | None:
    """The newest commit known of a ref, as it stands in the database now."""
    statement = select(RefHead).where(RefHead.repo_id == repo_id, RefHead.ref == ref, RefHead.flavor == "")
    return session.scalar(statement.execution_options(populate_existing=True))


def _is_doubtful(session: Session, head: RefHead, move: HeadMoved, confirmed: Confirmed | None) -> bool:
    """True for a move that may be a replay or out of order, unless the forge was asked since the head moved."""
    if head.commit == move.after or (confirmed is not None and confirmed.sequence == head.sequence):
        return False
    if head.commit != move.before or move.after is None:
        return True
    built = exists().where(Build.repo_id == head.repo_id, Build.commit == move.after, Build.ref == head.ref)
    return bool(session.scalar(select(built)))


def move_head(session: Session, repo: Repo, move: HeadMoved, confirmed: Confirmed | None) -> tuple[int | None, str]:
    """Move a ref's head by a guarded UPDATE: its new sequence, or None and why it stays.

    Raises HeadsInDoubtError when the move does not follow from the head known and `confirmed` is not about that head;
    ConflictError when other transactions keep moving it.
    """
    for _ in range(MOVE_TRIES):
        head = find_head(session, repo.id, move.ref)
        if head is None:
            if move.after is None:
                return None, f"{move.ref} was deleted; it was not known"
            if insert_head(session, repo.id, move.ref, move.after):
                return 1, ""
            continue
        if why_not := _why_not(session, head, move, confirmed):
            return None, why_not
        sequence = head.sequence + 1
        guarded = update(RefHead).where(RefHead.id == head.id, RefHead.sequence == head.sequence)
        moved = guarded.values(commit=move.after, sequence=sequence, updated_at=now())
        if changed(session, moved.execution_options(synchronize_session=False)):
            return sequence, "" if move.after else f"{move.ref} was deleted"
    raise ConflictError(f"{move.ref} of {repo.full_name} is being moved by other servers; send this again")


def _why_not(session: Session, head: RefHead, move: HeadMoved, confirmed: Confirmed | None) -> str:
    """Why a known head does not follow a move; empty when it does. Raises HeadsInDoubtError."""
    if head.commit == move.after:
        return f"{move.ref} is already known at {move.after}" if move.after else f"{move.ref} is already deleted"
    if _is_doubtful(session, head, move, confirmed):
        raise HeadsInDoubtError({move.ref: head.sequence})
    if confirmed is None or confirmed.sequence != head.sequence:
        return ""
    if not confirmed.asked:
        return f"{move.ref} does not follow from the head known, and the forge could not be asked; it is compared later"
    if confirmed.commit != move.after:
        return f"{move.ref} is elsewhere on the forge by now: a replay, or overtaken by a newer push"
    return ""


def insert_head(session: Session, repo_id: int, ref: str, commit: str) -> bool:
    """Record the first head of a ref, with sequence 1; False when another transaction did."""
    statement = insert(session, RefHead).values(
        repo_id=repo_id, ref=ref, flavor="", commit=commit, sequence=1, updated_at=now()
    )
    unique = statement.on_conflict_do_nothing(index_elements=["repo_id", "ref", "flavor"])
    return session.execute(unique.returning(RefHead.id)).scalar() is not None


def check_room(session: Session, queued_builds: int) -> None:
    """Raise OverloadedError when `queued_builds` Builds are open; counted once for each transaction."""
    if _OPEN_BUILDS not in session.info:
        statement = select(func.count()).select_from(Build).where(Build.ended_at.is_(None))
        session.info[_OPEN_BUILDS] = session.scalar(statement) or 0
    if session.info[_OPEN_BUILDS] >= queued_builds:
        raise OverloadedError(f"{queued_builds} builds are open already (limits.queued_builds); send this again later")
    session.info[_OPEN_BUILDS] += 1


def create_build(session: Session, repo: Repo, new: NewBuild) -> Build:
    """Make a queued Build with its evaluation Job, its event and its pending commit status, in one transaction."""
    number = update(Repo).where(Repo.id == repo.id).values(next_number=Repo.next_number + 1).returning(Repo.next_number)
    at = now()
    build = Build(
        repo=repo,
        number=session.execute(number.execution_options(synchronize_session=False)).scalar_one() - 1,
        ref=new.ref,
        commit=new.commit,
        flavor=new.flavor,
        sequence=new.sequence,
        trigger=new.trigger,
        trusted=new.trusted,
        author=new.author,
        title=new.title,
        state=BuildState.QUEUED,
        delivery_id=new.delivery_id,
        rerun_of=new.rerun_of,
        created_at=at,
    )
    session.add(build)
    session.flush()
    session.add(
        Job(
            build_id=build.id,
            kind=JobKind.EVALUATION,
            key="evaluation",
            system="",
            name="evaluation",
            attributes=[],
            state=JobState.QUEUED,
            created_at=at,
        )
    )
    emit(session, build, "build.queued", number=build.number, ref=build.ref, commit=build.commit)
    wish = StatusWish(AGGREGATE, BuildState.QUEUED, f"build {build.number} is queued", f"/builds/{build.id}")
    put_status(session, repo.id, build.commit, build.id, wish)
    return build
