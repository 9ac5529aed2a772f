"""Reconcile, for merge results: the open pull requests that a forge has, compared with those known here.

Found are those that no webhook told of, those that have another base, and merge results that were due while there was
no room for their Builds. At the first look at a repo they are kept, and built when something of them moves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from albatros.db.inbox import upsert_repo
from albatros.db.models import PullRequest, Repo
from albatros.db.session import Database
from albatros.db.writer import Writer
from albatros.domain.inbound import Pull, RepoInfo
from albatros.domain.refs import BRANCH_PREFIX
from albatros.flows import merges, receive
from albatros.flows.allowed import merging
from albatros.settings import Settings


@dataclass(frozen=True, slots=True)
class OpenPulls:
    """Every open pull request of a repo, with its branches and tags."""

    forge: str
    repo: RepoInfo
    pulls: Sequence[Pull]
    heads: Mapping[str, str]
    first_look: bool = False

    def head_ref(self, pull: Pull) -> str:
        """Where the repo keeps the head of one."""
        branch = BRANCH_PREFIX + pull.branch
        return branch if not pull.from_fork and branch in self.heads else pull.ref


@dataclass(frozen=True, slots=True)
class _Differences:
    """Pull requests that are new or changed, and the numbers of those that were closed, or whose merge is due."""

    news: Sequence[Pull]
    closed: Collection[int]
    due: Collection[int]


def follow_open(settings: Settings, database: Database, writer: Writer, there: OpenPulls) -> list[int]:
    """Keep the pull requests as they are, and make the merge results that are due; their Builds' ids.

    Raises DatabaseUnavailableError.
    """
    rules = merges.Rules(merging(settings), settings.limits.queued_builds)
    with database.read() as session:
        differences = _compare(session, there, rules)
    if not differences.news and not differences.closed and not differences.due:
        return []
    return receive.commit(writer, partial(_record, there=there, differences=differences, rules=rules))


def _compare(session: Session, there: OpenPulls, rules: merges.Rules) -> _Differences:
    repo, open_numbers = there.repo, {pull.number for pull in there.pulls}
    known = (
        select(PullRequest)
        .join(Repo, Repo.id == PullRequest.repo_id)
        .where(Repo.forge == there.forge, Repo.owner == repo.owner, Repo.name == repo.name)
        .where(or_(PullRequest.open.is_(True), PullRequest.number.in_(open_numbers)))
    )
    rows = {row.number: row for row in session.scalars(known)}
    return _Differences(
        news=[
            pull
            for pull in there.pulls
            if pull.number not in rows or not merges.is_noted(rows[pull.number], pull, there.head_ref(pull))
        ],
        closed=rows.keys() - open_numbers,
        due=[row.number for row in merges.due(session, rows.values(), rules)],
    )


def _record(session: Session, there: OpenPulls, differences: _Differences, rules: merges.Rules) -> list[int]:
    repo_id = upsert_repo(session, there.forge, there.repo).id
    for pull in differences.news:
        row = merges.note(session, repo_id, pull, there.head_ref(pull))
        if row is not None and there.first_look:
            merges.leave(session, row)
    touched = {*differences.closed, *differences.due, *(pull.number for pull in differences.news)}
    mine = select(PullRequest).where(PullRequest.repo_id == repo_id, PullRequest.number.in_(touched))
    made = []
    for row in session.scalars(mine.order_by(PullRequest.number)).all():
        if row.number in differences.closed:
            merges.close(session, row)
        else:
            made.append(merges.make(session, row, rules))
    return [build_id for build_id in made if build_id is not None]
