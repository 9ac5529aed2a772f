"""Commit statuses on both databases: written with the change, delivered until done, and the last state always wins."""

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from albatros.db.models import Build, Event, Image, Job, Publication, StatusReport
from albatros.db.session import Database, now
from albatros.domain.states import BuildState, JobKind, JobState, PublicationState
from albatros.errors import ForgeError, ForgeUnavailableError
from albatros.flows import report
from albatros.flows.rerun import rerun
from albatros.forges.base import CommitStatus
from tests.support.clock import stopped_clock
from tests.support.forges import MemoryForge
from tests.support.inbox import MAIN, Inbox

A = "a" * 40
URL = "https://ci.example.org"


class Line(Inbox):
    """An inbox with one Build, whose statuses are delivered."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        (self.build,) = self.push(None, A).builds
        self.forge.asked.clear()

    def move(self, state: BuildState, build: int | None = None, message: str = "") -> None:
        with self.database.write() as session:
            row = session.get_one(Build, build or self.build)
            row.state, row.message = state, message
            report.request_status(session, row)

    def fail_job(self, attribute: str, build: int | None = None) -> None:
        self.add_job(attribute, JobState.FAILED, build)

    def add_job(self, attribute: str, state: JobState, build: int | None = None) -> None:
        with self.database.write() as session:
            job = Job(
                build_id=build or self.build,
                kind=JobKind.BUILD,
                key=f"/nix/store/{attribute}.drv",
                system="x86_64-linux",
                name=attribute,
                attributes=[attribute],
                state=state,
                message="builder failed",
                created_at=now(),
            )
            session.add(job)
            session.flush()
            if state is JobState.FAILED:
                report.request_job_status(session, job)

    def post(self, holder: str = "here") -> bool:
        return report.deliver_one(self.database, {"home": self.forge}, URL + "/", holder)

    def post_all(self) -> dict[str, tuple[BuildState, str]]:
        while self.post():
            pass
        return {status.context: (status.state, status.description) for status in self.forge.posted}

    def row(self, context: str = "albatros") -> StatusReport:
        with self.database.read() as session:
            return session.scalars(select(StatusReport).where(StatusReport.context == context)).one()

    def make_due(self) -> None:
        with self.database.write() as session:
            session.execute(update(StatusReport).values(next_try_at=now()))


@pytest.fixture
def line(database: Database) -> Iterator[Line]:
    line = Line(database)
    yield line
    line.writer.close()


def test_pending_is_due_with_the_build_and_posted_once(line: Line) -> None:
    assert line.post()
    assert line.forge.posted == [
        CommitStatus(A, "albatros", BuildState.QUEUED, "build 1 is queued", f"{URL}/builds/{line.build}", MAIN)
    ]
    assert not line.post()
    row = line.row()
    assert (row.sent, row.version, row.holder, row.error) == (1, 1, None, "")


def test_each_move_is_posted_and_skipped_ones_are_not_made_up(line: Line) -> None:
    line.post()
    line.move(BuildState.RUNNING)
    line.move(BuildState.FAILED, message="packages.x86_64-linux.hello: builder failed\nlast lines")
    assert line.post()
    assert not line.post()
    assert line.forge.posted[-1].state is BuildState.FAILED
    assert line.forge.posted[-1].description == "build 1: failed: packages.x86_64-linux.hello: builder failed"


def test_a_state_that_changes_during_the_post_is_posted_next(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    post = line.forge.post_status

    def slow_post(owner: str, name: str, status: CommitStatus) -> None:
        if status.state is BuildState.QUEUED:
            line.move(BuildState.SUCCEEDED)
        post(owner, name, status)

    monkeypatch.setattr(line.forge, "post_status", slow_post)
    assert line.post()
    assert line.post()
    assert not line.post()
    assert [status.state for status in line.forge.posted] == [BuildState.QUEUED, BuildState.SUCCEEDED]


def test_a_status_is_posted_by_one_server_at_a_time(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    other: list[bool] = []

    def post_slowly(owner: str, name: str, status: CommitStatus) -> None:
        line.move(BuildState.SUCCEEDED)
        other.append(line.post("there"))

    monkeypatch.setattr(line.forge, "post_status", post_slowly)
    line.post("here")
    assert other == [False]


def test_servers_at_once_post_every_status_once(line: Line) -> None:
    for number in range(10):
        line.fail_job(f"packages.x86_64-linux.p{number}")
    threads = [threading.Thread(target=lambda n=n: all(iter(lambda: line.post(f"s{n}"), False))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(status.context for status in line.forge.posted) == sorted(
        ["albatros", *(f"albatros/packages.x86_64-linux.p{number}" for number in range(10))]
    )


def test_killed_between_post_and_row_posts_again(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(report, "_record", die)
        with pytest.raises(KeyboardInterrupt):
            line.post()
    assert not line.post(), "the dead server's lease still holds it"
    with line.database.write() as session:
        session.execute(update(StatusReport).values(lease_until=now() - timedelta(seconds=1)))
    assert line.post("another")
    assert not line.post()
    assert [status.state for status in line.forge.posted] == [BuildState.QUEUED] * 2


def test_an_outage_is_waited_out_with_growing_pauses(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_clock(monkeypatch)
    line.forge.fails = ForgeUnavailableError("answered 503")
    pauses = []
    for _ in range(12):
        line.make_due()
        assert line.post()
        assert not line.post()
        pauses.append((line.row().next_try_at - now()).total_seconds())
    assert 1 < pauses[0] < 4
    assert pauses[3] > pauses[0]
    assert 200 < pauses[-1] < 310
    assert line.row().error == "answered 503"
    line.move(BuildState.SUCCEEDED)
    line.forge.fails = None
    assert line.post()
    assert line.forge.posted[-1].state is BuildState.SUCCEEDED
    assert (line.row().error, line.row().tries, line.post()) == ("", 1, False)


def test_a_refusal_is_tried_for_long_and_then_given_up_visibly(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_clock(monkeypatch)
    line.forge.fails = ForgeError("answered 403")
    waited = 0.0
    for _ in range(report.REFUSED_TRIES):
        line.make_due()
        assert line.post()
        waited += (line.row().next_try_at - now()).total_seconds()
    assert waited > 3600
    line.make_due()
    assert not line.post()
    assert line.row().error == "answered 403"
    with line.database.read() as session:
        given_up = session.scalars(select(Event).where(Event.kind == "status.given_up")).one()
        assert given_up.data == {"context": "albatros", "error": "answered 403"}
    line.forge.fails = None
    line.move(BuildState.SUCCEEDED)
    assert line.post(), "the next state is tried anew"


def test_a_forge_that_is_no_longer_configured(line: Line) -> None:
    assert report.deliver_one(line.database, {}, URL, "here")
    assert "'home'" in line.row().error


def test_an_older_build_never_takes_the_status_back(line: Line) -> None:
    line.move(BuildState.FAILED)
    with line.database.write() as session:
        session.execute(update(Build).values(ended_at=now()))
    newer = rerun(line.settings, line.writer, line.build)
    line.move(BuildState.SUCCEEDED, newer)
    line.move(BuildState.CANCELLED, line.build)
    assert line.post_all() == {"albatros": (BuildState.SUCCEEDED, "build 2: succeeded")}


def test_failed_jobs_have_contexts_that_a_rerun_settles(line: Line) -> None:
    line.fail_job("packages.x86_64-linux.hello")
    line.fail_job("packages.x86_64-linux.other")
    line.move(BuildState.FAILED)
    shown = line.post_all()
    assert shown["albatros/packages.x86_64-linux.hello"] == (
        BuildState.FAILED,
        "packages.x86_64-linux.hello: builder failed",
    )
    with line.database.write() as session:
        session.execute(update(Build).values(ended_at=now()))
    newer = rerun(line.settings, line.writer, line.build)
    line.add_job("packages.x86_64-linux.hello", JobState.SUCCEEDED, newer)
    line.fail_job("packages.x86_64-linux.other", newer)
    line.move(BuildState.FAILED, newer)
    shown = line.post_all()
    assert shown["albatros/packages.x86_64-linux.hello"][0] is BuildState.SUCCEEDED
    assert shown["albatros/packages.x86_64-linux.other"][0] is BuildState.FAILED


def test_contexts_of_one_commit_are_capped(line: Line) -> None:
    for number in range(30):
        line.fail_job(f"packages.x86_64-linux.p{number:02}")
    line.fail_job("packages.x86_64-linux.p00-again")
    assert len(line.post_all()) == 1 + report.MAX_EXTRA_CONTEXTS


def test_publications_share_one_context_for_each_registry(line: Line) -> None:
    with line.database.write() as session:
        image = Image(
            build_id=line.build, name="hello", digest="sha256:" + "0" * 64, size=1, platforms=[], created_at=now()
        )
        session.add(image)
        session.flush()
        tags = [
            Publication(
                image_id=image.id,
                registry_name="hub",
                name="alba/hello",
                tag=tag,
                required=True,
                state=PublicationState.PUBLISHED,
                next_try_at=now(),
                created_at=now(),
            )
            for tag in ("latest", "v1")
        ]
        session.add_all(tags)
        tags[1].state = PublicationState.PENDING
        report.request_publication_status(session, tags[0])
    assert line.post_all()["albatros/hello@hub"] == (BuildState.PUBLISHING, "publishing")

    def end(state: PublicationState, message: str = "") -> tuple[BuildState, str]:
        with line.database.write() as session:
            tag = session.scalars(select(Publication).where(Publication.tag == "v1")).one()
            tag.state, tag.message = state, message
            report.request_publication_status(session, tag)
        return line.post_all()["albatros/hello@hub"]

    assert end(PublicationState.FAILED, "denied") == (BuildState.FAILED, "alba/hello:v1 failed: denied")
    assert end(PublicationState.SUPERSEDED) == (BuildState.SUCCEEDED, "published as latest")
    assert end(PublicationState.PUBLISHED) == (BuildState.SUCCEEDED, "published as latest, v1")


def test_deliver_says_when_nothing_is_due(database: Database) -> None:
    assert not report.deliver_one(database, {"home": MemoryForge()}, URL, "here")


@pytest.mark.parametrize(
    "refusal",
    [
        ForgeError("home answered 403"),
        ForgeUnavailableError("home answered 500"),
        ForgeUnavailableError("home answered 429", 45.0),
    ],
    ids=["403", "500", "429"],
)
def test_a_forge_that_fails_for_ten_minutes_ends_with_the_right_status(
    line: Line, monkeypatch: pytest.MonkeyPatch, refusal: ForgeError
) -> None:
    clock = stopped_clock(monkeypatch)
    start = clock.time
    outage, moves = timedelta(minutes=10), [BuildState.EVALUATING, BuildState.RUNNING, BuildState.SUCCEEDED]
    tries = 0
    line.forge.fails = refusal
    while clock.time < start + 4 * outage:
        if clock.time >= start + outage:
            line.forge.fails = None
        elif moves and clock.time > start + (4 - len(moves)) * outage / 5:
            line.move(moves.pop(0))
        tries += line.post()
        clock.sleep(5)
    assert [status.state for status in line.forge.posted] == [BuildState.SUCCEEDED]
    row = line.row()
    assert (row.sent, row.error) == (row.version, "")
    assert tries < 40


def test_the_link_of_a_failure_goes_straight_to_its_log(line: Line) -> None:
    line.fail_job("packages.x86_64-linux.hello")
    line.move(BuildState.FAILED)
    line.post_all()
    with line.database.read() as session:
        job = session.scalars(select(Job.id).where(Job.state == JobState.FAILED)).one()
    assert {status.target_url for status in line.forge.posted} == {f"{URL}/jobs/{job}"}
    line.fail_job("packages.x86_64-linux.other")
    line.move(BuildState.FAILED)
    line.post_all()
    assert line.row().target_path == f"/builds/{line.build}"
