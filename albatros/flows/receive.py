"""Receive: a webhook, a call or a found head becomes a committed Build.

Verify, then parse, then write: nothing of an unsigned body reaches the database but a count. What is answered is
committed. Where a move does not follow from the head known, the forge is asked before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from types import MappingProxyType
from typing import TypeVar

from sqlalchemy.orm import Session

from albatros.db.builds import NewBuild, check_room, create_build, trusted_build
from albatros.db.heads import Confirmed, HeadsInDoubtError, find_head, move_head
from albatros.db.inbox import (
    Arrival,
    Recorded,
    find_delivery,
    find_repo,
    note_reason,
    record_arrival,
    upsert_repo,
)
from albatros.db.pushes import may_be_plain, record_pushes
from albatros.db.signals import Topic
from albatros.db.writer import Writer
from albatros.domain.assigning import builder_for
from albatros.domain.inbound import Head, HeadMoved, Inbound, RepoInfo
from albatros.domain.refs import BRANCH_PREFIX, TAG_PREFIX, check_flavor, is_commit, is_ref, matches_any, one_line
from albatros.domain.states import Trigger
from albatros.errors import (
    ConflictError,
    DatabaseUnavailableError,
    ForgeError,
    NotFoundError,
    UnauthorizedError,
)
from albatros.flows import commands, merges, pulls
from albatros.flows.allowed import assignments_of, check_allowed, globs_of, merging
from albatros.flows.supersede import end_older
from albatros.forges.base import Forge, ForgeAdapter
from albatros.log import get_logger
from albatros.settings import Settings

T = TypeVar("T")
COMMIT_SECONDS = 30
DOUBT_TRIES = 3
_TOPICS = (Topic.SCHEDULER, Topic.REPORTER, Topic.WATCHERS)
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a webhook: 202, or 200 for a delivery that was answered before."""

    status: HTTPStatus
    delivery: str
    builds: tuple[int, ...]
    reason: str


def receive(
    settings: Settings,
    writer: Writer,
    forge: ForgeAdapter,
    headers: Mapping[str, str],
    body: bytes,
    flavor: str = "",
) -> Receipt:
    """Take in one webhook; header names are lower case, `flavor` is what its address says.

    Raises UnauthorizedError, BadInputError, OverloadedError or DatabaseUnavailableError; nothing is written then but
    the count of refusals.
    """
    return take(settings, writer, forge, read(writer, forge, headers, body).of_flavor(flavor), body)


def read(writer: Writer, forge: Forge, headers: Mapping[str, str], body: bytes) -> Inbound:
    """Verify a webhook, and only then parse it. Raises UnauthorizedError, which is counted, or BadInputError."""
    try:
        forge.verify(headers, body)
    except UnauthorizedError:
        writer.count(f"webhooks_refused.{forge.name}")
        raise
    return forge.parse(headers, body)


def take(settings: Settings, writer: Writer, forge: ForgeAdapter, inbound: Inbound, body: bytes) -> Receipt:
    """Commit a webhook that was read, and what follows from it; asks the forge where it has to."""
    if inbound.pull is not None:
        inbound = pulls.decide(forge, inbound)
    if inbound.command is not None:
        inbound = commands.judge(forge, inbound)
    return answer(writer, forge, inbound, record(settings, writer, forge, inbound, body))


def take_push(
    settings: Settings, writer: Writer, forge: Forge, inbound: Inbound, body: bytes
) -> Future[Recorded] | None:
    """Have a push committed together with the others of this moment; None when it is none, and `take` has to.

    The future raises HeadsInDoubtError when nothing was written, since the forge has to be asked: `take` does that.
    """
    if not may_be_plain(inbound):
        return None
    arrival = _arrival(settings, forge, inbound, body, {})
    return writer.submit_part(_record_together, arrival, partial(_record, arrival=arrival), *_TOPICS)


def answer(writer: Writer, forge: Forge, inbound: Inbound, recorded: Recorded) -> Receipt:
    """The answer to a webhook that is committed; it is counted and logged."""
    status = HTTPStatus.OK if recorded.repeated else HTTPStatus.ACCEPTED
    if not recorded.repeated:
        writer.count(f"webhooks_accepted.{forge.name}")
    _log.info(
        "webhook received",
        forge=forge.name,
        delivery=inbound.delivery_id,
        event=inbound.event,
        builds=list(recorded.builds),
        reason=recorded.reason,
        repeated=recorded.repeated,
    )
    return Receipt(status, inbound.delivery_id, recorded.builds, recorded.reason)


def record(
    settings: Settings,
    writer: Writer,
    forge: Forge,
    inbound: Inbound,
    body: bytes | None,
    confirmed: Mapping[str, Confirmed] = MappingProxyType({}),
) -> Recorded:
    """Commit what arrived and the Builds that follow from it; `confirmed` is what the forge said already."""

    def attempt(confirmed: Mapping[str, Confirmed]) -> Recorded:
        arrival = _arrival(settings, forge, inbound, body, confirmed)
        return commit(writer, partial(_record, arrival=arrival))

    return _until_certain(forge, inbound.repo, attempt, confirmed)


def _arrival(
    settings: Settings, forge: Forge, inbound: Inbound, body: bytes | None, confirmed: Mapping[str, Confirmed]
) -> Arrival:
    repo = inbound.repo
    listed = repo is not None and matches_any(repo.full_name, globs_of(settings, forge.name))
    queued_builds, merges = settings.limits.queued_builds, forge.name in merging(settings)
    return Arrival(forge.name, inbound, body, listed, queued_builds, confirmed, merges, assignments_of(settings))


def _record_together(session: Session, arrivals: Sequence[Arrival]) -> Sequence[Recorded]:
    recorded = record_pushes(session, arrivals)
    build_ids = [build_id for one in recorded for build_id in one.builds]
    end_older(session, build_ids)
    merges.follow(session, build_ids, _merge_rules(arrivals))
    return recorded


def _merge_rules(arrivals: Sequence[Arrival]) -> merges.Rules:
    return merges.Rules(frozenset(one.forge for one in arrivals if one.merges), arrivals[0].queued_builds)


def _record(session: Session, arrival: Arrival) -> Recorded:
    if arrival.inbound.command is not None:
        return commands.obey(session, arrival)
    recorded = record_arrival(session, arrival)
    if recorded.repeated:
        return recorded
    end_older(session, recorded.builds)
    if arrival.inbound.pull is not None:
        pulls.end_overtaken(session, arrival.forge, arrival.inbound)
    made = _merge_results(session, arrival, recorded)
    if not made:
        return recorded
    note_reason(session, arrival, "")
    return Recorded((*recorded.builds, *made), "")


def _merge_results(session: Session, arrival: Arrival, recorded: Recorded) -> tuple[int, ...]:
    """Make the Builds of merge results that are due after an arrival; their ids."""
    rules = _merge_rules([arrival])
    made = merges.follow(session, recorded.builds, rules)
    event = arrival.inbound.pull
    repo_id = find_repo(session, arrival) if event is not None and event.now is not None else None
    if (
        event is None
        or event.now is None
        or repo_id is None
        or arrival.inbound.flavor
        or (event.now.open and not event.head_ref)
    ):
        return made
    row = merges.note(session, repo_id, event.now, event.head_ref)
    found = merges.make(session, row, rules, find_delivery(session, arrival)) if row is not None and row.open else None
    return made if found is None else (*made, found)


def trigger(
    settings: Settings,
    writer: Writer,
    forge: Forge,
    full_name: tuple[str, str],
    ref: str,
    cause: Trigger = Trigger.API,
    before: Callable[[Session], None] = lambda _: None,
    flavor: str = "",
) -> int:
    """Build the head of a branch or tag (`main`, `refs/tags/v1`), or a full commit id; returns the Build's id.

    A commit that is no head is built under its own id as the ref, which publishes under no branch's or tag's rules, and
    without trust unless a trusted Build of it is known.
    `before` is run first in the transaction that makes the Build, and may raise.
    Raises NotFoundError, BadInputError, ForbiddenError, ForgeError or OverloadedError.
    """
    check_flavor(flavor)
    info = forge.describe(*full_name)
    found, head = _resolve(forge, info, ref)

    def attempt(confirmed: Mapping[str, Confirmed]) -> int:
        word = confirmed.get(found)
        wanted = head if word is None or word.commit is None else Head(word.commit, head.author, head.title)

        def work(session: Session) -> int:
            before(session)
            repo = upsert_repo(session, forge.name, info)
            check_allowed(settings, repo)
            sequence = _place(session, repo.id, flavor, found, wanted, word)
            check_room(session, settings.limits.queued_builds)
            # The forge also has the commits of pull requests: one that is no head may be a stranger's.
            trusted = not is_commit(found) or trusted_build(session, repo.id, found) is not None
            builder = builder_for(
                assignments_of(settings), forge.name, repo.full_name, found, trusted=trusted, from_fork=False
            )
            new = NewBuild(
                found,
                wanted.commit,
                sequence,
                cause,
                flavor=flavor,
                trusted=trusted,
                author=wanted.author,
                title=wanted.title,
                builder=builder,
            )
            build_id = create_build(session, repo.id, new)
            end_older(session, [build_id])
            merges.follow(session, [build_id], merges.Rules(merging(settings), settings.limits.queued_builds))
            return build_id

        return commit(writer, work)

    return _until_certain(forge, info, attempt)


def commit(writer: Writer, work: Callable[[Session], T]) -> T:
    """Have `work` committed, and wake whoever builds and reports. Raises what it raised, DatabaseUnavailableError."""
    try:
        return writer.submit(work, *_TOPICS).result(COMMIT_SECONDS)
    except TimeoutError:
        raise not_committed() from None


def not_committed() -> DatabaseUnavailableError:
    """What to raise after COMMIT_SECONDS."""
    return DatabaseUnavailableError(
        f"the database did not commit within {COMMIT_SECONDS} s; send this again: it is taken once only"
    )


def _until_certain(
    forge: Forge,
    repo: RepoInfo | None,
    attempt: Callable[[Mapping[str, Confirmed]], T],
    said: Mapping[str, Confirmed] = MappingProxyType({}),
) -> T:
    """Run `attempt`, asking the forge about the heads that it finds in doubt."""
    confirmed = dict(said)
    for _ in range(DOUBT_TRIES):
        try:
            return attempt(confirmed)
        except HeadsInDoubtError as doubt:
            if repo is not None:
                confirmed.update(_ask(forge, repo, doubt.refs))
    raise ConflictError("a head moves faster than the forge can be asked about it; it is compared later")


def _ask(forge: Forge, repo: RepoInfo, refs: Mapping[str, int]) -> dict[str, Confirmed]:
    answers = {}
    reachable = True
    for ref, sequence in refs.items():
        commit = None
        if reachable:
            try:
                head = forge.head(repo.owner, repo.name, ref)
                commit = head.commit if head is not None else None
            except NotFoundError:
                commit = None
            except ForgeError as error:
                reachable = False
                _log.warning("a forge cannot be asked for a head", forge=forge.name, ref=ref, error=error.detail)
        answers[ref] = Confirmed(sequence, commit, asked=reachable)
    return answers


def _resolve(forge: Forge, info: RepoInfo, ref: str) -> tuple[str, Head]:
    if is_commit(ref):
        names = [name for name, commit in forge.heads(info.owner, info.name).items() if commit == ref]
        default = BRANCH_PREFIX + info.default_branch
        name = default if default in names else min(names, default=ref)
        return name, Head(ref)
    candidates = [ref] if ref.startswith("refs/") else [BRANCH_PREFIX + ref, TAG_PREFIX + ref]
    for name in candidates:
        head = forge.head(info.owner, info.name, name) if is_ref(name) else None
        if head is not None:
            return name, head
    raise NotFoundError(f"{info.full_name} has no branch, tag or full commit id {one_line(ref, 80)!r}")


def _place(session: Session, repo_id: int, flavor: str, ref: str, head: Head, confirmed: Confirmed | None) -> int:
    """The sequence of a ref's head, which is moved to what the forge said; 0 for a commit that is no head."""
    if is_commit(ref):
        return 0
    known = find_head(session, repo_id, ref, flavor)
    if known is not None and known.commit == head.commit:
        return known.sequence
    move = HeadMoved(ref, None, head.commit, Trigger.API)
    sequence, why_not = move_head(session, repo_id, move, confirmed, flavor)
    if sequence is None:
        raise ConflictError(why_not)
    return sequence
