"""Receive on both databases: what arrives, what is written of it, and what a replay or a race cannot do."""

import threading
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from sqlalchemy import select, update

from albatros.db.models import Build, Counter, Delivery, Event, Job, RefHead, Repo, StatusReport
from albatros.db.session import Database, now
from albatros.db.signals import Topic
from albatros.db.writer import Writer
from albatros.domain.inbound import HeadMoved, Inbound, RepoInfo
from albatros.domain.states import BuildState, JobKind, JobState, Trigger
from albatros.errors import (
    BadInputError,
    ConflictError,
    ForbiddenError,
    ForgeUnavailableError,
    NotFoundError,
    OverloadedError,
    UnauthorizedError,
)
from albatros.flows.receive import Receipt, receive, trigger
from albatros.flows.rerun import rerun
from tests.support.forges import MemoryForge
from tests.support.inbox import GOOD, HELLO, MAIN, A, B, C, Inbox, settings_with


@pytest.fixture
def inbox(database: Database) -> Iterator[Inbox]:
    inbox = Inbox(database)
    yield inbox
    inbox.writer.close()


def test_push_becomes_a_build_with_all_its_rows(inbox: Inbox) -> None:
    receipt = inbox.push(None, A)
    assert receipt.status is HTTPStatus.ACCEPTED
    assert receipt.delivery == "d1"
    assert receipt.reason == ""
    with inbox.database.read() as session:
        build = session.scalars(select(Build)).one()
        assert receipt.builds == (build.id,)
        assert (build.number, build.ref, build.commit, build.sequence) == (1, MAIN, A, 1)
        assert (build.state, build.trigger, build.trusted) == (BuildState.QUEUED, Trigger.PUSH, True)
        assert (build.author, build.title) == ("alba", "a title")
        delivery = session.scalars(select(Delivery)).one()
        assert (delivery.id, delivery.body, delivery.reason) == (build.delivery_id, b"{}", "")
        job = session.scalars(select(Job)).one()
        assert (job.kind, job.key, job.state) == (JobKind.EVALUATION, "evaluation", JobState.QUEUED)
        event = session.scalars(select(Event)).one()
        assert (event.kind, event.build_id) == ("build.queued", build.id)
        status = session.scalars(select(StatusReport)).one()
        assert (status.context, status.state, status.sent, status.version) == ("albatros", BuildState.QUEUED, 0, 1)
        assert status.target_path == f"/builds/{build.id}"
    assert inbox.signals.seen(Topic.SCHEDULER) == 1


def test_numbers_count_per_repo(inbox: Inbox) -> None:
    inbox.push(None, A)
    inbox.push(A, B)
    inbox.deliver(None, A, repo=RepoInfo("alba", "other", private=False, default_branch="main"))
    with inbox.database.read() as session:
        assert list(session.scalars(select(Build.number).order_by(Build.id))) == [1, 2, 1]


def test_unsigned_writes_nothing_but_a_count(inbox: Inbox) -> None:
    for _ in range(3):
        with pytest.raises(UnauthorizedError):
            receive(inbox.settings, inbox.writer, inbox.forge, {"x-signature": "bad"}, b"{}")
    inbox.writer.close()
    with inbox.database.read() as session:
        counter = session.scalars(select(Counter)).one()
        assert (counter.name, counter.value) == ("webhooks_refused.home", 3)
    assert [inbox.count(table) for table in (Delivery, Repo, Build, Event)] == [0, 0, 0, 0]


def test_unreadable_writes_nothing(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(headers: object, body: object) -> Inbound:
        raise BadInputError("no JSON")

    monkeypatch.setattr(inbox.forge, "parse", refuse)
    with pytest.raises(BadInputError):
        receive(inbox.settings, inbox.writer, inbox.forge, GOOD, b"{")
    assert inbox.count(Delivery) == 0


def test_same_delivery_again_is_answered_as_the_first(inbox: Inbox) -> None:
    inbound = Inbound("same", "push", HELLO, (HeadMoved(MAIN, None, A, Trigger.PUSH),))
    first, second = inbox.send(inbound), inbox.send(inbound)
    assert second == Receipt(HTTPStatus.OK, "same", first.builds, "")
    ignored = Inbound("ping", "ping", HELLO, ignored="a ping builds nothing")
    assert inbox.send(ignored) == Receipt(HTTPStatus.ACCEPTED, "ping", (), "a ping builds nothing")
    assert inbox.send(ignored) == Receipt(HTTPStatus.OK, "ping", (), "a ping builds nothing")
    assert inbox.count(Delivery) == 2
    assert inbox.count(Build) == 1


def test_same_delivery_at_once_builds_once(inbox: Inbox) -> None:
    """Two servers are given the same delivery in the same moment."""
    other = Writer(inbox.database, inbox.signals)
    inbox.forge.inbound = Inbound("same", "push", HELLO, (HeadMoved(MAIN, None, A, Trigger.PUSH),))
    barrier = threading.Barrier(8)
    receipts: list[Receipt] = []

    def send(writer: Writer) -> None:
        barrier.wait(60)
        receipts.append(receive(inbox.settings, writer, inbox.forge, GOOD, b"{}"))

    threads = [threading.Thread(target=send, args=(writer,)) for writer in (inbox.writer, other) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert inbox.builds() == [(A, 1)]
    assert len({receipt.builds for receipt in receipts}) == 1
    assert sorted(receipt.status for receipt in receipts) == [200] * 7 + [202]


def test_force_push_there_and_back_makes_three_builds(inbox: Inbox) -> None:
    inbox.push(None, A)
    inbox.push(A, B)
    inbox.push(B, A)
    assert inbox.builds() == [(A, 1), (B, 2), (A, 3)]
    assert inbox.head() == (A, 3)


def test_replays_build_nothing(inbox: Inbox) -> None:
    """Gitea's Replay sends an old push under a new delivery id."""
    inbox.push(None, A)
    inbox.push(A, B)
    inbox.push(B, A)
    for before, after in ((None, A), (A, B), (B, A)):
        receipt = inbox.deliver(before, after)
        assert receipt.builds == ()
        assert receipt.status is HTTPStatus.ACCEPTED
        assert "already known" in receipt.reason or "replay" in receipt.reason
    assert inbox.head() == (A, 3)
    assert inbox.count(Delivery) == 6


def test_overtaken_delivery_does_not_move_the_head_back(inbox: Inbox) -> None:
    inbox.push(None, A)
    inbox.forge.refs["alba/hello"][MAIN] = C
    assert inbox.deliver(B, C).builds
    assert "overtaken" in inbox.deliver(A, B).reason
    assert inbox.builds() == [(A, 1), (C, 2)]


def test_a_doubtful_move_waits_for_a_forge_that_cannot_be_asked(inbox: Inbox) -> None:
    inbox.push(None, A)
    inbox.forge.fails = ForgeUnavailableError("down")
    receipt = inbox.deliver(B, C)
    assert receipt.builds == ()
    assert "could not be asked" in receipt.reason
    assert inbox.head() == (A, 1)
    assert inbox.deliver(A, B).builds, "a move that follows from the known head needs nobody's word"


def test_deleted_branch_is_recorded_and_builds_nothing(inbox: Inbox) -> None:
    inbox.push(None, A)
    receipt = inbox.push(A, None)
    assert receipt.builds == ()
    assert "deleted" in receipt.reason
    assert inbox.head() == (None, 2)
    assert "already deleted" in inbox.deliver(A, None).reason
    assert inbox.push(None, A).builds, "the branch is made again at the same commit"
    assert inbox.head() == (A, 3)
    assert "replay" in inbox.deliver(A, None).reason
    assert inbox.head() == (A, 3)


def test_deleting_an_unknown_branch_is_recorded(inbox: Inbox) -> None:
    receipt = inbox.deliver(A, None, ref="refs/heads/gone")
    assert (receipt.builds, receipt.reason) == ((), "refs/heads/gone was deleted; it was not known")
    assert inbox.count(RefHead) == 0


def test_repo_that_is_not_allowed_is_recorded_with_the_reason(inbox: Inbox) -> None:
    stranger = RepoInfo("eve", "evil", private=True, default_branch="main")
    receipt = inbox.deliver(None, A, repo=stranger)
    assert receipt.builds == ()
    assert "eve/evil may not build here" in receipt.reason
    assert [inbox.count(table) for table in (Delivery, Build, RefHead)] == [1, 0, 0]
    with inbox.database.write() as session:
        session.execute(update(Repo).values(allowed=True))
    assert inbox.deliver(None, A, repo=stranger).builds


def test_repo_facts_are_kept_current(inbox: Inbox) -> None:
    inbox.push(None, A)
    inbox.send(Inbound("d", "ping", RepoInfo("alba", "hello", private=True, default_branch="trunk"), ignored="ping"))
    with inbox.database.read() as session:
        repo = session.scalars(select(Repo)).one()
        assert (repo.private, repo.default_branch) == (True, "trunk")


def test_one_delivery_of_several_refs(inbox: Inbox) -> None:
    moves = (
        HeadMoved(MAIN, None, A, Trigger.PUSH),
        HeadMoved("refs/tags/v1", None, A, Trigger.TAG),
        HeadMoved("refs/heads/old", A, None, Trigger.PUSH),
    )
    receipt = inbox.send(Inbound("d", "push", HELLO, moves))
    assert len(receipt.builds) == 2
    assert receipt.reason == ""
    assert inbox.send(Inbound("d", "push", HELLO, moves)).builds == receipt.builds


def test_too_many_open_builds_are_refused_and_leave_nothing(inbox: Inbox) -> None:
    inbox.settings = settings_with(queued_builds=1)
    inbox.push(None, A)
    with pytest.raises(OverloadedError, match="queued_builds"):
        inbox.push(A, B)
    assert inbox.count(Delivery) == 1
    assert inbox.head() == (A, 1)
    with inbox.database.write() as session:
        session.execute(update(Build).values(state=BuildState.FAILED, ended_at=now()))
    assert inbox.push(A, B).builds


def test_trigger_builds_the_head_of_a_branch_tag_or_commit(inbox: Inbox) -> None:
    refs = inbox.forge.refs["alba/hello"]
    refs.update({MAIN: A, "refs/tags/v1": B})

    def triggered(ref: str) -> tuple[str, str, int, Trigger, str]:
        build_id = trigger(inbox.settings, inbox.writer, inbox.forge, ("alba", "hello"), ref)
        with inbox.database.read() as session:
            build = session.get_one(Build, build_id)
            return build.ref, build.commit, build.sequence, build.trigger, build.author

    assert triggered("main") == (MAIN, A, 1, Trigger.API, "alba")
    assert triggered("main") == (MAIN, A, 1, Trigger.API, "alba"), "the head stands where it stood"
    assert triggered("v1")[:3] == ("refs/tags/v1", B, 1)
    assert triggered("refs/tags/v1")[:3] == ("refs/tags/v1", B, 1)
    assert triggered(A)[:3] == (MAIN, A, 1)
    assert triggered(C)[:3] == (C, C, 0)
    refs[MAIN] = B
    assert triggered("main")[:3] == (MAIN, B, 2), "the forge knew of a push that never arrived"
    assert inbox.deliver(A, B).builds == (), "and its webhook comes late"
    for unknown in ("nothing", "refs/heads/nothing", "../main", "a\nb"):
        with pytest.raises(NotFoundError):
            triggered(unknown)


def test_trigger_obeys_the_same_rules(inbox: Inbox) -> None:
    inbox.forge.add("eve/evil", main=A)
    with pytest.raises(ForbiddenError, match="repo add"):
        trigger(inbox.settings, inbox.writer, inbox.forge, ("eve", "evil"), "main")
    with pytest.raises(NotFoundError):
        trigger(inbox.settings, inbox.writer, inbox.forge, ("alba", "nothing"), "main")
    assert inbox.count(Repo) == 0


def test_rerun_keeps_its_place_so_that_no_tag_goes_back(inbox: Inbox) -> None:
    (first,) = inbox.push(None, A).builds
    with pytest.raises(ConflictError, match="is queued"):
        rerun(inbox.settings, inbox.writer, first)
    inbox.push(A, B)
    with inbox.database.write() as session:
        session.execute(update(Build).where(Build.id == first).values(state=BuildState.FAILED, ended_at=now()))
    again = rerun(inbox.settings, inbox.writer, first)
    with inbox.database.read() as session:
        build = session.get_one(Build, again)
        assert (build.commit, build.ref, build.sequence, build.number) == (A, MAIN, 1, 3)
        assert (build.trigger, build.rerun_of, build.author) == (Trigger.RERUN, first, "alba")
    assert inbox.head() == (B, 2)
    with pytest.raises(NotFoundError):
        rerun(inbox.settings, inbox.writer, 10_000)


def test_many_at_once_lose_nothing(inbox: Inbox) -> None:
    """Pushes to many refs through two servers: every accepted one has its Build, and numbers have no gap."""
    other = Writer(inbox.database, inbox.signals)
    forges = [MemoryForge() for _ in range(8)]
    accepted: list[int] = []

    def push(number: int) -> None:
        forge = forges[number]
        for step in range(10):
            move = HeadMoved(f"refs/heads/b{number}-{step}", None, f"{number:020x}{step + 1:020x}", Trigger.PUSH)
            forge.inbound = Inbound(f"{number}-{step}", "push", HELLO, (move,))
            writer = (inbox.writer, other)[number % 2]
            accepted.extend(receive(inbox.settings, writer, forge, GOOD, b"{}").builds)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    with inbox.database.read() as session:
        assert sorted(accepted) == sorted(session.scalars(select(Build.id)))
        assert sorted(session.scalars(select(Build.number))) == list(range(1, 81))
