"""View models of the page of one Job: its attempts, what it waits for, and a window of its log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from albatros.db.models import Artifact, Attempt, Job
from albatros.domain.states import OPEN_ATTEMPTS, JobKind, JobState, is_end
from albatros.http.build_views import ArtifactLine, artifact_lines, platform_of
from albatros.http.logtext import MAX_LINES, NOTHING, LogWindow
from albatros.http.placement import Placement, placement_of
from albatros.http.views import Moment, StateView, duration, format_bytes, moment, repo_path, state_view

_HINTS = {
    JobState.WAITING: "A job that it needs is not done.",
    JobState.QUEUED: "It is ready and waits for a free slot.",
    JobState.FAILED: "It failed; the end of its log says more.",
    JobState.CANCELLED: "It was stopped with its build.",
    JobState.SKIPPED: "A job that it needs failed, so it never ran.",
}
_RUNNING = {
    JobKind.EVALUATION: "The flake is being evaluated.",
    JobKind.BUILD: "It is being built.",
    JobKind.SCRIPT: "The script runs.",
    JobKind.BUILDER: "The builder runs.",
}
_SUCCEEDED = {
    JobKind.EVALUATION: "It is known what the flake has to build.",
    JobKind.BUILD: "Its outputs are in the store.",
    JobKind.SCRIPT: "The script ended with success.",
    JobKind.BUILDER: "The builder ended with success.",
}


@dataclass(frozen=True, slots=True)
class AttemptLine:
    """One try at a Job."""

    number: int
    state: StateView
    reason: str
    message: str
    executor: str
    host: str
    nix_version: str
    created: Moment
    duration: str
    placement: Placement | None


@dataclass(frozen=True, slots=True)
class NeedLine:
    """A Job that this one waits for."""

    id: int
    name: str
    state: StateView


@dataclass(frozen=True, slots=True)
class LogView:
    """Some lines of an attempt's log, and the links to the others; a link that leads nowhere is empty."""

    window: LogWindow
    attempt: int = 0
    """0: there is no log yet."""
    size: str = ""
    raw: str = ""
    live: str = ""
    """Where the lines that follow come from, while it runs and its end is shown."""
    begin: str = ""
    earlier: str = ""
    later: str = ""
    tail: str = ""
    gone: str = ""
    """Why a log that there was is no more."""


@dataclass(frozen=True, slots=True)
class JobPage:
    """Everything that the page of a Job shows, but its log."""

    id: int
    build_id: int
    repo: str
    repo_path: str
    number: int
    name: str
    attributes: tuple[str, ...]
    system: str
    platform: str
    drv_path: str
    state: StateView
    running: bool
    reason: str
    created: Moment
    duration: str
    needs: tuple[NeedLine, ...]
    attempts: tuple[AttemptLine, ...]
    artifacts: tuple[ArtifactLine, ...]


def job_page(
    job: Job, attempts: Sequence[Attempt], needs: Sequence[Job], artifacts: Sequence[Artifact], now: datetime
) -> JobPage:
    """Put together the page of a Job."""
    build = job.build
    return JobPage(
        id=job.id,
        build_id=build.id,
        repo=build.repo.full_name,
        repo_path=repo_path(build.repo),
        number=build.number,
        name=job.name,
        attributes=tuple(job.attributes),
        system=job.system,
        platform=platform_of(job),
        drv_path=job.drv_path or "",
        state=state_view(job.state),
        running=not is_end(job.state),
        reason=job.message or _waits(attempts) or hint(job.kind, job.state),
        created=moment(job.created_at, now),
        duration=duration(job.started_at, job.ended_at, now),
        needs=tuple(NeedLine(need.id, need.name, state_view(need.state)) for need in needs),
        attempts=tuple(_attempt(attempt, now) for attempt in attempts),
        artifacts=artifact_lines(artifacts),
    )


def hint(kind: JobKind, state: JobState) -> str:
    """What the state of a Job means for one of its kind, in a sentence."""
    match state:
        case JobState.RUNNING:
            return _RUNNING[kind]
        case JobState.SUCCEEDED:
            return _SUCCEEDED[kind]
        case _:
            return _HINTS[state]


def _waits(attempts: Sequence[Attempt]) -> str:
    """Why the open Attempt has no place yet; empty when it has one."""
    places = (placement_of(attempt) for attempt in attempts if attempt.state in OPEN_ATTEMPTS)
    waits = next((place.waits for place in places if place is not None), "")
    return f"It waits for a place: {waits}." if waits else ""


def _attempt(attempt: Attempt, now: datetime) -> AttemptLine:
    return AttemptLine(
        number=attempt.number,
        state=state_view(attempt.state),
        reason=attempt.reason.replace("_", " ") if attempt.reason else "",
        message=attempt.message,
        executor=attempt.executor,
        host=attempt.host,
        nix_version=attempt.nix_version,
        created=moment(attempt.created_at, now),
        duration=duration(attempt.claimed_at, attempt.ended_at, now),
        placement=placement_of(attempt),
    )


NO_LOG = LogView(NOTHING)


def log_view(attempt: Attempt, shown: LogWindow) -> LogView:
    """A window of an attempt's log with its links."""
    here = f"/jobs/{attempt.job_id}?attempt={attempt.number}"
    at_end = shown.last >= shown.total
    return LogView(
        attempt=attempt.number,
        window=shown,
        size=format_bytes(attempt.log_bytes),
        raw=f"/api/v1/jobs/{attempt.job_id}/log?attempt={attempt.number}",
        live=f"/api/v1/jobs/{attempt.job_id}/log/live" if attempt.state in OPEN_ATTEMPTS and at_end else "",
        begin=f"{here}&from=1#log-title" if shown.first > 1 else "",
        earlier=f"{here}&from={max(1, shown.first - MAX_LINES)}#log-title" if shown.first > 1 else "",
        later="" if at_end else f"{here}&from={shown.last + 1}#log-title",
        tail="" if at_end else f"{here}#end",
    )
