"""A Build on a cluster, beside the seeded ones: a merge result with a flavor, whose Jobs run, wait and run a script."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select

from albatros.db.models import Attempt, Job, Repo
from albatros.db.session import Database, now
from albatros.domain.states import AttemptState, BuildState, JobKind, JobState, Trigger
from tests.support.seed_logs import RUNNING
from tests.support.seed_rows import Push, Seeder

SCRIPT_LOG = """\
checking the tables
alba: hello:edge is published at hub
"""
NOMAD = "https://nomad.example.org/ui"
ALLOCATION = "755a690f-e0ee-2f26-563e-b1e6ff94ca54"


@dataclass(frozen=True)
class OnCluster:
    """Ids of the rows that tests open."""

    build: int
    running: int
    waiting: int
    script: int


def cluster_build(database: Database) -> OnCluster:
    """Make the Build; times are relative to the present."""
    with database.write() as session:
        seeder = Seeder(session, now())
        repo = session.scalars(select(Repo).where(Repo.name == "hello")).one()
        push = Push(repo, "refs/pull/31/head", "Greet whoever comes in", "Ines", 1.5, Trigger.PULL_REQUEST)
        build = seeder.build(push, BuildState.RUNNING)
        build.merge_into, build.base_commit, build.flavor = "refs/heads/main", "5" * 40, "nightly"
        seeder.evaluation(build)
        states = [JobState.SUCCEEDED, JobState.RUNNING, JobState.RUNNING, JobState.WAITING]
        jobs = seeder.jobs(build, "hello", states)
        for job in jobs[:2]:
            _place(seeder.attempt(job, RUNNING.format(drv=job.drv_path)))
        waiting = seeder.attempt(jobs[2], "")
        waiting.state, waiting.executor, waiting.host, waiting.claimed_at = AttemptState.SUBMITTED, "nomad", "", None
        why = "3 of 3 nodes have no memory left"
        page = f"{NOMAD}/jobs/alb-{waiting.id}@ci"
        waiting.placement = {"job": f"alb-{waiting.id}", "state": "pending", "waits": why, "url": page}
        seeder.edge(jobs[3], jobs[2])
        script = _script(jobs[0])
        session.add(script)
        session.flush()
        _place(seeder.attempt(script, SCRIPT_LOG))
        return OnCluster(build.id, jobs[1].id, jobs[2].id, script.id)


def _script(beside: Job) -> Job:
    return Job(
        build_id=beside.build_id,
        kind=JobKind.SCRIPT,
        key=".albatros",
        name=".albatros",
        system="",
        attributes=[],
        state=JobState.SUCCEEDED,
        message="",
        created_at=beside.created_at,
        started_at=beside.created_at + timedelta(seconds=2),
        ended_at=beside.created_at + timedelta(seconds=21),
    )


def _place(attempt: Attempt) -> None:
    """Have Nomad say of an Attempt that it started it."""
    at = (attempt.claimed_at or attempt.created_at).isoformat(timespec="seconds") + "Z"
    happened = (
        ("Received", "Task received by client"),
        ("Task Setup", "Building Task Directory"),
        ("Downloading Artifacts", "Client is downloading artifacts"),
        ("Started", "Task started by client"),
    )
    ended = attempt.ended_at is not None
    attempt.executor = "nomad"
    attempt.placement = {
        "job": f"alb-{attempt.id}",
        "state": "complete" if ended else "running",
        "waits": "",
        "url": f"{NOMAD}/allocations/{ALLOCATION}",
        "allocation": ALLOCATION,
        "node": attempt.host,
        "description": "All tasks have completed" if ended else "Tasks are running",
        "events": [{"at": at, "kind": kind, "message": message} for kind, message in happened],
    }
