"""Plan: from a stored evaluation result to a Job per derivation with the edges between them.

One transaction for each Build, so that what one repo reported cannot hold up another's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sqlalchemy import select
from sqlalchemy.orm import Session

from albatros.db import queue
from albatros.db.models import Attempt, Build, Job, JobEdge
from albatros.db.session import Database, now
from albatros.db.signals import Signals, Topic
from albatros.domain import plan, repo_config
from albatros.domain.states import AttemptState, BuildState, JobKind, JobState, Reason
from albatros.errors import AlbatrosError, EvaluationError
from albatros.flows import merges, progress, schedule, scripts
from albatros.flows.supersede import end_older
from albatros.log import get_logger
from albatros.settings import ForgeSettings, LimitSettings

log = get_logger(__name__)
_B = BuildState


def plan_due(
    database: Database,
    signals: Signals,
    limits: LimitSettings,
    forges: Mapping[str, ForgeSettings] = MappingProxyType({}),
) -> int:
    """Plan every Build whose evaluation is done; returns how many.

    `forges` say whose scripts run, and whose merge results are built by default.
    """
    rules = merges.Rules(frozenset(name for name, forge in forges.items() if forge.merges), limits.queued_builds)
    with database.read() as session:
        due = queue.builds_to_plan(session)
    for build_id in due:
        try:
            with database.write() as session:
                build = queue.lock_build(session, build_id)
                if build is not None and build.state is BuildState.EVALUATING:
                    _plan(session, build, limits, forges)
                    merges.follow(session, [build.id], rules)
        except AlbatrosError:
            raise
        except Exception:
            log.exception("a build cannot be planned", build=build_id)
            _give_up(database, build_id)
    if due:
        signals.notify(Topic.SCHEDULER, Topic.PUBLISHER, Topic.REPORTER, Topic.WATCHERS)
    return len(due)


def _give_up(database: Database, build_id: int) -> None:
    """What its evaluation reported met a fault of ours: trying again would meet it again."""
    message = "what the evaluation reported cannot be planned; the server's log says why"
    with database.write() as session:
        build = queue.lock_build(session, build_id)
        if build is not None and build.state is BuildState.EVALUATING:
            progress.move_build(session, build, BuildState.ERRORED, Reason.EVALUATION_FAILED, message)


def _plan(session: Session, build: Build, limits: LimitSettings, forges: Mapping[str, ForgeSettings]) -> None:
    try:
        jobs, has_script = _read_result(session, build, limits)
    except EvaluationError as error:
        progress.move_build(session, build, BuildState.FAILED, Reason.EVALUATION_FAILED, error.detail)
        return
    schedule.remember(session, build, repo_config.parse(build.config).schedule)
    end_older(session, [build.id])
    if why_not := progress.left_out(build, build.config):
        progress.move_build(session, build, BuildState.SKIPPED, Reason.SKIPPED, why_not)
        return
    no_script = scripts.why_not(build, forges) if has_script else ""
    if not jobs and no_script:
        # A stranger's commit is not at fault when nothing of it may run, nor is a merge result.
        at_fault = build.trusted and build.merge_into is None
        state, reason = (_B.FAILED, Reason.EVALUATION_FAILED) if at_fault else (_B.SKIPPED, Reason.SKIPPED)
        progress.move_build(session, build, state, reason, f"there is no flake.nix, and {no_script}")
        return
    rows = {job.key: _job_row(build, job) for job in jobs}
    session.add_all(rows.values())
    if has_script and not no_script:
        session.add(_script_row(build))
    session.flush()
    session.add_all(JobEdge(job_id=rows[job.key].id, needs_id=rows[need].id) for job in jobs for need in job.needs)
    session.flush()
    progress.move_build(session, build, BuildState.RUNNING)
    for job in jobs:
        if job.drv_path is None:
            progress.end_job(session, rows[job.key], JobState.FAILED, Reason.EVALUATION_FAILED, job.error)


def _read_result(session: Session, build: Build, limits: LimitSettings) -> tuple[tuple[plan.PlannedJob, ...], bool]:
    """The Jobs, and whether the commit has a script."""
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
    if type(commit_time) is int and 0 <= commit_time < 1 << 40:
        build.commit_time = commit_time
    evaluated = plan.read_evaluation(evaluation.get("attributes"), limits.attributes)
    has_script = evaluation.get("script") is True
    return plan.plan_jobs(evaluated) if evaluated or not has_script else (), has_script


def _script_row(build: Build) -> Job:
    return Job(
        build_id=build.id,
        build=build,
        kind=JobKind.SCRIPT,
        key=scripts.NAME,
        system="",
        name=scripts.NAME,
        attributes=[],
        state=JobState.QUEUED,
        created_at=now(),
    )


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
