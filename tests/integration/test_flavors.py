"""Flavors on both databases: each is a Build, a head and a commit status of its own, however the move was found."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, update

from albatros.db.models import Build, Delivery, RefHead, StatusReport
from albatros.db.session import Database, now
from albatros.domain.inbound import Command, CommentCommand, HeadMoved, Inbound, Pull, PullAction, PullEvent
from albatros.domain.states import BuildState, PublicationState, Reason, Trigger
from albatros.errors import BadInputError
from albatros.flows import report
from albatros.flows.receive import trigger
from albatros.flows.reconcile import reconcile
from albatros.flows.rerun import rerun
from albatros.forges.base import Permission
from tests.integration.test_pushes import at_once, push
from tests.support.flows import World, settings_of
from tests.support.inbox import HELLO, MAIN, A, B, C, Inbox
from tests.support.pushing import assembled, digest_of_build, hub, tag_states

OLD, NEW = "refs/heads/old", "refs/heads/new"
PULL = Pull(7, "refs/pull/7/head", A, "x", "eve/hello:x", True, "eve", "a change", MAIN, B)


@pytest.fixture
def inbox(database: Database) -> Iterator[Inbox]:
    inbox = Inbox(database)
    yield inbox
    inbox.writer.close()


def flavored(inbox: Inbox) -> list[tuple[str, str, int]]:
    """Each Build's flavor, commit and sequence."""
    with inbox.database.read() as session:
        return [
            (build.flavor, build.commit, build.sequence) for build in session.scalars(select(Build).order_by(Build.id))
        ]


def look(inbox: Inbox) -> list[int]:
    return reconcile(inbox.settings, inbox.database, inbox.writer, {"home": inbox.forge}).builds


def test_one_push_to_two_addresses_is_two_builds_and_a_replay_none(inbox: Inbox) -> None:
    for flavor in ("", "nightly"):
        inbox.deliver(None, A, flavor=flavor)
    for flavor in ("", "nightly", "nightly"):
        inbox.deliver(A, B, flavor=flavor)
    inbox.forge.refs["alba/hello"][MAIN] = B
    assert inbox.deliver(None, A, flavor="nightly").builds == ()
    assert flavored(inbox) == [("", A, 1), ("nightly", A, 1), ("", B, 2), ("nightly", B, 2)]
    assert inbox.forge.asked == [f"head {MAIN}"], "only the replay was in doubt"


def test_a_forge_may_send_both_with_one_id(inbox: Inbox) -> None:
    inbound = Inbound("same", "push", HELLO, (HeadMoved(MAIN, None, A, Trigger.PUSH),))
    answers = [inbox.send(inbound, flavor=flavor) for flavor in ("", "nightly", "nightly")]
    assert [len(answer.builds) for answer in answers] == [1, 1, 1]
    assert answers[1] == replace(answers[2], status=answers[1].status), "told again, not built again"
    with inbox.database.read() as session:
        assert sorted(session.scalars(select(Delivery.delivery_id))) == ["same", "same?flavor=nightly"]


def test_pushes_of_several_flavors_are_recorded_together(inbox: Inbox) -> None:
    def at(delivery: str, before: str | None, after: str, flavor: str) -> Inbound:
        return push(delivery, "x", before, after).of_flavor(flavor)

    at_once(inbox, at("1", None, A, ""), at("1", None, A, "f"), at("1", None, A, "g"))
    at_once(inbox, at("2", A, B, ""), at("2", A, B, "f"))
    at_once(inbox, at("3", B, C, ""), at("3", B, C, "f"), at("3", A, C, "g"))
    assert sorted(flavored(inbox)) == [
        ("", A, 1), ("", B, 2), ("", C, 3), ("f", A, 1), ("f", B, 2), ("f", C, 3), ("g", A, 1), ("g", C, 2)
    ]  # fmt: skip


def test_each_flavor_has_contexts_of_its_own(inbox: Inbox) -> None:
    builds = [inbox.deliver(None, A, flavor=flavor).builds[0] for flavor in ("", "nightly")]
    with inbox.database.write() as session:
        for build_id, state in zip(builds, (BuildState.SUCCEEDED, BuildState.FAILED), strict=True):
            build = session.get_one(Build, build_id)
            build.state, build.ended_at = state, now()
            report.request_status(session, build)
    again = rerun(inbox.settings, inbox.writer, builds[1])
    with inbox.database.read() as session:
        shown = {row.context: (row.state, row.build_id) for row in session.scalars(select(StatusReport))}
    assert shown == {"albatros": (BuildState.SUCCEEDED, builds[0]), "albatros:nightly": (BuildState.QUEUED, again)}
    assert flavored(inbox)[-1] == ("nightly", A, 1), "a rerun keeps the flavor"


def test_a_flavor_is_triggered_by_hand(inbox: Inbox) -> None:
    refs = inbox.forge.refs["alba/hello"]
    refs[MAIN] = A
    for flavor in ("", "nightly", "nightly"):
        trigger(inbox.settings, inbox.writer, inbox.forge, ("alba", "hello"), "main", flavor=flavor)
    refs[MAIN] = B
    trigger(inbox.settings, inbox.writer, inbox.forge, ("alba", "hello"), "main", flavor="nightly")
    assert flavored(inbox) == [("", A, 1), ("nightly", A, 1), ("nightly", A, 1), ("nightly", B, 2)]
    assert inbox.deliver(A, B, flavor="nightly").builds == (), "its webhook comes late"
    assert len(inbox.deliver(A, B).builds) == 1, "the plain one still moves by itself"
    with pytest.raises(BadInputError, match="is no flavor"):
        trigger(inbox.settings, inbox.writer, inbox.forge, ("alba", "hello"), "main", flavor="Nightly")


def test_a_push_that_was_missed_is_found_in_every_flavor_that_is_known(inbox: Inbox) -> None:
    refs = inbox.forge.refs["alba/hello"]
    refs.update({MAIN: A, OLD: A})
    look(inbox)
    inbox.deliver(None, A, flavor="nightly")
    assert look(inbox) == [], "branches from before the flavor are left alone"
    refs.update({MAIN: B, NEW: C})
    assert len(look(inbox)) == 4
    assert look(inbox) == []
    assert sorted(flavored(inbox)) == [
        ("", A, 1), ("", B, 2), ("", C, 1), ("nightly", A, 1), ("nightly", B, 2), ("nightly", C, 1)
    ]  # fmt: skip
    del refs[NEW]
    look(inbox)
    with inbox.database.read() as session:
        assert set(session.scalars(select(RefHead.commit).where(RefHead.ref == NEW))) == {None}


def test_a_repo_that_pushes_in_a_flavor_alone_gets_no_plain_builds(inbox: Inbox) -> None:
    refs = inbox.forge.refs["alba/hello"]
    refs.update({MAIN: A, OLD: A})
    inbox.deliver(None, A, flavor="nightly")
    assert look(inbox) == [], "the first look"
    refs.update({MAIN: B, NEW: C})
    assert len(look(inbox)) == 2
    assert sorted(flavored(inbox)) == [("nightly", A, 1), ("nightly", B, 2), ("nightly", C, 1)]
    inbox.deliver(A, B)
    assert look(inbox) == [], "branches from before its first plain push are left alone"
    refs[MAIN] = C
    assert len(look(inbox)) == 2, "from then on it is followed plain too"


def test_commands_are_for_every_flavor_of_a_pull_request(inbox: Inbox) -> None:
    inbox.forge.pulls[7], inbox.forge.people["alba"] = PULL, Permission.WRITE
    event = PullEvent(PullAction.OPENED, "eve", PULL)
    for flavor in ("", "nightly"):
        inbox.send(Inbound("p", "pull", HELLO, pull=event), flavor=flavor)

    def command(word: Command, comment: str, flavor: str = "") -> tuple[int, ...]:
        asked = CommentCommand(word, comment, "alba", 7, A)
        return inbox.send(Inbound(comment, "comment", HELLO, command=asked), flavor=flavor).builds

    command(Command.APPROVE, "1")
    with inbox.database.write() as session:
        assert set(session.scalars(select(Build.state))) == {BuildState.QUEUED}
        ended = {"state": BuildState.FAILED, "reason": Reason.BUILD_FAILED, "ended_at": now()}
        session.execute(update(Build).values(ended))
    assert len(command(Command.RERUN, "2")) == 2
    assert command(Command.RERUN, "2", "nightly") == (), "the same comment is obeyed once"
    assert [flavor for flavor, _, _ in flavored(inbox)] == ["", "nightly", "", "nightly"]


def test_a_flavor_with_fewer_pushes_is_not_taken_for_an_older_one(database: Database, tmp_path: Path) -> None:
    world = World(database, settings_of(tmp_path))
    for _ in range(3):
        assembled(world, "plain")
        world.publish()
    build = assembled(world, "nightly", flavor="nightly")
    world.publish()
    assert tag_states(world, build)["main"] is PublicationState.PUBLISHED
    assert hub(world).tag("hello", "main") == digest_of_build(world, build)
