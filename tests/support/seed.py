"""A database as a server has it after a busy morning: for browser tests and screenshots.

Four repos (one private), builds in every state, an image for four platforms on two registries, a failed build with its
log, and one that runs. `Seeded` names the rows that tests look at.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from albatros.db.models import Base, Build, Job, Repo
from albatros.db.session import Database, now
from albatros.domain.states import BuildState, JobState, PublicationState, Reason, Trigger
from albatros.settings import Settings
from tests.support.seed_logs import BROKEN_FLAKE, BUILT, FAILING, RUNNING
from tests.support.seed_rows import Push, Seeder

MAIN = "refs/heads/main"
FOUR = [JobState.SUCCEEDED] * 4


@dataclass
class Seeded:
    """Ids of the rows that tests open, by what they are."""

    published: int = 0
    failed: int = 0
    failed_job: int = 0
    running: int = 0
    running_job: int = 0
    running_attempt: str = ""
    retrying: int = 0
    private: int = 0


def seed_settings(data: str) -> Settings:
    """The configuration that the seeded rows belong to."""
    return Settings.model_validate(
        {
            "server": {"data": data, "public": True},
            "forges": [
                {
                    "name": "home",
                    "kind": "gitea",
                    "url": "https://git.example.org",
                    "webhook_secret": "not-a-secret",
                    "repos": ["alba/*"],
                }
            ],
            "registries": [
                {"name": "hub", "url": "docker://hub.example.org/alba", "names": ["{repo}"]},
                {"name": "static", "url": "dir:/srv/registry"},
            ],
        }
    )


def seed(database: Database, clock: datetime | None = None) -> Seeded:
    """Make the tables and fill them; times are relative to `clock`, the present when it is None."""
    Base.metadata.create_all(database.engine)
    seeded = Seeded()
    with database.write() as session:
        seeder = Seeder(session, clock or now())
        hello, driftnote = seeder.repo("alba", "hello"), seeder.repo("alba", "driftnote")
        lighthouse, keys = seeder.repo("alba", "lighthouse"), seeder.repo("alba", "keys", private=True)
        _history(seeder, hello, driftnote, lighthouse)
        seeded.private = _published(seeder, keys, "Rotate the signing keys", 55, "keys").id
        _failed(seeder, driftnote, seeded)
        seeded.published = _published(seeder, hello, "Say hello on four platforms", 12, "hello").id
        _retrying(seeder, lighthouse, seeded)
        _running(seeder, hello, seeded)
        queued = Push(
            driftnote, "refs/pull/23/head", "Keep notes for a fortnight", "Ines", 0.1, Trigger.PULL_REQUEST, False
        )
        seeder.evaluation(seeder.build(queued, BuildState.QUEUED), JobState.QUEUED)
    return seeded


def another_running_job(database: Database) -> tuple[int, str]:
    """A build of its own whose one job runs: the ids of the job and of its attempt, which has one piece of log."""
    with database.write() as session:
        seeder = Seeder(session, now())
        repo = session.scalars(select(Repo).where(Repo.name == "hello")).one()
        build = seeder.build(Push(repo, "refs/heads/live", "Watch me", "Ines", 0.1), BuildState.RUNNING)
        states = [JobState.RUNNING, JobState.QUEUED, JobState.QUEUED, JobState.QUEUED]
        job = seeder.jobs(build, "hello", states)[0]
        return job.id, seeder.attempt(job, RUNNING.format(drv=job.drv_path)).id


def _published(seeder: Seeder, repo: Repo, title: str, minutes_ago: float, name: str) -> Build:
    build = seeder.build(Push(repo, MAIN, title, "Ada Lovelace", minutes_ago), BuildState.SUCCEEDED, took=19.4)
    seeder.evaluation(build)
    for job in seeder.jobs(build, name, FOUR):
        seeder.attempt(job, BUILT.format(name=name, drv=job.drv_path))
        seeder.artifact(job, name)
    image = seeder.image(build, name)
    for registry, path in (("hub", name), ("static", f"alba/{name}")):
        for tag in ("main", build.commit[:12]):
            seeder.publication(image, registry, path, tag, PublicationState.PUBLISHED)
    seeder.status(build)
    seeder.head(repo, MAIN, build.commit, minutes_ago)
    return build


def _failed(seeder: Seeder, repo: Repo, seeded: Seeded) -> None:
    message = "packages.armv6l-linux.driftnote failed: its builder exited with status 1."
    push = Push(repo, "refs/heads/tides", "Store tides as 64-bit counters", "Grace Hopper", 31)
    build = seeder.build(push, BuildState.FAILED, took=14.2, reason=Reason.BUILD_FAILED, message=message)
    seeder.evaluation(build)
    jobs = seeder.jobs(build, "driftnote", [*FOUR[:3], JobState.FAILED])
    for job in jobs[:3]:
        seeder.attempt(job, BUILT.format(name="driftnote", drv=job.drv_path))
    jobs[3].reason, jobs[3].message = Reason.BUILD_FAILED, "Its builder exited with status 1."
    seeder.attempt(jobs[3], FAILING.format(drv=jobs[3].drv_path))
    seeder.status(build)
    seeder.head(repo, push.ref, build.commit, 31)
    seeded.failed, seeded.failed_job = build.id, jobs[3].id


def _retrying(seeder: Seeder, repo: Repo, seeded: Seeded) -> None:
    push = Push(repo, "refs/tags/v1.4.0", "Release 1.4.0", "Grace Hopper", 4, Trigger.TAG)
    message = "2 of 4 publications are done; registry hub does not answer and is tried again."
    build = seeder.build(push, BuildState.PUBLISHING, message=message)
    seeder.evaluation(build)
    for job in seeder.jobs(build, "lighthouse", FOUR):
        seeder.attempt(job, BUILT.format(name="lighthouse", drv=job.drv_path))
    image = seeder.image(build, "lighthouse")
    down = "hub.example.org refused the connection; is it up?"
    for tag in ("1.4.0", "latest"):
        seeder.publication(image, "hub", "lighthouse", tag, PublicationState.PENDING, down, tries=3)
        seeder.publication(image, "static", "alba/lighthouse", tag, PublicationState.PUBLISHED)
    seeder.head(repo, push.ref, build.commit, 4)
    seeded.retrying = build.id


def _running(seeder: Seeder, repo: Repo, seeded: Seeded) -> None:
    push = Push(repo, "refs/heads/dialects", "Greet in the reader's own language", "Ada Lovelace", 0.7)
    build = seeder.build(push, BuildState.RUNNING)
    seeder.evaluation(build)
    states = [JobState.SUCCEEDED, JobState.RUNNING, JobState.QUEUED, JobState.WAITING]
    jobs: list[Job] = seeder.jobs(build, "hello", states)
    seeder.attempt(jobs[0], BUILT.format(name="hello", drv=jobs[0].drv_path))
    seeder.edge(jobs[3], jobs[1])
    attempt = seeder.attempt(jobs[1], RUNNING.format(drv=jobs[1].drv_path), number=2)
    seeder.head(repo, push.ref, build.commit, 0.7)
    seeded.running, seeded.running_job, seeded.running_attempt = build.id, jobs[1].id, attempt.id


def _history(seeder: Seeder, hello: Repo, driftnote: Repo, lighthouse: Repo) -> None:
    """Older builds, so that a list has every state in it."""
    _published(seeder, lighthouse, "Dim the lamp at dawn", 300, "lighthouse")
    _published(seeder, driftnote, "First notes", 290, "driftnote")
    broken = Push(hello, "refs/heads/flake", "Tidy the flake", "Ines", 240)
    message = "The flake does not evaluate: syntax error at flake.nix:12:3, unexpected '}', expecting ';'."
    build = seeder.build(broken, BuildState.FAILED, took=1.1, reason=Reason.EVALUATION_FAILED, message=message)
    evaluation = seeder.evaluation(build, JobState.FAILED, message, BROKEN_FLAKE)
    evaluation.reason = Reason.EVALUATION_FAILED
    _published(seeder, hello, "Shrink the binary by a third", 180, "hello")
    nightly = Push(lighthouse, MAIN, "Nightly rebuild", "", 150, Trigger.SCHEDULE)
    lost = "The machine that ran packages.i686-linux.lighthouse was lost three times; run it again when it is back."
    for push, state, reason, message in (
        (nightly, BuildState.ERRORED, Reason.NODE_LOST, lost),
        (
            Push(driftnote, "refs/heads/tides", "Tides, first try", "Grace Hopper", 96),
            BuildState.SUPERSEDED,
            Reason.SUPERSEDED,
            "",
        ),
        (
            Push(hello, "refs/heads/wip", "Work in progress", "Ines", 80),
            BuildState.CANCELLED,
            Reason.CANCELLED,
            "Ines stopped it.",
        ),
    ):
        build = seeder.build(push, state, took=93, reason=reason, message=message)
        seeder.evaluation(build)
