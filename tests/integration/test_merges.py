"""Merge results on both databases: when one is built, of which two commits, for whom, and what its commit shows."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from albatros.db.builds import NewBuild, create_build
from albatros.db.models import Build, Delivery, PullRequest, StatusReport
from albatros.db.outbox import StatusWish, part_of, put_status
from albatros.db.session import Database, now
from albatros.domain.inbound import Command, CommentCommand, Inbound, Pull, PullAction, PullEvent
from albatros.domain.states import BuildState, Reason, Trigger
from albatros.errors import ForgeUnavailableError
from albatros.flows import cancel, report
from albatros.flows.approve import approve
from albatros.flows.receive import Receipt, trigger
from albatros.flows.reconcile import reconcile
from albatros.forges.base import CommitStatus, Permission
from tests.support.inbox import HELLO, MAIN, A, B, C, Inbox, settings_with

D, E = "d" * 40, "e" * 40
FEATURE = "refs/heads/feature"
OWN = Pull(
    number=7,
    ref="refs/pull/7/head",
    commit=A,
    branch="feature",
    label="feature",
    from_fork=False,
    author="alba",
    title="a change",
    base_ref=MAIN,
)
FORK = replace(OWN, number=8, ref="refs/pull/8/head", commit=B, label="eve/hello:feature", from_fork=True, author="eve")
ON, OFF = "[on]\nmerge = true\n", "[on]\nmerge = false\n"


@pytest.fixture
def inbox(database: Database) -> Iterator[Inbox]:
    """A repo whose `main` is at C, and whose settings there ask for merge results."""
    inbox = Inbox(database)
    inbox.forge.people = {"alba": Permission.ADMIN, "writer": Permission.WRITE}
    inbox.push(None, C)
    evaluated(inbox, C, ON)
    yield inbox
    inbox.writer.close()


def evaluated(inbox: Inbox, commit: str, config: str | None) -> None:
    """An evaluation has read the `.albatros.toml` of a commit of `main`."""
    with inbox.database.write() as session:
        of_main = update(Build).where(Build.ref == MAIN, Build.commit == commit)
        session.execute(of_main.values(config=config, commit_time=1))


def tell(inbox: Inbox, pull: Pull, action: PullAction = PullAction.OPENED, did: str = "") -> Receipt:
    """The forge has the pull request so now, and sends a webhook about it."""
    inbox.forge.pulls[pull.number] = pull
    event = PullEvent(action, pull.author, pull)
    delivery = did or f"p{inbox.count(Delivery)}"
    return inbox.send(Inbound(delivery, "pull_request", HELLO, pull=event))


def open_own(inbox: Inbox) -> Receipt:
    """The branch `feature` is pushed, and a pull request opened from it."""
    inbox.push(None, A, FEATURE)
    return tell(inbox, OWN)


def builds_of(inbox: Inbox) -> list[Build]:
    """The Builds of merge results."""
    with inbox.database.read() as session:
        return list(session.scalars(select(Build).where(Build.merge_into.is_not(None)).order_by(Build.id)))


def pairs(inbox: Inbox) -> list[tuple[str, str | None, BuildState]]:
    return [(build.commit, build.base_commit, build.state) for build in builds_of(inbox)]


def statuses(inbox: Inbox, commit: str) -> dict[str, tuple[int, BuildState]]:
    with inbox.database.read() as session:
        found = session.scalars(select(StatusReport).where(StatusReport.commit == commit))
        return {row.context: (row.build_id, row.state) for row in found}


def test_the_head_and_what_it_would_make_of_its_base_are_built(inbox: Inbox) -> None:
    receipt = open_own(inbox)
    (build,) = builds_of(inbox)
    assert receipt.builds == (build.id,)
    assert receipt.reason == ""
    assert (build.ref, build.commit, build.base_commit) == ("refs/pull/7/merge", A, C)
    assert (build.merge_into, build.pull, build.head_label) == (MAIN, 7, "feature")
    assert (build.trigger, build.trusted, build.state) == (Trigger.PULL_REQUEST, True, BuildState.QUEUED)
    shown = statuses(inbox, A)
    assert shown.keys() == {"albatros", "albatros/merge"}
    assert shown["albatros/merge"] == (build.id, BuildState.QUEUED)
    assert shown["albatros"][0] != build.id


@pytest.mark.parametrize(
    ("config", "by_default", "built"), [(None, True, 1), (OFF, True, 0), (None, False, 0), (ON, False, 1)]
)
def test_the_bases_settings_decide_and_then_the_operators(
    inbox: Inbox, config: str | None, by_default: bool, built: int
) -> None:
    evaluated(inbox, C, config)
    forge = inbox.settings.forges[0].model_copy(update={"merges": by_default})
    inbox.settings = inbox.settings.model_copy(update={"forges": (forge,)})
    open_own(inbox)
    assert len(builds_of(inbox)) == built


def test_a_strangers_head_cannot_turn_it_on(inbox: Inbox) -> None:
    evaluated(inbox, C, None)
    tell(inbox, FORK)
    with inbox.database.write() as session:
        session.execute(update(Build).where(Build.pull == 8).values(config=ON, commit_time=1))
    tell(inbox, replace(FORK, commit=D), PullAction.NEW_HEAD)
    assert builds_of(inbox) == []


def test_each_move_of_head_or_base_makes_one_that_takes_the_older_ones_place(inbox: Inbox) -> None:
    open_own(inbox)
    inbox.push(C, D)
    inbox.push(A, B, FEATURE)
    tell(inbox, replace(OWN, commit=B), PullAction.NEW_HEAD)
    over = BuildState.SUPERSEDED
    assert pairs(inbox) == [(A, C, over), (A, D, over), (B, D, BuildState.QUEUED)]
    assert [build.sequence for build in builds_of(inbox)] == [1, 2, 3]
    assert builds_of(inbox)[0].reason is Reason.SUPERSEDED
    assert statuses(inbox, A)["albatros/merge"][1] is over


def test_a_base_that_goes_back_makes_another(inbox: Inbox) -> None:
    open_own(inbox)
    inbox.push(C, D)
    inbox.push(D, C)
    assert [(head, base) for head, base, _ in pairs(inbox)] == [(A, C), (A, D), (A, C)]


def test_nothing_is_built_twice(inbox: Inbox) -> None:
    open_own(inbox)
    tell(inbox, OWN, PullAction.REOPENED)
    tell(inbox, OWN, did="again")
    repeated = tell(inbox, OWN, did="again")
    assert (repeated.status, repeated.builds) == (200, ())
    inbox.deliver(None, A, FEATURE)
    inbox.deliver(None, C)
    reconcile(inbox.settings, inbox.database, inbox.writer, {"home": inbox.forge})
    reconcile(inbox.settings, inbox.database, inbox.writer, {"home": inbox.forge})
    assert len(builds_of(inbox)) == 1


def test_a_delivery_that_is_sent_again_is_answered_with_the_same_builds(inbox: Inbox) -> None:
    inbox.push(None, A, FEATURE)
    first, again = tell(inbox, OWN, did="one"), tell(inbox, OWN, did="one")
    assert first.builds == again.builds != ()
    assert (again.status, again.reason) == (200, "")


def test_the_database_refuses_a_second_build_of_one_place(inbox: Inbox) -> None:
    open_own(inbox)
    (build,) = builds_of(inbox)
    new = NewBuild(build.ref, A, build.sequence, Trigger.PULL_REQUEST, base_commit=C, merge_into=MAIN)
    with pytest.raises(IntegrityError), inbox.database.write() as session:
        create_build(session, build.repo_id, new)


def test_a_push_to_another_branch_makes_none(inbox: Inbox) -> None:
    open_own(inbox)
    inbox.push(None, D, "refs/heads/other")
    assert len(builds_of(inbox)) == 1


def test_a_trigger_that_finds_a_moved_base_makes_one(inbox: Inbox) -> None:
    open_own(inbox)
    inbox.forge.refs["alba/hello"][MAIN] = D
    trigger(inbox.settings, inbox.writer, inbox.forge, ("alba", "hello"), "main")
    assert [(head, base) for head, base, _ in pairs(inbox)] == [(A, C), (A, D)]


def test_a_closed_pull_request_has_none_until_it_is_opened_again(inbox: Inbox) -> None:
    open_own(inbox)
    tell(inbox, replace(OWN, open=False), PullAction.CLOSED)
    inbox.push(C, D)
    assert len(builds_of(inbox)) == 1
    tell(inbox, OWN, PullAction.REOPENED)
    assert [(head, base) for head, base, _ in pairs(inbox)] == [(A, C), (A, D)]


def test_an_old_webhook_does_not_open_it_again(inbox: Inbox) -> None:
    open_own(inbox)
    closed = replace(OWN, open=False)
    tell(inbox, closed, PullAction.CLOSED)
    inbox.send(Inbound("replay", "pull_request", HELLO, pull=PullEvent(PullAction.OPENED, "alba", OWN)))
    inbox.push(C, D)
    assert len(builds_of(inbox)) == 1


def test_a_commit_whose_message_asks_for_no_build_has_none(inbox: Inbox) -> None:
    inbox.push(None, A, FEATURE)
    with inbox.database.write() as session:
        of_head = update(Build).where(Build.commit == A)
        session.execute(of_head.values(state=BuildState.SKIPPED, ended_at=now()))
    tell(inbox, OWN)
    assert builds_of(inbox) == []


def test_a_head_that_the_rules_of_pushes_leave_out_has_one(inbox: Inbox) -> None:
    inbox.push(None, A, FEATURE)
    with inbox.database.write() as session:
        of_head = update(Build).where(Build.commit == A)
        session.execute(of_head.values(state=BuildState.SKIPPED, started_at=now(), ended_at=now()))
    tell(inbox, OWN)
    assert len(builds_of(inbox)) == 1


def test_a_strangers_waits_for_the_approval_of_its_head(inbox: Inbox) -> None:
    receipt = tell(inbox, FORK)
    (merge,) = builds_of(inbox)
    assert len(receipt.builds) == 2
    assert (merge.state, merge.trusted, merge.needs_approval) == (BuildState.WAITING_APPROVAL, False, True)
    assert f"/approve {B}" in merge.message
    assert (merge.base_commit, merge.from_fork) == (C, True)
    inbox.send(Inbound("c", "issue_comment", HELLO, command=CommentCommand(Command.APPROVE, "1", "writer", 8, B)))
    with inbox.database.read() as session:
        of_pull = select(Build.state, Build.approved_by).where(Build.pull == 8)
        assert session.execute(of_pull).all() == [(BuildState.QUEUED, "writer")] * 2


def test_the_button_lets_both_run_and_a_newer_base_asks_for_nothing_more(inbox: Inbox) -> None:
    tell(inbox, FORK)
    (merge,) = builds_of(inbox)
    approve(inbox.database, inbox.signals, {"home": inbox.forge}, merge.id, by="writer")
    inbox.push(C, D)
    tell(inbox, replace(FORK, commit=E), PullAction.NEW_HEAD)
    over, waits = BuildState.SUPERSEDED, BuildState.WAITING_APPROVAL
    assert pairs(inbox) == [(B, C, over), (B, D, over), (E, D, waits)]
    assert [build.approved_by for build in builds_of(inbox)] == ["writer", "writer", ""]
    assert not any(build.trusted for build in builds_of(inbox))


def test_closing_ends_what_waits(inbox: Inbox) -> None:
    tell(inbox, FORK)
    tell(inbox, replace(FORK, open=False), PullAction.CLOSED)
    assert pairs(inbox) == [(B, C, BuildState.SUPERSEDED)]


def test_a_stranger_cannot_hide_the_merge_result_of_a_commit_that_is_built(inbox: Inbox) -> None:
    open_own(inbox)
    tell(inbox, replace(FORK, commit=A))
    assert [build.pull for build in builds_of(inbox)] == [7]


def test_what_was_missed_is_made_up_by_the_reconciler(inbox: Inbox) -> None:
    def look() -> list[int]:
        return reconcile(inbox.settings, inbox.database, inbox.writer, {"home": inbox.forge}).builds

    look()
    inbox.forge.pulls = {7: OWN, 8: FORK}
    inbox.forge.refs["alba/hello"][FEATURE] = A
    assert len(look()) == 4
    assert {(build.pull, build.commit, build.base_commit) for build in builds_of(inbox)} == {(7, A, C), (8, B, C)}
    inbox.forge.refs["alba/hello"] |= {MAIN: D, "refs/heads/next": E}
    assert len(look()) == 4
    inbox.forge.pulls[7] = replace(OWN, base_ref="refs/heads/next")
    evaluated(inbox, D, ON)
    with inbox.database.write() as session:
        session.execute(update(Build).where(Build.ref == "refs/heads/next").values(config=ON, commit_time=1))
    assert len(look()) == 1
    assert (builds_of(inbox)[-1].base_commit, builds_of(inbox)[-1].merge_into) == (E, "refs/heads/next")
    del inbox.forge.pulls[8]
    look()
    assert look() == []
    with inbox.database.read() as session:
        known = select(PullRequest.number, PullRequest.open).order_by(PullRequest.number)
        assert session.execute(known).all() == [(7, True), (8, False)]


def test_pull_requests_from_before_albatros_are_left_until_they_move(database: Database) -> None:
    inbox = Inbox(database)
    forge = inbox.settings.forges[0].model_copy(update={"merges": True})
    inbox.settings = inbox.settings.model_copy(update={"forges": (forge,)})
    inbox.forge.add("alba/hello", main=C, feature=A)
    inbox.forge.pulls = {7: OWN}
    reconcile(inbox.settings, inbox.database, inbox.writer, {"home": inbox.forge})
    assert builds_of(inbox) == []
    inbox.push(C, D)
    assert pairs(inbox) == [(A, D, BuildState.QUEUED)]
    inbox.writer.close()


def test_a_forge_that_cannot_be_asked_leaves_it_to_the_reconciler(inbox: Inbox) -> None:
    reconcile(inbox.settings, inbox.database, inbox.writer, {"home": inbox.forge})
    inbox.push(None, A, FEATURE)
    inbox.forge.fails = ForgeUnavailableError("down")
    tell(inbox, OWN)
    assert builds_of(inbox) == []
    inbox.forge.fails = None
    reconcile(inbox.settings, inbox.database, inbox.writer, {"home": inbox.forge})
    assert pairs(inbox) == [(A, C, BuildState.QUEUED)]


def test_a_push_is_not_refused_for_want_of_room_for_merge_results(inbox: Inbox) -> None:
    open_own(inbox)
    full = settings_with(queued_builds=len(builds_of(inbox)) + 3)
    inbox.settings, roomy = full, inbox.settings
    assert len(inbox.push(C, D).builds) == 1
    assert pairs(inbox) == [(A, C, BuildState.QUEUED)]
    inbox.settings = roomy
    reconcile(inbox.settings, inbox.database, inbox.writer, {"home": inbox.forge})
    assert pairs(inbox)[-1] == (A, D, BuildState.QUEUED)


def test_a_rerun_command_builds_the_head_and_its_merge_result_again(inbox: Inbox) -> None:
    tell(inbox, FORK)
    with inbox.database.write() as session:
        for build in session.scalars(select(Build).where(Build.pull == 8)).all():
            cancel.cancel_locked(session, build, by="alba")
    command = CommentCommand(Command.RERUN, "2", "writer", 8)
    receipt = inbox.send(Inbound("c", "issue_comment", HELLO, command=command))
    with inbox.database.read() as session:
        again = session.scalars(select(Build).where(Build.id.in_(receipt.builds)).order_by(Build.id)).all()
    assert [(build.commit, build.merge_into, build.base_commit) for build in again] == [(B, None, C), (B, MAIN, C)]


def test_contexts_left_by_the_one_are_not_settled_by_the_other(inbox: Inbox) -> None:
    open_own(inbox)
    (merge,) = builds_of(inbox)
    with inbox.database.write() as session:
        head = session.scalars(select(Build).where(Build.commit == A, Build.merge_into.is_(None))).one()
        for build, name in ((head, "packages.x.a"), (merge, "packages.x.b")):
            wish = StatusWish(part_of(build.flavor, build.merge_into, name), BuildState.FAILED, "failed", "/jobs/1")
            put_status(session, build.repo_id, A, build.id, wish)
        cancel.cancel_locked(session, session.get_one(Build, merge.id), by="alba")
    shown = {context: state for context, (_, state) in statuses(inbox, A).items()}
    assert shown == {
        "albatros": BuildState.QUEUED,
        "albatros/packages.x.a": BuildState.FAILED,
        "albatros/merge": BuildState.CANCELLED,
        "albatros/merge:packages.x.b": BuildState.FAILED,
    }


def test_a_status_is_posted_to_the_head_as_what_it_was_pushed(inbox: Inbox) -> None:
    """GitLab keeps statuses by ref: the merge result's belongs into the pipeline of the branch."""
    open_own(inbox)
    while report.deliver_one(inbox.database, {"home": inbox.forge}, "https://ci.example.org", "me"):
        pass
    posted: dict[str, CommitStatus] = {one.context: one for one in inbox.forge.posted if one.commit == A}
    assert posted.keys() == {"albatros", "albatros/merge"}
    assert {one.ref for one in posted.values()} == {FEATURE}
