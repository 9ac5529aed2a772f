"""Pull requests on both databases: what of one is built, what it may not do, and what waits for approval."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import select

from albatros.db.models import Build, Delivery, Job, RefHead, StatusReport
from albatros.db.session import Database
from albatros.domain.inbound import Command, CommentCommand, Inbound, Pull, PullAction, PullEvent
from albatros.domain.states import BuildState, JobState, Trigger
from albatros.errors import ConflictError, ForgeError, ForgeUnavailableError, NotFoundError
from albatros.flows.approve import approve
from albatros.flows.receive import Receipt, trigger
from albatros.flows.reconcile import reconcile
from albatros.forges.base import Permission
from tests.support.inbox import HELLO, MAIN, A, B, C, Inbox

FORK = Pull(
    number=7,
    ref="refs/pull/7/head",
    commit=A,
    branch="feature",
    label="eve/hello:feature",
    from_fork=True,
    author="eve",
    title="a change",
    base_ref=MAIN,
    base_commit=C,
)
OWN = replace(FORK, number=8, ref="refs/pull/8/head", from_fork=False, author="alba", label="feature")


@pytest.fixture
def inbox(database: Database) -> Iterator[Inbox]:
    inbox = Inbox(database)
    inbox.forge.people = {"alba": Permission.ADMIN, "writer": Permission.WRITE, "reader": Permission.READ}
    yield inbox
    inbox.writer.close()


def tell(inbox: Inbox, pull: Pull, action: PullAction = PullAction.OPENED, sender: str = "", did: str = "") -> Receipt:
    """The forge has the pull request so now, and sends a webhook about it."""
    inbox.forge.pulls[pull.number] = pull
    delivery = did or f"p{inbox.count(RefHead)}-{action}-{pull.commit[:4]}"
    event = PullEvent(action, sender or pull.author, pull)
    return inbox.send(Inbound(delivery, "pull_request", HELLO, pull=event))


def builds_of(inbox: Inbox) -> list[Build]:
    with inbox.database.read() as session:
        return list(session.scalars(select(Build).order_by(Build.id)))


def test_a_strangers_pull_request_waits_and_is_not_trusted(inbox: Inbox) -> None:
    receipt = tell(inbox, FORK)
    (build,) = builds_of(inbox)
    assert receipt.builds == (build.id,)
    assert (build.ref, build.commit, build.trigger) == ("refs/pull/7/head", A, Trigger.PULL_REQUEST)
    assert (build.state, build.trusted, build.needs_approval) == (BuildState.WAITING_APPROVAL, False, True)
    assert (build.pull, build.from_fork, build.head_label, build.base_commit) == (7, True, "eve/hello:feature", C)
    assert f"/approve {A}" in build.message
    with inbox.database.read() as session:
        assert session.scalars(select(Job.state)).one() is JobState.WAITING
        status = session.scalars(select(StatusReport)).one()
    assert (status.commit, status.state) == (A, BuildState.WAITING_APPROVAL)
    assert status.description.endswith(f"/approve {A}")


@pytest.mark.parametrize(
    ("author", "sender", "waits"),
    [
        ("writer", "writer", False),
        ("writer", "alba", False),
        ("eve", "eve", True),
        ("reader", "reader", True),
        ("eve", "writer", True),
        ("writer", "eve", True),
        ("writer", "", True),
    ],
)
def test_author_and_sender_must_both_be_known_to_skip_approval(
    inbox: Inbox, author: str, sender: str, waits: bool
) -> None:
    inbox.forge.pulls[7] = replace(FORK, author=author)
    event = PullEvent(PullAction.OPENED, sender, inbox.forge.pulls[7])
    inbox.send(Inbound("d", "pull_request", HELLO, pull=event))
    (build,) = builds_of(inbox)
    assert (build.state is BuildState.WAITING_APPROVAL) == waits
    assert not build.trusted


def test_a_forge_that_does_not_say_who_it_is_makes_it_wait(inbox: Inbox) -> None:
    inbox.forge.fails = ForgeError("403")
    tell(inbox, replace(FORK, author="alba"))
    (build,) = builds_of(inbox)
    assert build.state is BuildState.WAITING_APPROVAL


def test_the_head_of_an_own_branch_reuses_the_pushs_build(inbox: Inbox) -> None:
    pushed = inbox.push(None, A, "refs/heads/feature")
    receipt = tell(inbox, OWN)
    (build,) = builds_of(inbox)
    assert pushed.builds == (build.id,)
    assert receipt.builds == ()
    assert "already known" in receipt.reason
    assert (build.pull, build.trusted, build.trigger) == (8, True, Trigger.PUSH)


def test_an_own_branchs_pull_request_that_comes_first_builds_once(inbox: Inbox) -> None:
    inbox.forge.refs["alba/hello"]["refs/heads/feature"] = A
    receipt = tell(inbox, OWN)
    pushed = inbox.deliver(None, A, "refs/heads/feature")
    (build,) = builds_of(inbox)
    assert (receipt.builds, pushed.builds) == ((build.id,), ())
    assert (build.ref, build.pull, build.trusted, build.trigger) == ("refs/heads/feature", 8, True, Trigger.PUSH)


def test_a_pull_request_that_only_claims_an_own_branch_is_a_strangers(inbox: Inbox) -> None:
    """Gitea's refs/for/… makes pull requests without a branch: its author may have no right to push."""
    for number, branch in ((8, "feature"), (9, "")):
        ref = f"refs/pull/{number}/head"
        tell(inbox, replace(OWN, number=number, ref=ref, commit=f"{number}" * 40, branch=branch, author="eve"))
    assert [(b.trusted, b.state) for b in builds_of(inbox)] == [(False, BuildState.WAITING_APPROVAL)] * 2


def test_an_own_branch_that_is_elsewhere_is_not_built(inbox: Inbox) -> None:
    inbox.forge.refs["alba/hello"]["refs/heads/feature"] = B
    receipt = tell(inbox, OWN)
    assert receipt.builds == ()
    assert "elsewhere" in receipt.reason


def test_an_own_branch_whose_forge_is_down_is_left_to_the_reconciler(inbox: Inbox) -> None:
    inbox.forge.fails = ForgeUnavailableError("down")
    receipt = tell(inbox, OWN)
    assert receipt.builds == ()
    assert "compared later" in receipt.reason


def test_a_new_head_takes_the_place_of_one_that_waits(inbox: Inbox) -> None:
    tell(inbox, FORK)
    tell(inbox, replace(FORK, commit=B), PullAction.NEW_HEAD)
    first, second = builds_of(inbox)
    assert (first.state, second.state) == (BuildState.SUPERSEDED, BuildState.WAITING_APPROVAL)
    assert (second.commit, second.sequence) == (B, 2)
    with inbox.database.read() as session:
        assert session.scalars(select(Job.state).order_by(Job.id)).all() == [JobState.CANCELLED, JobState.WAITING]


def test_a_replay_of_an_older_head_builds_nothing(inbox: Inbox) -> None:
    tell(inbox, FORK)
    newer = replace(FORK, commit=B)
    tell(inbox, newer, PullAction.NEW_HEAD)
    tell(inbox, FORK, PullAction.NEW_HEAD, did="again")
    inbox.forge.pulls[7] = newer
    for number in range(3):
        event = PullEvent(PullAction.NEW_HEAD, "eve", FORK)
        receipt = inbox.send(Inbound(f"replay{number}", "pull_request", HELLO, pull=event))
        inbox.forge.pulls[7] = newer
        assert receipt.builds == () or number == 0
    states = [build.state for build in builds_of(inbox)]
    assert states.count(BuildState.WAITING_APPROVAL) == 1


def test_closing_ends_what_waits_and_reopening_builds_again(inbox: Inbox) -> None:
    tell(inbox, FORK)
    tell(inbox, replace(FORK, open=False), PullAction.CLOSED)
    (build,) = builds_of(inbox)
    assert (build.state, build.message) == (BuildState.SUPERSEDED, "it was closed")
    tell(inbox, FORK, PullAction.REOPENED, sender="alba")
    states = [build.state for build in builds_of(inbox)]
    assert states == [BuildState.SUPERSEDED, BuildState.WAITING_APPROVAL]


def test_a_label_builds_nothing(inbox: Inbox) -> None:
    receipt = tell(inbox, FORK, PullAction.LABELLED, sender="alba")
    assert receipt.builds == ()
    assert "labelled" in receipt.reason
    assert inbox.count(RefHead) == 0


def test_a_stranger_cannot_hide_the_status_of_a_commit_that_is_built(inbox: Inbox) -> None:
    inbox.push(None, A)
    receipt = tell(inbox, FORK)
    assert receipt.builds == ()
    assert "built already" in receipt.reason


def test_a_repo_that_may_not_build_has_no_builds_of_pull_requests(inbox: Inbox) -> None:
    event = PullEvent(PullAction.OPENED, "eve", FORK)
    receipt = inbox.send(Inbound("d", "pull_request", replace(HELLO, owner="mallory"), pull=event))
    assert receipt.builds == ()
    assert "may not build here" in receipt.reason


def say(inbox: Inbox, command: Command, author: str, commit: str = "", *, comment: str = "1", did: str = "") -> Receipt:
    """A new comment with a command on pull request 7."""
    told = CommentCommand(command, comment, author, 7, commit)
    return inbox.send(Inbound(did or f"c{comment}", "issue_comment", HELLO, command=told))


def test_approval_by_a_person_with_write_access_lets_it_run(inbox: Inbox) -> None:
    tell(inbox, FORK)
    receipt = say(inbox, Command.APPROVE, "writer", A)
    assert (receipt.status, receipt.builds) == (202, ())
    assert "approved by writer" in receipt.reason
    (build,) = builds_of(inbox)
    assert (build.state, build.approved_by, build.trusted) == (BuildState.QUEUED, "writer", False)
    with inbox.database.read() as session:
        assert session.scalars(select(Job.state)).one() is JobState.QUEUED
        assert session.scalars(select(StatusReport.state)).one() is BuildState.QUEUED
        assert session.scalars(select(Delivery).where(Delivery.comment == "1")).one().reason == receipt.reason


@pytest.mark.parametrize("author", ["eve", "reader", ""])
def test_others_approve_nothing(inbox: Inbox, author: str) -> None:
    tell(inbox, FORK)
    receipt = say(inbox, Command.APPROVE, author, A)
    assert "may not push" in receipt.reason
    assert [build.state for build in builds_of(inbox)] == [BuildState.WAITING_APPROVAL]


def test_an_approval_holds_for_its_commit_alone(inbox: Inbox) -> None:
    tell(inbox, FORK)
    assert "is " + A in say(inbox, Command.APPROVE, "alba", B).reason
    inbox.forge.pulls[7] = replace(FORK, commit=B)
    assert "by now" in say(inbox, Command.APPROVE, "alba", A, comment="2").reason
    assert [build.state for build in builds_of(inbox)] == [BuildState.WAITING_APPROVAL]
    tell(inbox, inbox.forge.pulls[7], PullAction.NEW_HEAD)
    say(inbox, Command.APPROVE, "alba", B, comment="3")
    tell(inbox, replace(FORK, commit=C), PullAction.NEW_HEAD)
    assert [build.state for build in builds_of(inbox)] == [
        BuildState.SUPERSEDED,
        BuildState.QUEUED,
        BuildState.WAITING_APPROVAL,
    ]


def test_a_closed_pull_request_is_not_approved(inbox: Inbox) -> None:
    tell(inbox, FORK)
    inbox.forge.pulls[7] = replace(FORK, open=False)
    assert "not open" in say(inbox, Command.APPROVE, "alba", A).reason


def test_a_forge_that_cannot_be_asked_approves_nothing(inbox: Inbox) -> None:
    tell(inbox, FORK)
    inbox.forge.fails = ForgeUnavailableError("down")
    assert "could not be asked" in say(inbox, Command.APPROVE, "alba", A).reason
    assert [build.state for build in builds_of(inbox)] == [BuildState.WAITING_APPROVAL]


def test_a_command_that_is_sent_again_is_not_obeyed_again(inbox: Inbox) -> None:
    tell(inbox, FORK)
    say(inbox, Command.CANCEL, "alba")
    first = say(inbox, Command.RERUN, "alba", comment="2")
    assert len(first.builds) == 1
    say(inbox, Command.CANCEL, "alba", comment="3")
    for did in ("c2", "another-delivery"):
        again = say(inbox, Command.RERUN, "alba", comment="2", did=did)
        assert (again.status, again.reason) == (200, first.reason)
    assert inbox.count(Build) == 2


def test_a_rerun_of_what_was_never_approved_waits_again(inbox: Inbox) -> None:
    tell(inbox, FORK)
    assert "cancelled by alba" in say(inbox, Command.CANCEL, "alba").reason
    say(inbox, Command.RERUN, "alba", comment="2")
    assert [build.state for build in builds_of(inbox)] == [BuildState.CANCELLED, BuildState.WAITING_APPROVAL]
    say(inbox, Command.APPROVE, "alba", A, comment="3")
    say(inbox, Command.CANCEL, "alba", comment="4")
    say(inbox, Command.RERUN, "alba", comment="5")
    newest = builds_of(inbox)[-1]
    assert (newest.state, newest.approved_by, newest.pull) == (BuildState.QUEUED, "alba", 7)


def test_commands_that_have_nothing_to_do_say_so(inbox: Inbox) -> None:
    assert "no build yet" in say(inbox, Command.RERUN, "alba").reason
    assert "is open" in say(inbox, Command.CANCEL, "alba", comment="2").reason
    tell(inbox, FORK)
    assert "not ended" in say(inbox, Command.RERUN, "alba", comment="3").reason


def test_the_call_approves_what_is_still_the_head(inbox: Inbox) -> None:
    tell(inbox, FORK)
    (build,) = builds_of(inbox)
    forges = {"home": inbox.forge}
    inbox.forge.pulls[7] = replace(FORK, commit=B)
    with pytest.raises(ConflictError, match="by now"):
        approve(inbox.database, inbox.signals, forges, build.id, by="a person")
    inbox.forge.pulls[7] = FORK
    approve(inbox.database, inbox.signals, forges, build.id, by="a person")
    with pytest.raises(ConflictError, match="does not wait"):
        approve(inbox.database, inbox.signals, forges, build.id, by="a person")
    with pytest.raises(NotFoundError):
        approve(inbox.database, inbox.signals, forges, 999, by="a person")
    assert [(b.state, b.approved_by) for b in builds_of(inbox)] == [(BuildState.QUEUED, "a person")]


def test_a_strangers_commit_is_not_trusted_when_it_is_asked_for_by_its_id(inbox: Inbox) -> None:
    trigger(inbox.settings, inbox.writer, inbox.forge, ("alba", "hello"), A)
    inbox.push(None, B)
    inbox.push(B, C)
    trigger(inbox.settings, inbox.writer, inbox.forge, ("alba", "hello"), B)
    assert [(b.commit, b.trusted) for b in builds_of(inbox)] == [(A, False), (B, True), (C, True), (B, True)]


def look(inbox: Inbox) -> list[int]:
    result = reconcile(inbox.settings, inbox.database, inbox.writer, {"home": inbox.forge})
    assert result.failures == []
    return result.builds


def test_pull_requests_that_nobody_told_of_are_found(inbox: Inbox) -> None:
    inbox.forge.pulls = {5: replace(FORK, number=5, ref="refs/pull/5/head", commit=B)}
    assert look(inbox) == []
    inbox.forge.pulls |= {7: FORK, 8: OWN}
    (found,) = look(inbox)
    (build,) = builds_of(inbox)
    assert (build.id, build.pull, build.state) == (found, 7, BuildState.WAITING_APPROVAL)
    assert look(inbox) == []
    inbox.forge.pulls[7] = replace(FORK, open=False)
    assert look(inbox) == []
    assert [b.state for b in builds_of(inbox)] == [BuildState.SUPERSEDED]
    inbox.forge.pulls[7] = FORK
    assert len(look(inbox)) == 1
