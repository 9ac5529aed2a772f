"""Heads of refs: moved by a guarded UPDATE, one place further each time, and never by a move that may be a replay.

A move that does not follow from the head known, or that names a commit that its ref had before, is in doubt:
`HeadsInDoubtError` asks for the forge's own word, and nothing is written until it is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Executable, bindparam, exists, select, update
from sqlalchemy.orm import Session

from albatros.db.models import Build, RefHead
from albatros.db.session import now
from albatros.db.upsert import dialect_of, insert_into, table_of
from albatros.domain.inbound import HeadMoved
from albatros.errors import ConflictError

MOVE_TRIES = 5
_HEADS, _BUILDS = table_of(RefHead), table_of(Build)


@dataclass(frozen=True, slots=True)
class KnownHead:
    """The newest commit known of a ref (None: deleted), and its place among the ref's heads."""

    id: int
    commit: str | None
    sequence: int


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A forge's own word on a ref, asked when the head had `sequence`; `asked` is False when it could not be had."""

    sequence: int
    commit: str | None
    asked: bool = True


class HeadsInDoubtError(Exception):
    """Moves that do not follow from the heads known: each ref with the sequence that its head has."""

    def __init__(self, refs: Mapping[str, int]) -> None:
        super().__init__(f"{len(refs)} heads are in doubt")
        self.refs = refs


_FIND = select(_HEADS.c.id, _HEADS.c.commit, _HEADS.c.sequence).where(
    _HEADS.c.repo_id == bindparam("repo_id"),
    _HEADS.c.ref == bindparam("ref"),
    _HEADS.c.flavor == bindparam("flavor"),
)
_WAS_BUILT = select(
    exists().where(
        _BUILDS.c.repo_id == bindparam("repo_id"),
        _BUILDS.c.commit == bindparam("commit"),
        _BUILDS.c.ref == bindparam("ref"),
        _BUILDS.c.flavor == bindparam("flavor"),
    )
)
_MOVE = (
    update(_HEADS)
    .where(_HEADS.c.id == bindparam("head_id"), _HEADS.c.sequence == bindparam("old"))
    .values(commit=bindparam("after"), sequence=bindparam("new"), updated_at=bindparam("at"))
    .returning(_HEADS.c.id)
)


@cache
def _insert(dialect: str) -> Executable:
    statement = insert_into(dialect, _HEADS).on_conflict_do_nothing(index_elements=["repo_id", "ref", "flavor"])
    return statement.returning(_HEADS.c.id)


def find_head(session: Session, repo_id: int, ref: str, flavor: str = "") -> KnownHead | None:
    """A ref's head in one flavor, as it stands in the database now."""
    row = session.execute(_FIND, {"repo_id": repo_id, "ref": ref, "flavor": flavor}).one_or_none()
    return KnownHead(*row) if row is not None else None


def insert_head(session: Session, repo_id: int, ref: str, commit: str, flavor: str = "") -> bool:
    """Record the first head of a ref, with sequence 1; False when another transaction did."""
    values: dict[str, Any] = {"repo_id": repo_id, "ref": ref, "flavor": flavor, "commit": commit}
    made = session.execute(_insert(dialect_of(session)), {**values, "sequence": 1, "updated_at": now()})
    return made.scalar() is not None


def raise_doubts(
    session: Session, repo_id: int, moves: Sequence[HeadMoved], confirmed: Mapping[str, Confirmed], flavor: str = ""
) -> None:
    """Raise one HeadsInDoubtError for all the moves that are in doubt, so that the forge is asked in one go."""
    doubts = {}
    for move in moves:
        head = find_head(session, repo_id, move.ref, flavor)
        if head is not None and _is_doubtful(session, repo_id, head, move, confirmed.get(move.ref), flavor):
            doubts[move.ref] = head.sequence
    if doubts:
        raise HeadsInDoubtError(doubts)


def move_head(
    session: Session, repo_id: int, move: HeadMoved, confirmed: Confirmed | None, flavor: str = ""
) -> tuple[int | None, str]:
    """Move a ref's head in one flavor: its new sequence, or None and why it stays.

    Raises HeadsInDoubtError when the move does not follow from the head known and `confirmed` is not about that head;
    ConflictError when other transactions keep moving it.
    """
    for _ in range(MOVE_TRIES):
        head = find_head(session, repo_id, move.ref, flavor)
        if head is None:
            if move.after is None:
                return None, f"{move.ref} was deleted; it was not known"
            if insert_head(session, repo_id, move.ref, move.after, flavor):
                return 1, ""
            continue
        if why_not := _why_not(session, repo_id, head, move, confirmed, flavor):
            return None, why_not
        values = {"head_id": head.id, "old": head.sequence, "new": head.sequence + 1, "after": move.after, "at": now()}
        if session.execute(_MOVE, values).scalar() is not None:
            return head.sequence + 1, "" if move.after else f"{move.ref} was deleted"
    raise ConflictError(f"{move.ref} is being moved by other servers; send this again")


def _is_doubtful(
    session: Session, repo_id: int, head: KnownHead, move: HeadMoved, confirmed: Confirmed | None, flavor: str
) -> bool:
    """True for a move that may be a replay or out of order, unless the forge was asked since the head moved."""
    if head.commit == move.after or (confirmed is not None and confirmed.sequence == head.sequence):
        return False
    if head.commit != move.before or move.after is None:
        return True
    same = {"repo_id": repo_id, "commit": move.after, "ref": move.ref, "flavor": flavor}
    return bool(session.scalar(_WAS_BUILT, same))


def _why_not(
    session: Session, repo_id: int, head: KnownHead, move: HeadMoved, confirmed: Confirmed | None, flavor: str
) -> str:
    """Why a known head does not follow a move; empty when it does. Raises HeadsInDoubtError."""
    if head.commit == move.after:
        return f"{move.ref} is already known at {move.after}" if move.after else f"{move.ref} is already deleted"
    if _is_doubtful(session, repo_id, head, move, confirmed, flavor):
        raise HeadsInDoubtError({move.ref: head.sequence})
    if confirmed is None or confirmed.sequence != head.sequence:
        return ""
    if not confirmed.asked:
        return f"{move.ref} does not follow from the head known, and the forge could not be asked; it is compared later"
    if confirmed.commit != move.after:
        return f"{move.ref} is elsewhere on the forge by now: a replay, or overtaken by a newer push"
    return ""
