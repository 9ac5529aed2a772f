"""Reconcile: compare the heads that the forges have with those known here, and build what was missed.

Run at start and on a schedule. A found head goes through the same transaction as a webhook, so that both together
build it once. The first look at a repo records its heads and builds its default branch alone: the other branches are
from before Albatros. One forge's or repo's failure does not stop the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from sqlalchemy import select
from sqlalchemy.orm import Session

from albatros.db.heads import Confirmed, insert_head
from albatros.db.inbox import hide_repo, upsert_repo
from albatros.db.models import RefHead, Repo
from albatros.db.session import Database
from albatros.db.writer import Writer
from albatros.domain.inbound import Head, HeadMoved, Inbound, Pull, PullAction, PullEvent, RepoInfo
from albatros.domain.refs import BRANCH_PREFIX, TAG_PREFIX, matches_any, pull_number
from albatros.domain.states import Trigger
from albatros.errors import AlbatrosError, DatabaseUnavailableError, ForgeError, ForgeUnavailableError, NotFoundError
from albatros.flows import pulls, receive
from albatros.flows.allowed import globs_of, is_allowed
from albatros.flows.reconcile_pulls import OpenPulls, follow_open
from albatros.forges.base import ForgeAdapter
from albatros.log import get_logger
from albatros.settings import Settings

MAX_REF_SHOWN = 80
MAX_UNREACHABLE = 3
"""Repos that one look may wait for in vain before it leaves a forge for the next time."""
HEADS_AT_ONCE = 500
_log = get_logger(__name__)


@dataclass(slots=True)
class Reconciled:
    """What a look at the forges found."""

    builds: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Heads:
    """A repo's heads of one flavor as they are recorded: commit and sequence by ref."""

    flavor: str = ""
    heads: Mapping[str, tuple[str | None, int]] = field(default_factory=dict)
    older: frozenset[str] = frozenset()
    """Refs from before the flavor: it has them from the next push on."""

    def of(self, ref: str) -> tuple[str | None, int]:
        """What is known of a ref."""
        return self.heads.get(ref, (None, 0))


@dataclass(frozen=True, slots=True)
class _Known:
    """What is recorded of a repo, read before the forge is asked: the heads of each flavor that it has had."""

    flavors: tuple[_Heads, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class _Look:
    """A repo as its forge has it now."""

    settings: Settings
    writer: Writer
    forge: ForgeAdapter
    info: RepoInfo
    there: Mapping[str, str]
    strangers: Mapping[str, Pull]
    """Open pull requests of forks, by the ref of their heads."""


def reconcile(settings: Settings, database: Database, writer: Writer, forges: Mapping[str, ForgeAdapter]) -> Reconciled:
    """Compare every allowed repo of every forge. Raises DatabaseUnavailableError; other failures are in the answer."""
    result = Reconciled()
    for forge in forges.values():
        try:
            _reconcile_forge(settings, database, writer, forge, result)
        except ForgeError as error:
            _fail(result, forge, "", error)
    if result.builds:
        _log.info("heads moved while nobody listened", builds=result.builds)
    return result


def _reconcile_forge(
    settings: Settings, database: Database, writer: Writer, forge: ForgeAdapter, result: Reconciled
) -> None:
    unreachable = 0
    for info in _allowed_repos(settings, database, forge):
        try:
            result.builds += _reconcile_repo(settings, database, writer, forge, info)
        except DatabaseUnavailableError:
            raise
        except AlbatrosError as error:
            _fail(result, forge, info.full_name, error)
            unreachable += isinstance(error, ForgeUnavailableError)
        if unreachable >= MAX_UNREACHABLE:
            return


def _fail(result: Reconciled, forge: ForgeAdapter, repo: str, error: AlbatrosError) -> None:
    result.failures.append(f"{repo or forge.name}: {error.detail}")
    _log.warning(
        "heads could not be compared; they are at the next look", forge=forge.name, repo=repo, error=error.detail
    )


def _allowed_repos(settings: Settings, database: Database, forge: ForgeAdapter) -> Iterable[RepoInfo]:
    """The repos known here that may build, as known here, then those that the forge lists and its globs cover."""
    with database.read() as session:
        rows = session.scalars(select(Repo).where(Repo.forge == forge.name).order_by(Repo.id)).all()
    known = {row.full_name: row for row in rows}
    for row in rows:
        if is_allowed(settings, row):
            yield RepoInfo(row.owner, row.name, row.private, row.default_branch)
    globs = globs_of(settings, forge.name)
    if globs:
        yield from (i for i in forge.repos() if i.full_name not in known and matches_any(i.full_name, globs))


def _reconcile_repo(
    settings: Settings, database: Database, writer: Writer, forge: ForgeAdapter, listed: RepoInfo
) -> list[int]:
    known = _read_known(database, forge.name, listed)
    info = _describe(writer, forge, listed)
    heads = forge.heads(listed.owner, listed.name)
    open_pulls = list(forge.open_pulls(listed.owner, listed.name))
    strangers = {pull.ref: pull for pull in open_pulls if pull.from_fork}
    there = {**heads, **{ref: pull.commit for ref, pull in strangers.items()}}
    look = _Look(settings, writer, forge, info, there, strangers)
    # Who never sent a plain push has webhooks with flavors alone.
    flavors = known.flavors or (_Heads(),)
    if not known.complete:
        flavors = tuple(replace(one, older=_from_before(look, one)) for one in flavors)
    builds = [build for one in flavors for build in _follow_all(look, one)]
    if not known.complete:
        for one in flavors:
            _record_old(writer, forge.name, info, one.flavor, {ref: there[ref] for ref in one.older})
        _complete(writer, forge.name, info)
    listed_pulls = OpenPulls(forge.name, info, open_pulls, heads, first_look=not known.complete)
    return builds + follow_open(settings, database, writer, listed_pulls)


def _from_before(look: _Look, known: _Heads) -> frozenset[str]:
    """What is not to be built at the first look at a repo: of one that never pushed, all but its default branch."""
    wanted = () if known.heads else (BRANCH_PREFIX + look.info.default_branch,)
    return frozenset(ref for ref in look.there if ref not in known.heads and ref not in wanted)


def _follow_all(look: _Look, known: _Heads) -> list[int]:
    """Move every head of one flavor to where the forge has it; the ids of the Builds that this made."""
    info, strangers = look.info, look.strangers
    moved = [ref for ref, commit in look.there.items() if known.of(ref)[0] != commit and ref not in known.older]
    gone = [ref for ref, (commit, _) in known.heads.items() if commit is not None and ref not in look.there]
    closed = [number for ref in gone if (number := pull_number(ref)) is not None]
    builds: list[int] = []
    for ref in (*gone, *moved):
        if ref not in strangers and pull_number(ref) is None:
            builds += _follow(look, ref, known)
    found = [strangers[ref] for ref in moved if ref in strangers]
    found += [pull for number in closed if (pull := look.forge.pull(info.owner, info.name, number))]
    for pull in found:
        builds += _follow_pull(look, pull, known)
    return builds


def _describe(writer: Writer, forge: ForgeAdapter, listed: RepoInfo) -> RepoInfo:
    """A repo as the forge has it now: whether it is private must not wait for the next push. Raises as `describe`."""
    try:
        info = forge.describe(listed.owner, listed.name)
    except NotFoundError:
        # What the forge does not show us any more is for nobody else to see here.
        receive.commit(writer, lambda session: hide_repo(session, forge.name, listed))
        raise
    if info != listed:
        receive.commit(writer, lambda session: upsert_repo(session, forge.name, info))
    return info


def _read_known(database: Database, forge: str, info: RepoInfo) -> _Known:
    with database.read() as session:
        repo = session.scalar(select(Repo).where(Repo.forge == forge, Repo.owner == info.owner, Repo.name == info.name))
        if repo is None:
            return _Known((), complete=False)
        rows = session.scalars(select(RefHead).where(RefHead.repo_id == repo.id).order_by(RefHead.id)).all()
    by_flavor: dict[str, list[RefHead]] = {}
    for row in rows:
        by_flavor.setdefault(row.flavor, []).append(row)
    return _Known(tuple(_heads(own, rows) for own in by_flavor.values()), repo.heads_known)


def _heads(own: Sequence[RefHead], all_rows: Sequence[RefHead]) -> _Heads:
    """The heads of one flavor, of which there are some."""
    heads = {row.ref: (row.commit, row.sequence) for row in own}
    older = frozenset(row.ref for row in all_rows if row.ref not in heads and row.id < own[0].id)
    return _Heads(own[0].flavor, heads, older)


def _follow(look: _Look, ref: str, known: _Heads) -> tuple[int, ...]:
    """Move one head to where the forge has it now; the ids of the Builds that this made."""
    before, sequence = known.of(ref)
    forge, info = look.forge, look.info
    head = forge.head(info.owner, info.name, ref) or Head("")
    after = head.commit or None
    if after == before:
        return ()
    trigger = Trigger.TAG if ref.startswith(TAG_PREFIX) else Trigger.PUSH
    move = HeadMoved(ref, before, after, trigger, head.author, head.title, skip=head.skip)
    inbound = Inbound(_delivery_id(info, ref, after, sequence), "reconcile", info, (move,)).of_flavor(known.flavor)
    word = {ref: Confirmed(sequence, after)}
    recorded = receive.record(look.settings, look.writer, forge, inbound, None, word)
    return () if recorded.repeated else recorded.builds


def _follow_pull(look: _Look, pull: Pull, known: _Heads) -> tuple[int, ...]:
    """Move the head of a stranger's pull request; who pushed it is not known, so that it waits for approval."""
    after = pull.commit if pull.open else None
    action = PullAction.NEW_HEAD if pull.open else PullAction.CLOSED
    sequence = known.of(pull.ref)[1]
    delivery = _delivery_id(look.info, pull.ref, after, sequence)
    inbound = Inbound(delivery, "reconcile", look.info, pull=PullEvent(action, "", pull)).of_flavor(known.flavor)
    word = {pull.ref: Confirmed(sequence, after)}
    recorded = receive.record(look.settings, look.writer, look.forge, pulls.decide(look.forge, inbound), None, word)
    return () if recorded.repeated else recorded.builds


def _delivery_id(info: RepoInfo, ref: str, commit: str | None, sequence: int) -> str:
    """The same for the same find, so that two servers that look at once build it once."""
    ref = ref if len(ref) <= MAX_REF_SHOWN else hashlib.sha256(ref.encode()).hexdigest()
    repo = (
        info.full_name if len(info.full_name) <= MAX_REF_SHOWN else hashlib.sha256(info.full_name.encode()).hexdigest()
    )
    return f"reconcile:{repo}:{ref}:{commit or 'deleted'}:{sequence}"


def _record_old(writer: Writer, forge: str, info: RepoInfo, flavor: str, heads: Mapping[str, str]) -> None:
    """Record heads from before Albatros without building them."""
    items = list(heads.items())

    def insert_some(part: Sequence[tuple[str, str]], session: Session) -> None:
        repo = upsert_repo(session, forge, info)
        for ref, commit in part:
            insert_head(session, repo.id, ref, commit, flavor)

    parts = [items[start : start + HEADS_AT_ONCE] for start in range(0, len(items), HEADS_AT_ONCE)]
    for part in parts:
        receive.commit(writer, partial(insert_some, part))


def _complete(writer: Writer, forge: str, info: RepoInfo) -> None:
    """Record that a head unknown from now on is a new one."""

    def work(session: Session) -> None:
        upsert_repo(session, forge, info).heads_known = True

    receive.commit(writer, work)
