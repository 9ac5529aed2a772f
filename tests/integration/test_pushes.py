"""Pushes that are recorded together, on both databases: every row of each, and nobody pays for a neighbour."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import DataError

from albatros.db.heads import HeadsInDoubtError
from albatros.db.inbox import Arrival, Recorded, record_arrival
from albatros.db.many import insert_rows
from albatros.db.models import Build, Delivery, Event, Job, RefHead, Repo, StatusReport
from albatros.db.session import Database, now
from albatros.db.upsert import table_of
from albatros.domain.inbound import HeadMoved, Inbound, RepoInfo
from albatros.domain.states import Trigger
from albatros.errors import OverloadedError
from albatros.flows import receive
from albatros.flows.receive import take_push
from tests.integration.test_writer import Gate
from tests.support.inbox import MAIN, A, B, C, Inbox, settings_with

DEV = "refs/heads/dev"
BODY = bytes(range(256))


def push(delivery: str, repo: str, before: str | None, after: str | None, ref: str = MAIN) -> Inbound:
    info = RepoInfo("alba", repo, private=False, default_branch="main")
    return Inbound(delivery, "push", info, (HeadMoved(ref, before, after, Trigger.PUSH, "alba", f"title {delivery}"),))


def at_once(inbox: Inbox, *pushes: Inbound) -> Sequence[Future[Recorded]]:
    """Have pushes recorded in one batch, and wait for it."""
    gate = Gate(inbox.writer)
    futures = []
    for inbound in pushes:
        future = take_push(inbox.settings, inbox.writer, inbox.forge, inbound, BODY)
        assert future is not None
        futures.append(future)
    gate.open()
    for future in futures:
        future.exception(10)
    return futures


def builds(database: Database) -> list[tuple[object, ...]]:
    """Each Build's repo, ref, number, commit, sequence and delivery."""
    query = (
        select(Repo.name, Build.ref, Build.number, Build.commit, Build.sequence, Delivery.delivery_id)
        .join_from(Build, Repo)
        .join(Delivery, Build.delivery_id == Delivery.id)
        .order_by(Repo.name, Build.number)
    )
    with database.read() as session:
        return [tuple(row) for row in session.execute(query)]


@pytest.fixture
def inbox(database: Database) -> Iterator[Inbox]:
    inbox = Inbox(database)
    yield inbox
    inbox.writer.close()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The deliveries that were recorded by themselves."""
    seen: list[str] = []

    def watched(session: object, arrival: Arrival) -> Recorded:
        seen.append(arrival.inbound.delivery_id)
        return record_arrival(session, arrival)  # type: ignore[arg-type]

    monkeypatch.setattr(receive, "record_arrival", watched)
    return seen


def test_a_batch_writes_every_row_of_each_push(inbox: Inbox, alone: list[str]) -> None:
    first = at_once(
        inbox, push("1", "x", None, A), push("2", "y", None, A), push("3", "x", None, A, DEV), push("4", "z", None, C)
    )
    second = at_once(inbox, push("5", "x", A, B), push("6", "y", A, B), push("7", "w", None, A))
    assert alone == []
    assert builds(inbox.database) == [
        ("w", MAIN, 1, A, 1, "7"),
        ("x", MAIN, 1, A, 1, "1"),
        ("x", DEV, 2, A, 1, "3"),
        ("x", MAIN, 3, B, 2, "5"),
        ("y", MAIN, 1, A, 1, "2"),
        ("y", MAIN, 2, B, 2, "6"),
        ("z", MAIN, 1, C, 1, "4"),
    ]
    with inbox.database.read() as session:
        ids = [build_id for future in [*first, *second] for build_id in future.result().builds]
        by_delivery = select(Build.id).join(Delivery, Build.delivery_id == Delivery.id).order_by(Delivery.delivery_id)
        assert ids == list(session.scalars(by_delivery)), "each caller is told of its own Build"
        for made in (select(Job.build_id), select(Event.build_id)):
            assert sorted(session.scalars(made)) == sorted(ids)
        heads = session.execute(select(Repo.name, RefHead.ref, RefHead.commit, RefHead.sequence).join(Repo))
        assert sorted(map(tuple, heads)) == [
            ("w", MAIN, A, 1), ("x", DEV, A, 1), ("x", MAIN, B, 2), ("y", MAIN, B, 2), ("z", MAIN, C, 1)
        ]  # fmt: skip
        shown = session.scalars(select(StatusReport.target_path))
        newest = {f"/builds/{build_id}" for build_id in ids} - {f"/builds/{ids[0]}"}
        assert set(shown) == newest, "two pushes of one commit share a status, which shows the newer Build"


def test_a_batch_keeps_texts_and_bodies_as_they_are(inbox: Inbox, alone: list[str]) -> None:
    odd = ["", "NULL", "{}", '{"a",b}', "\\\\ ' \" \\", " edge ", "grün\t→ 🐦", "%s %(x)s :y"]
    at_once(inbox, *(push(title, f"r{number}", None, A) for number, title in enumerate(odd)))
    assert alone == []
    with inbox.database.read() as session:
        assert list(session.scalars(select(Build.title).order_by(Build.id))) == [f"title {text}" for text in odd]
        assert set(session.scalars(select(Delivery.delivery_id))) == set(odd)
        assert set(session.scalars(select(Delivery.body))) == {BODY}
        assert list(session.scalars(select(Job.attributes))) == [[]] * len(odd)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_text_too_long_for_its_column_is_refused_and_not_cut(database: Database) -> None:
    row = {"kind": "k" * 65, "data": {}, "created_at": now()}
    with pytest.raises(DataError), database.write() as session:
        insert_rows(session, insert(table_of(Event)), [row])


@pytest.mark.parametrize(
    ("odd", "outcome"),
    [
        (push("odd", "x", B, C), "in doubt"),
        (push("odd", "x", None, A), "already known"),
        (push("first", "x", A, B), "repeated"),
        (push("odd", "new", None, A), "built"),
        (push("2", "y", None, A), "built"),
    ],
)
def test_a_push_that_is_not_plain_spoils_no_neighbour(inbox: Inbox, odd: Inbound, outcome: str) -> None:
    (first,) = at_once(inbox, push("first", "x", None, A))
    before, told, after = at_once(inbox, push("1", "a", None, A), odd, push("2", "y", None, A))
    assert len(before.result().builds) == 1
    assert len(after.result().builds) == 1
    if outcome == "in doubt":
        assert isinstance(told.exception(), HeadsInDoubtError)
    elif outcome == "already known":
        assert outcome in told.result().reason
    elif outcome == "repeated":
        assert told.result() == Recorded(first.result().builds, "", repeated=True)
    else:
        assert len(told.result().builds) == 1
    assert len(builds(inbox.database)) == 3 + (odd.repo is not None and odd.repo.name == "new")


def test_two_pushes_of_one_ref_in_one_batch_follow_each_other(inbox: Inbox) -> None:
    first, second = at_once(inbox, push("1", "x", None, A), push("2", "x", A, B))
    assert (len(first.result().builds), len(second.result().builds)) == (1, 1)
    assert [build[2:5] for build in builds(inbox.database)] == [(1, A, 1), (2, B, 2)]


def test_a_repo_that_may_not_build_is_recorded_with_the_reason(inbox: Inbox) -> None:
    stranger = Inbound(
        "1", "push", RepoInfo("eve", "x", private=False, default_branch="main"), push("", "x", None, A).moves
    )
    told, neighbour = at_once(inbox, stranger, push("2", "x", None, A))
    assert "may not build here" in told.result().reason
    assert len(neighbour.result().builds) == 1


def test_a_batch_over_the_limit_takes_what_there_is_room_for(inbox: Inbox) -> None:
    inbox.settings = settings_with(queued_builds=2)
    futures = at_once(inbox, *(push(str(number), f"r{number}", None, A) for number in range(4)))
    refused = [future for future in futures if isinstance(future.exception(), OverloadedError)]
    assert len(refused) == 2
    assert inbox.count(Delivery) == inbox.count(Build) == 2


def test_what_is_no_single_move_is_left_to_the_longer_way(inbox: Inbox) -> None:
    for inbound in (push("1", "x", A, None), Inbound("2", "push", None), Inbound("3", "push", None, ignored="no")):
        assert take_push(inbox.settings, inbox.writer, inbox.forge, inbound, BODY) is None
