"""Pushes that come at once, recorded together by one statement a table.

A push is plain when nothing has to be thought about: it moves one head of a repo that may build, from where the head is
known to be, to a commit that the ref never had. `NotPlainError` says that one of them is not: nothing of the others may
be kept then, and each goes through `record_arrival`, which knows every case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from sqlalchemy import Insert, bindparam, insert, update
from sqlalchemy.orm import Session

from albatros.db.builds import check_room, create_builds
from albatros.db.heads import KnownHead
from albatros.db.inbox import Arrival, Recorded, build_of, delivery_row, repo_row
from albatros.db.many import find_rows, insert_rows
from albatros.db.models import Build, Delivery, RefHead, Repo
from albatros.db.queue import changed
from albatros.db.session import now
from albatros.db.upsert import dialect_of, insert_into, table_of
from albatros.domain.inbound import HeadMoved, Inbound, RepoInfo

RepoKey = tuple[str, str, str]
HeadKey = tuple[int, str, str]
_REPOS, _DELIVERIES, _HEADS, _BUILDS = table_of(Repo), table_of(Delivery), table_of(RefHead), table_of(Build)
_REPO_KEY = _REPOS.c.forge, _REPOS.c.owner, _REPOS.c.name
_REPO = (*_REPO_KEY, _REPOS.c.id, _REPOS.c.private, _REPOS.c.default_branch, _REPOS.c.allowed)
_HEAD_KEY = _HEADS.c.repo_id, _HEADS.c.ref, _HEADS.c.flavor
_HEAD = (*_HEAD_KEY, _HEADS.c.id, _HEADS.c.commit, _HEADS.c.sequence)
_BUILT_KEY = _BUILDS.c.repo_id, _BUILDS.c.commit
_BUILT = _BUILDS.c.repo_id, _BUILDS.c.ref, _BUILDS.c.flavor, _BUILDS.c.commit
_INSERT_DELIVERIES = insert(_DELIVERIES).returning(_DELIVERIES.c.id, _DELIVERIES.c.forge, _DELIVERIES.c.delivery_id)
_INSERT_HEADS = insert(_HEADS)
_MOVE_HEADS = (
    update(_HEADS)
    .where(_HEADS.c.id == bindparam("head_id"), _HEADS.c.sequence == bindparam("old"))
    .values(commit=bindparam("after"), sequence=bindparam("new"), updated_at=bindparam("at"))
)


@cache
def _insert_repos(dialect: str) -> Insert:
    return insert_into(dialect, _REPOS).on_conflict_do_nothing(index_elements=["forge", "owner", "name"])


class NotPlainError(Exception):
    """One of several pushes has to be looked at alone."""


@dataclass(frozen=True, slots=True)
class _Push:
    """A push, and the row of its repo."""

    arrival: Arrival
    move: HeadMoved
    commit: str
    repo_id: int

    @property
    def key(self) -> HeadKey:
        return self.repo_id, self.move.ref, self.arrival.inbound.flavor


def may_be_plain(inbound: Inbound) -> bool:
    """Whether a webhook is a push of one commit to one ref by somebody who may push, and nothing besides."""
    if inbound.repo is None or inbound.ignored or inbound.pull is not None or inbound.command is not None:
        return False
    move = inbound.moves[0] if len(inbound.moves) == 1 else None
    return move is not None and move.after is not None and move.trusted and move.pull is None


def record_pushes(session: Session, arrivals: Sequence[Arrival]) -> Sequence[Recorded]:
    """Write deliveries, heads and Builds in the caller's savepoint, for arrivals that `may_be_plain`.

    Raises NotPlainError, IntegrityError for what was recorded before or comes twice, OverloadedError.
    """
    pushes = _with_repos(session, arrivals)
    heads = _find_plain_heads(session, pushes)
    deliveries = _insert_deliveries(session, pushes)
    _move_heads(session, pushes, heads)
    builds = []
    for push in pushes:
        delivery_id = deliveries[push.arrival.forge, push.arrival.inbound.delivery_id]
        sequence = _sequence_after(heads.get(push.key))
        follows = push.key in heads
        new = build_of(push.arrival, push.move, push.commit, sequence, delivery_id, follows=follows)
        builds.append((push.repo_id, new))
    check_room(session, arrivals[0].queued_builds, len(builds))
    ids = create_builds(session, builds)
    return [Recorded((build_id,), "") for build_id in ids]


def _with_repos(session: Session, arrivals: Sequence[Arrival]) -> Sequence[_Push]:
    """Each push with its repo, whose row is made when it is missing."""
    infos = {_repo_key(arrival): arrival.inbound.repo for arrival in arrivals}
    found = _find_repos(session, infos)
    missing = sorted(infos.keys() - found.keys())
    if missing:
        rows = [repo_row(forge, info) for (forge, _, _), info in ((key, infos[key]) for key in missing) if info]
        insert_rows(session, _insert_repos(dialect_of(session)), rows)
        found |= _find_repos(session, {key: infos[key] for key in missing})
    pushes = []
    for arrival in arrivals:
        repo_id, allowed = found[_repo_key(arrival)]
        move = arrival.inbound.moves[0]
        if move.after is None or not (allowed or arrival.listed):
            raise NotPlainError
        pushes.append(_Push(arrival, move, move.after, repo_id))
    return pushes


def _repo_key(arrival: Arrival) -> RepoKey:
    info = arrival.inbound.repo
    if info is None:
        raise NotPlainError
    return arrival.forge, info.owner, info.name


def _find_repos(session: Session, infos: Mapping[RepoKey, RepoInfo | None]) -> dict[RepoKey, tuple[int, bool]]:
    """The ids of those that are known, and whether each was allowed; NotPlainError when the forge says news of one."""
    found = {}
    for row in find_rows(session, _REPO, _REPO_KEY, list(infos)):
        key = row.forge, row.owner, row.name
        info = infos[key]
        if info is None or (info.private, info.default_branch) != (row.private, row.default_branch):
            raise NotPlainError
        found[key] = row.id, row.allowed
    return found


def _find_plain_heads(session: Session, pushes: Sequence[_Push]) -> Mapping[HeadKey, KnownHead]:
    """The heads that are known of the refs. Raises NotPlainError when one of them is not where its push begins."""
    by_key = {push.key: push for push in pushes}
    rows = find_rows(session, _HEAD, _HEAD_KEY, list(by_key))
    heads = {(repo_id, ref, flavor): KnownHead(*head) for repo_id, ref, flavor, *head in rows}
    follow = [push for push in pushes if push.key in heads]
    if len(by_key) < len(pushes) or any(heads[push.key].commit != push.move.before for push in follow):
        raise NotPlainError
    if follow:
        new = {(*push.key, push.commit) for push in follow}
        commits = list({(push.repo_id, push.commit) for push in follow})
        if not new.isdisjoint(map(tuple, find_rows(session, _BUILT, _BUILT_KEY, commits))):
            raise NotPlainError
    return heads


def _insert_deliveries(session: Session, pushes: Sequence[_Push]) -> Mapping[tuple[str, str], int]:
    inserted = insert_rows(session, _INSERT_DELIVERIES, [delivery_row(push.arrival, push.repo_id) for push in pushes])
    return {(forge, delivery_id): row_id for row_id, forge, delivery_id in inserted}


def _move_heads(session: Session, pushes: Sequence[_Push], heads: Mapping[HeadKey, KnownHead]) -> None:
    """Record first heads, and move known ones by a guarded UPDATE. Raises NotPlainError when somebody else did."""
    at = now()
    first, moved = [], []
    for push in pushes:
        head = heads.get(push.key)
        sequence = _sequence_after(head)
        if head is None:
            repo_id, ref, flavor = push.key
            row = {"repo_id": repo_id, "ref": ref, "flavor": flavor, "commit": push.commit}
            first.append({**row, "sequence": sequence, "updated_at": at})
        else:
            guard = {"head_id": head.id, "old": head.sequence}
            moved.append({**guard, "after": push.commit, "new": sequence, "at": at})
    if first:
        insert_rows(session, _INSERT_HEADS, first)
    if moved and changed(session, _MOVE_HEADS, moved) != len(moved):
        raise NotPlainError


def _sequence_after(head: KnownHead | None) -> int:
    return 1 if head is None else head.sequence + 1
