"""Plan: from a stored evaluation result to a Job per derivation with the edges between them, in one transaction."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from albatros.db import queue
from albatros.db.models import Attempt, Build, Job, JobEdge
from albatros.db.session import Database, now
from albatros.db.signals import Signals, Topic
from albatros.domain import plan, repo_config
from albatros.domain.states import AttemptState, BuildState, JobKind, JobState, Reason
from albatros.errors import EvaluationError
from albatros.flows import progress
from albatros.settings import LimitSettings


def plan_due(database: Database, signals: Signals, limits: LimitSettings) -> int:
    """Plan every Build whose evaluation is done; returns how many."""
    with database.write() as session:
        builds = queue.builds_to_plan(session)
        for build in builds:
            _plan(session, build, limits)
    if builds:
        signals.notify(Topic.SCHEDULER, Topic.PUBLISHER, Topic.REPORTER, Topic.WATCHERS)
    return len(builds)


def _plan(session: Session, build: Build, limits: LimitSettings) -> None:
    try:
        jobs = _read_result(session, build, limits)
    except EvaluationError as error:
        progress.move_build(session, build, BuildState.FAILED, Reason.EVALUATION_FAILED, error.detail)
        return
    rows = {job.key: _job_row(build, job) for job in jobs}
    session.add_all(rows.values())
    session.flush()
    session.add_all(JobEdge(job_id=rows[job.key].id, needs_id=rows[need].id) for job in jobs for need in job.needs)
    session.flush()
    progress.move_build(session, build, BuildState.RUNNING)
    for row in rows.values():
        if row.drv_path is None:
            message = next(job.error for job in jobs if job.key == row.key)
            progress.end_job(session, row, JobState.FAILED, Reason.EVALUATION_FAILED, message)


def _read_result(session: Session, build: Build, limits: LimitSettings) -> tuple[plan.PlannedJob, ...]:
    result = session.scalars(
        select(Attempt.result)
        .join(Job)
        .where(Job.build_id == build.id, Job.kind == JobKind.EVALUATION, Attempt.state == AttemptState.SUCCEEDED)
    ).one()
    evaluation = (result or {}).get("evaluation")
    if not isinstance(evaluation, dict):
        raise EvaluationError("the runner reported no evaluation; run the build again")
    config, commit_time = evaluation.get("config"), evaluation.get("commit_time")
    if config is not None and not isinstance(config, str):
        raise EvaluationError("the runner reported an .albatros.toml that is no text; run the build again")
    repo_config.parse(config)
    build.config = config
    if isinstance(commit_time, int) and 0 <= commit_time < 1 << 40:
        build.commit_time = commit_time
    return plan.plan_jobs(plan.read_evaluation(evaluation.get("attributes"), limits.attributes))


def _job_row(build: Build, job: plan.PlannedJob) -> Job:
    return Job(
        build_id=build.id,
        build=build,
        kind=JobKind.BUILD,
        key=job.key,
        drv_path=job.drv_path,
        system=job.system,
        name=job.name,
        attributes=list(job.attributes),
        state=JobState.WAITING if job.needs else JobState.QUEUED,
        created_at=now(),
    )
