"""Events read in order: nobody runs past an id that is given out and not committed yet."""

from datetime import timedelta

from albatros.db.events import emit
from albatros.db.models import Event
from albatros.db.session import Database, now
from albatros.db.watching import GAP_PATIENCE, EventRow, events_after, log_positions, newest_event, settled
from albatros.domain.states import AttemptState, JobState
from tests.support.rows import add_attempt, add_build, add_job, add_repo


def row(event_id: int, age: timedelta = timedelta()) -> EventRow:
    return EventRow(event_id, "build.queued", "home", "alba", "hello", False, 1, {}, now() - age)


def ids(rows: object) -> list[int]:
    assert isinstance(rows, list | tuple)
    return [one.id for one in rows]


def test_a_gap_holds_back_what_follows_it_until_it_is_old() -> None:
    assert ids(settled([row(5), row(6)], 4)) == [5, 6]
    assert ids(settled([row(5), row(7)], 4)) == [5]
    assert ids(settled([row(6)], 4)) == []
    old = GAP_PATIENCE + timedelta(seconds=1)
    assert ids(settled([row(5), row(7, old), row(9)], 4)) == [5, 7]
    assert ids(settled([], 4)) == []


def test_events_come_in_order_between_two_ids(database: Database) -> None:
    with database.write() as session:
        build = add_build(session, add_repo(session))
        for number in range(10):
            emit(session, build, f"build.{number}", number=number)
    with database.read() as session:
        newest = newest_event(session)
        rows = events_after(session, newest - 10, 100)
        assert [event.kind for event in rows] == [f"build.{number}" for number in range(10)]
        assert rows[0].data == {"number": 0}
        assert ids(events_after(session, newest - 10, 3)) == ids(rows)[:3]
        assert ids(events_after(session, newest - 10, 100, up_to=newest - 5)) == ids(rows)[:5]


def test_an_event_that_commits_late_is_not_passed_over(database: Database) -> None:
    with database.write() as session:
        build = add_build(session, add_repo(session))
        emit(session, build, "build.first")
    with database.read() as session:
        start = newest_event(session)
    late, early = start + 1, start + 2
    with database.write() as session:
        session.add(_event(early, build.repo_id, build.id))
    with database.read() as session:
        assert settled(events_after(session, start, 10), start) == []
    with database.write() as session:
        session.add(_event(late, build.repo_id, build.id))
    with database.read() as session:
        assert ids(settled(events_after(session, start, 10), start)) == [late, early]


def _event(event_id: int, repo_id: int, build_id: int) -> Event:
    return Event(id=event_id, kind="build.x", repo_id=repo_id, build_id=build_id, data={}, created_at=now())


def test_a_position_is_that_of_the_newest_attempt(database: Database) -> None:
    with database.write() as session:
        build = add_build(session, add_repo(session))
        idle = add_job(session, build, JobState.QUEUED, key="idle")
        job = add_job(session, build, JobState.RUNNING)
        add_attempt(session, job, AttemptState.LOST).log_bytes = 5
        newest = add_attempt(session, job)
        newest.log_bytes = 7
    with database.read() as session:
        positions = log_positions(session, [job.id, idle.id, 999999])
    assert set(positions) == {job.id, idle.id}
    found = positions[job.id]
    assert (found.attempt_id, found.attempt, found.log_bytes) == (newest.id, 2, 7)
    assert (positions[idle.id].attempt_id, positions[idle.id].attempt) == (None, 0)
