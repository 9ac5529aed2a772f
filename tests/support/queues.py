"""A long queue and a long past, written in few statements."""

import uuid
from collections.abc import Sequence

from sqlalchemy import insert, select, text, update

from albatros.db.builds import NewBuild, create_builds
from albatros.db.models import Attempt, Build, Job
from albatros.db.session import Database, now
from albatros.domain.states import AttemptState, BuildState, JobKind, JobState, Trigger
from tests.support.rows import add_repo

REPOS = 100
AT_ONCE = 500


def add_queue(database: Database, jobs: int, systems: Sequence[str], packages: int) -> None:
    """Queue so many Jobs: a tenth evaluations of new Builds, the rest of Builds with so many packages a system."""
    repos = add_repos(database, "queued")
    each = packages * len(systems)
    evaluated = jobs * 9 // 10 // each
    for numbers in _parts(0, evaluated):
        with database.write() as session:
            ids = create_builds(session, wanted(repos, numbers))
            running = {"state": BuildState.RUNNING, "started_at": now()}
            session.execute(update(Build).where(Build.id.in_(ids)).values(running))
            succeeded = {"state": JobState.SUCCEEDED, "started_at": now(), "ended_at": now()}
            session.execute(update(Job).where(Job.build_id.in_(ids)).values(succeeded))
            names = [(system, f"app-{number}") for system in systems for number in range(packages)]
            session.execute(insert(Job), [_job(build, system, name) for build in ids for system, name in names])
    for numbers in _parts(evaluated, evaluated + jobs - evaluated * each):
        with database.write() as session:
            create_builds(session, wanted(repos, numbers))
    analyze(database)


def add_past(database: Database, builds: int) -> None:
    """So many Builds that were evaluated and ended."""
    repos = add_repos(database, "ended")
    ended = {"ended_at": now()}
    for numbers in _parts(0, builds):
        with database.write() as session:
            ids = create_builds(session, wanted(repos, numbers))
            session.execute(update(Build).where(Build.id.in_(ids)).values(ended | {"state": BuildState.FAILED}))
            of_builds = Job.build_id.in_(ids)
            session.execute(update(Job).where(of_builds).values(ended | {"state": JobState.FAILED}))
            jobs = session.scalars(select(Job.id).where(of_builds)).all()
            session.execute(insert(Attempt), [_attempt(job) for job in jobs])
    analyze(database)


def add_repos(database: Database, name: str) -> list[int]:
    """Their ids."""
    with database.write() as session:
        return [add_repo(session, f"{name}-{uuid.uuid4()}").id for _ in range(REPOS)]


def wanted(repos: Sequence[int], numbers: range) -> list[tuple[int, NewBuild]]:
    """Builds of refs of their own, of one repo after the other."""
    news = [NewBuild(f"refs/heads/{number}", f"{number:040x}", 1, Trigger.PUSH) for number in numbers]
    return [(repos[number % len(repos)], new) for number, new in zip(numbers, news, strict=True)]


def analyze(database: Database) -> None:
    """Have the database know how much there is of what, as it does by itself in time."""
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))


def _parts(first: int, end: int) -> list[range]:
    return [range(start, min(start + AT_ONCE, end)) for start in range(first, end, AT_ONCE)]


def _job(build: int, system: str, name: str) -> dict[str, object]:
    path = f"/nix/store/{'0' * 32}-{name}-{system}.drv"
    return {
        "build_id": build,
        "kind": JobKind.BUILD,
        "key": path,
        "drv_path": path,
        "system": system,
        "name": name,
        "attributes": [f"packages.{system}.{name}"],
        "state": JobState.QUEUED,
        "message": "",
        "created_at": now(),
    }


def _attempt(job: int) -> dict[str, object]:
    return {
        "id": f"past-{job}",
        "job_id": job,
        "number": 1,
        "state": AttemptState.FAILED,
        "token_hash": f"past-{job}",
        "executor": "fake",
        "created_at": now(),
        "ended_at": now(),
    }
