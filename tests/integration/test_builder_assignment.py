"""Which Builds are given to a builder of the operator's own: never a stranger's, and whatever asked for them."""

from collections.abc import Iterator

import pytest
from sqlalchemy import select

from albatros.db.models import Build, Job
from albatros.db.session import Database
from albatros.domain.inbound import HeadMoved, Inbound, Pull
from albatros.domain.states import BuildState, JobKind, Trigger
from albatros.flows.cancel import cancel
from albatros.flows.receive import trigger
from albatros.flows.rerun import rerun
from albatros.settings import BuilderSettings
from tests.integration.test_pushes import at_once, push
from tests.support.inbox import HELLO, MAIN, A, B, C, Inbox

HOUSE = BuilderSettings(name="house", job="build", forge="home", repos=("alba/h*",))


@pytest.fixture
def inbox(database: Database) -> Iterator[Inbox]:
    inbox = Inbox(database)
    inbox.settings = inbox.settings.model_copy(update={"builders": (HOUSE,)})
    yield inbox
    inbox.writer.close()


def kinds(inbox: Inbox) -> list[tuple[JobKind, str]]:
    """The first Job of each Build."""
    with inbox.database.read() as session:
        jobs = session.scalars(select(Job).order_by(Job.build_id))
        return [(job.kind, job.name) for job in jobs]


GIVEN, EVALUATED = (JobKind.BUILDER, "house"), (JobKind.EVALUATION, "evaluation")


def test_a_push_is_given_to_it_however_it_is_recorded(inbox: Inbox) -> None:
    inbox.push(None, A)
    at_once(inbox, push("p1", "hello", A, B), push("p2", "world", None, B))
    inbox.forge.refs["alba/hello"][MAIN] = C
    trigger(inbox.settings, inbox.writer, inbox.forge, ("alba", "hello"), "main")
    assert kinds(inbox) == [GIVEN, GIVEN, EVALUATED, GIVEN]


def test_only_refs_that_it_is_for_are_given_to_it(inbox: Inbox) -> None:
    inbox.deliver(None, A, "refs/tags/v1")
    inbox.settings = inbox.settings.model_copy(
        update={"builders": (HOUSE.model_copy(update={"refs": ("refs/tags/v*",)}),)}
    )
    inbox.deliver(None, B, "refs/tags/v2")
    inbox.deliver(None, C)
    assert kinds(inbox) == [EVALUATED, GIVEN, EVALUATED]


def test_a_repo_of_the_same_name_on_another_forge_is_not(inbox: Inbox) -> None:
    inbox.settings = inbox.settings.model_copy(update={"builders": (HOUSE.model_copy(update={"forge": "elsewhere"}),)})
    inbox.push(None, A)
    assert kinds(inbox) == [EVALUATED]


@pytest.mark.parametrize(("from_fork", "trusted"), [(True, True), (True, False), (False, False)])
def test_a_stranger_and_a_fork_get_the_sandbox(inbox: Inbox, from_fork: bool, trusted: bool) -> None:
    pull = Pull(7, "refs/heads/x", A, "x", "eve/hello:x", from_fork, "eve", "a change", MAIN, B)
    move = HeadMoved("refs/heads/x", None, A, Trigger.PULL_REQUEST, "eve", trusted=trusted, pull=pull)
    inbox.send(Inbound("d1", "pull_request", HELLO, (move,)))
    assert kinds(inbox) == [EVALUATED]


def test_a_rerun_is_built_as_the_settings_say_by_then(inbox: Inbox) -> None:
    (first,) = inbox.push(None, A).builds
    cancel(inbox.database, inbox.signals, first, by="alba")
    again = rerun(inbox.settings, inbox.writer, first)
    cancel(inbox.database, inbox.signals, again, by="alba")
    rerun(inbox.settings.model_copy(update={"builders": ()}), inbox.writer, again)
    assert kinds(inbox) == [GIVEN, GIVEN, EVALUATED]


def test_a_commit_that_asks_for_no_build_gets_none(inbox: Inbox) -> None:
    move = HeadMoved(MAIN, None, A, Trigger.PUSH, "alba", skip=True)
    inbox.send(Inbound("d1", "push", HELLO, (move,)))
    assert kinds(inbox) == []
    with inbox.database.read() as session:
        assert session.scalars(select(Build.state)).all() == [BuildState.SKIPPED]
