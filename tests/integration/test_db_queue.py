"""The queue on both databases: claimed once, released when everything is there, and invariants that hold themselves."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from albatros.db import queue
from albatros.db.models import Attempt, Base, Build, Image, Job, JobEdge, Publication
from albatros.db.session import Database, now
from albatros.domain.states import AttemptState, BuildState, JobState, PublicationState
from albatros.errors import ConflictError
from tests.support.rows import add_attempt, add_build, add_job, add_repo

LEASE = timedelta(minutes=2)
SYSTEMS = ("x86_64-linux",)


@pytest.fixture
def build(database: Database) -> int:
    with database.write() as session:
        return add_build(session, add_repo(session), BuildState.RUNNING).id


def add_jobs(
    database: Database, build_id: int, states: dict[str, JobState], edges: Sequence[str] = ()
) -> dict[str, int]:
    """Jobs by key, and edges `a>b` where a needs b."""
    with database.write() as session:
        build = session.get_one(Build, build_id)
        jobs = {key: add_job(session, build, state, key=key) for key, state in states.items()}
        for job in jobs.values():
            job.system = SYSTEMS[0]
        for edge in edges:
            job_key, _, needs_key = edge.partition(">")
            session.add(JobEdge(job_id=jobs[job_key].id, needs_id=jobs[needs_key].id))
        return {key: job.id for key, job in jobs.items()}


def states(database: Database, ids: dict[str, int]) -> dict[str, JobState]:
    with database.read() as session:
        return {key: session.get_one(Job, job_id).state for key, job_id in ids.items()}


def add_image(session: Session, build: Build, name: str = "hello") -> Image:
    image = Image(build=build, name=name, digest="sha256:" + "0" * 64, size=0, platforms=[], created_at=now())
    session.add(image)
    session.flush()
    return image


def add_publication(session: Session, image: Image, tag: str = "main", registry: str = "hub") -> Publication:
    row = Publication(
        image=image,
        registry_name=registry,
        name="hello",
        tag=tag,
        required=True,
        state=PublicationState.PENDING,
        next_try_at=now(),
        created_at=now(),
    )
    session.add(row)
    session.flush()
    return row


def at_once(*work: Callable[[], object]) -> list[object]:
    """Run everything in threads that begin together."""
    barrier = threading.Barrier(len(work), timeout=60)

    def begin(item: Callable[[], object]) -> object:
        barrier.wait()
        return item()

    with ThreadPoolExecutor(len(work)) as pool:
        futures: list[Future[object]] = [pool.submit(begin, item) for item in work]
        return [future.result(60) for future in futures]


def test_a_job_is_claimed_once(database: Database, build: int) -> None:
    ids = add_jobs(database, build, {f"job-{n}": JobState.QUEUED for n in range(20)})

    def claim_some() -> list[int]:
        claimed: list[int] = []
        while len(claimed) < 20:
            with database.write() as session:
                jobs = queue.ready_jobs(session, SYSTEMS, 2)
                for job in jobs:
                    queue.move_job(session, job, JobState.RUNNING)
                claimed += [job.id for job in jobs]
            if not set(states(database, ids).values()) & {JobState.QUEUED}:
                break
        return claimed

    lists = at_once(claim_some, claim_some, claim_some)
    together = [job_id for claimed in lists if isinstance(claimed, list) for job_id in claimed]
    assert sorted(together) == sorted(ids.values())


def test_jobs_that_cannot_run_are_left(database: Database, build: int) -> None:
    keys = ("waiting", "later", "foreign", "ready", "evaluation")
    ids = add_jobs(database, build, {**dict.fromkeys(keys, JobState.QUEUED), "waiting": JobState.WAITING})
    with database.write() as session:
        session.execute(update(Job).where(Job.id == ids["later"]).values(not_before=now() + timedelta(hours=1)))
        session.execute(update(Job).where(Job.id == ids["foreign"]).values(system="riscv64-linux"))
        session.execute(update(Job).where(Job.id == ids["evaluation"]).values(system=""))
    with database.write() as session:
        assert [job.key for job in queue.ready_jobs(session, SYSTEMS, 10)] == ["ready", "evaluation"]
        assert [job.key for job in queue.ready_jobs(session, SYSTEMS, 1)] == ["ready"]
        assert [job.key for job in queue.unplaceable_jobs(session, SYSTEMS, 10)] == ["foreign"]


def test_a_job_is_released_when_everything_it_needs_succeeded(database: Database, build: int) -> None:
    ids = add_jobs(
        database,
        build,
        {
            "a": JobState.RUNNING,
            "b": JobState.RUNNING,
            "both": JobState.WAITING,
            "one": JobState.WAITING,
            "top": JobState.WAITING,
        },
        ["both>a", "both>b", "one>a", "top>both"],
    )

    def succeed(key: str) -> list[str]:
        with database.write() as session:
            queue.lock_build(session, build)
            job = session.get_one(Job, ids[key])
            queue.move_job(session, job, JobState.SUCCEEDED)
            return [released.key for released in queue.release_dependents(session, job)]

    assert succeed("a") == ["one"]
    assert succeed("b") == ["both"]
    assert states(database, ids)["top"] is JobState.WAITING


def test_what_needs_a_failed_job_is_skipped_to_the_end_of_the_chain(database: Database, build: int) -> None:
    ids = add_jobs(
        database,
        build,
        {
            "bad": JobState.FAILED,
            "good": JobState.RUNNING,
            **dict.fromkeys(("one", "two", "three", "beside"), JobState.WAITING),
        },
        ["one>bad", "two>one", "three>two", "three>good", "beside>good"],
    )
    with database.write() as session:
        skipped = queue.skip_dependents(session, session.get_one(Job, ids["bad"]))
        assert [job.key for job in skipped] == ["one", "two", "three"]
    found = states(database, ids)
    assert {key for key, state in found.items() if state is JobState.SKIPPED} == {"one", "two", "three"}
    assert found["beside"] is JobState.WAITING


@pytest.mark.parametrize("table", ["build", "job", "attempt", "publication"])
def test_a_row_that_somebody_else_moved_is_not_moved_again(database: Database, build: int, table: str) -> None:
    with database.write() as session:
        row = session.get_one(Build, build)
        job = add_job(session, row, JobState.RUNNING)
        attempt = add_attempt(session, job)
        publication = add_publication(session, add_image(session, row))
    moves: dict[str, tuple[type[Base], Callable[[Session], None], object]] = {
        "build": (Build, lambda s: queue.move_build(s, row, BuildState.FAILED), BuildState.CANCELLED),
        "job": (Job, lambda s: queue.move_job(s, job, JobState.SUCCEEDED), JobState.CANCELLED),
        "attempt": (Attempt, lambda s: queue.move_attempt(s, attempt, AttemptState.SUCCEEDED), AttemptState.LOST),
        "publication": (
            Publication,
            lambda s: queue.move_publication(s, publication, PublicationState.PUSHING),
            PublicationState.FAILED,
        ),
    }
    model, move, meanwhile = moves[table]
    with database.write() as session:
        session.execute(update(model).values(state=meanwhile))
    with pytest.raises(ConflictError, match="was moved by another transaction"), database.write() as session:
        move(session)
    with database.read() as session:
        assert session.scalars(select(model.__table__.c.state)).one() == meanwhile


def test_a_job_has_one_open_attempt(database: Database, build: int) -> None:
    job = add_jobs(database, build, {"job": JobState.RUNNING})["job"]
    with database.write() as session:
        add_attempt(session, session.get_one(Job, job), AttemptState.LOST)
        add_attempt(session, session.get_one(Job, job), AttemptState.SUBMITTING)
    with pytest.raises(IntegrityError), database.write() as session:
        add_attempt(session, session.get_one(Job, job), AttemptState.CLAIMED)


def test_a_tag_has_one_push(database: Database, build: int) -> None:
    with database.write() as session:
        row = session.get_one(Build, build)
        first = add_publication(session, add_image(session, row, "one"))
        second = add_publication(session, add_image(session, row, "two"))
        elsewhere = add_publication(session, add_image(session, row, "three"), registry="static")
        first.state = elsewhere.state = PublicationState.PUSHING
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(update(Publication).where(Publication.id == second.id).values(state=PublicationState.PUSHING))


def test_publications_of_one_image_at_one_registry_are_claimed_together(database: Database, build: int) -> None:
    with database.write() as session:
        row = session.get_one(Build, build)
        one, two = add_image(session, row, "one"), add_image(session, row, "two")
        for tag in ("main", "latest"):
            add_publication(session, one, tag)
            add_publication(session, one, tag, registry="static")
        add_publication(session, two, "main")
        add_publication(session, two, "other")

    def claim() -> list[tuple[str, str, str]]:
        with database.write() as session:
            rows = queue.claim_publications(session, "me", LEASE)
            return [(item.image.name, item.registry_name, item.tag) for item in rows]

    assert claim() == [("one", "hub", "main"), ("one", "hub", "latest")]
    assert claim() == [("one", "static", "main"), ("one", "static", "latest")]
    assert claim() == [("two", "hub", "other")], "the tag that is being pushed is left"
    assert claim() == []
    with database.read() as session:
        rows = session.scalars(select(Publication)).all()
        holders = {item.holder for item in rows if item.state is PublicationState.PUSHING}
        assert len(holders) == 3, "each claim has a name of its own"
        assert {item.tries for item in rows} == {0, 1}


def test_publications_are_claimed_by_one(database: Database, build: int) -> None:
    with database.write() as session:
        image = add_image(session, session.get_one(Build, build))
        for number in range(12):
            add_publication(session, image, f"tag-{number}", registry=f"registry-{number}")

    def claim() -> list[int]:
        claimed: list[int] = []
        for _ in range(12):
            with database.write() as session:
                claimed += [row.id for row in queue.claim_publications(session, "me", LEASE)]
        return claimed

    lists = at_once(claim, claim, claim)
    together = [row for claimed in lists if isinstance(claimed, list) for row in claimed]
    assert len(together) == len(set(together)) == 12


def test_a_build_is_assembled_by_one(database: Database) -> None:
    with database.write() as session:
        repo = add_repo(session)
        for _ in range(6):
            add_build(session, repo, BuildState.PUBLISHING)

    def claim() -> list[int]:
        claimed = []
        for _ in range(6):
            with database.write() as session:
                build = queue.claim_assembly(session, "me", LEASE)
                claimed += [build.id] if build is not None else []
        return claimed

    lists = at_once(claim, claim)
    together = [row for claimed in lists if isinstance(claimed, list) for row in claimed]
    assert len(together) == len(set(together)) == 6


def test_a_lease_is_renewed_by_its_claim_alone(database: Database) -> None:
    with database.write() as session:
        build_id = add_build(session, add_repo(session), BuildState.PUBLISHING).id
    with database.write() as session:
        first = queue.claim_assembly(session, "server", LEASE)
    with database.write() as session:
        assert queue.claim_assembly(session, "server", LEASE) is None
        session.execute(update(Build).values(lease_until=now() - timedelta(seconds=1)))
    with database.write() as session:
        second = queue.claim_assembly(session, "server", LEASE)
    assert first is not None
    assert second is not None
    assert first.holder != second.holder
    with database.write() as session:
        assert not queue.renew(session, Build, [build_id], first.holder or "", LEASE)
        assert queue.renew(session, Build, [build_id], second.holder or "", LEASE)


def test_abandoned_pushes_are_those_of_nobody_or_of_the_dead(database: Database, build: int) -> None:
    holders = {"a:1": 1, "a:2": 1, "ab:1": 1, "b:1": 1, "b:2": -1, "a": 1}
    with database.write() as session:
        image = add_image(session, session.get_one(Build, build))
        for holder, minutes in holders.items():
            row = add_publication(session, image, holder.replace(":", "-"))
            row.state, row.holder = PublicationState.PUSHING, holder
            row.lease_until = now() + timedelta(minutes=minutes)
    with database.write() as session:
        assert {row.holder for row in queue.abandoned_publications(session, None)} == {"b:2"}
        assert {row.holder for row in queue.abandoned_publications(session, "a")} == {"a:1", "a:2", "a", "b:2"}


def test_the_last_two_jobs_of_a_build_that_end_at_once_see_each_other(database: Database, build: int) -> None:
    """Without the Build's row held, each would find the other still running and release nothing."""
    ids = add_jobs(
        database,
        build,
        {"a": JobState.RUNNING, "b": JobState.RUNNING, "both": JobState.WAITING},
        ["both>a", "both>b"],
    )
    first_is_done = threading.Event()
    released: list[Job] = []

    def end(key: str) -> None:
        with database.write() as session:
            queue.lock_build(session, build)
            job = session.get_one(Job, ids[key])
            queue.move_job(session, job, JobState.SUCCEEDED)
            released.extend(queue.release_dependents(session, job))
            first_is_done.set()

    with ThreadPoolExecutor(1) as pool:
        with database.write() as session:
            queue.lock_build(session, build)
            job = session.get_one(Job, ids["a"])
            queue.move_job(session, job, JobState.SUCCEEDED)
            released.extend(queue.release_dependents(session, job))
            second = pool.submit(end, "b")
            assert not first_is_done.wait(0.2), "the second waits for the first"
        second.result(60)
    assert [job.key for job in released] == ["both"]
    assert states(database, ids)["both"] is JobState.QUEUED
