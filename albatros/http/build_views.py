"""View models of the page of one Build: its way from push to status, its Jobs, Images and Publications."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from albatros.db.models import Artifact, Build, Image, Job, Publication, StatusReport
from albatros.db.pages import JobCounts
from albatros.domain.platforms import from_system
from albatros.domain.refs import BRANCH_PREFIX
from albatros.domain.states import BuildState, JobKind, JobState, PublicationState, Trigger, is_end
from albatros.http.views import (
    SHORT_COMMIT,
    BuildLine,
    Moment,
    StateView,
    Tone,
    build_line,
    commit_url,
    duration,
    format_bytes,
    moment,
    state_view,
)
from albatros.settings import RegistrySettings, Settings


@dataclass(frozen=True, slots=True)
class Stage:
    """One step on the way from push to commit status."""

    name: str
    tone: Tone
    text: str


_WHAT = {
    JobKind.EVALUATION: "reads the flake",
    JobKind.BUILD: "",
    JobKind.SCRIPT: "runs the commit's own script",
    JobKind.BUILDER: "does the whole build, as its operator has it",
}


@dataclass(frozen=True, slots=True)
class JobLine:
    """A Job in a Build."""

    id: int
    name: str
    what: str
    """What it does: its attributes, or what it does instead of building some."""
    system: str
    platform: str
    state: StateView
    message: str
    duration: str
    tail: tuple[str, ...]
    """The last lines of its log, when it failed."""


@dataclass(frozen=True, slots=True)
class PublicationLine:
    """An Image at one Registry under one tag."""

    registry: str
    reference: str
    pull: str
    """What `docker pull` takes; empty where the registry has no address for it."""
    state: StateView
    message: str
    next_try: Moment | None
    tries: int
    required: bool
    ended: bool
    sent: str
    skipped: str


@dataclass(frozen=True, slots=True)
class ImageView:
    """An Image and where it is published."""

    name: str
    digest: str
    size: str
    platforms: tuple[str, ...]
    publications: tuple[PublicationLine, ...]
    pull: str
    """A command that fetches exactly this Image; empty until a registry that can be pulled from has it."""


@dataclass(frozen=True, slots=True)
class ArtifactLine:
    """A file kept for download."""

    id: int
    name: str
    platform: str
    digest: str
    size: str


@dataclass(frozen=True, slots=True)
class BuildPage:
    """Everything that the page of a Build shows."""

    line: BuildLine
    started: Moment | None
    ended: Moment | None
    commit_url: str
    rerun_of: int | None
    trusted: bool
    waits: bool
    """For somebody's approval."""
    pull: int | None
    head_label: str
    merged: str
    """Into which branch, and at which of its commits, for a merge result; empty for another Build."""
    approved_by: str
    stages: tuple[Stage, ...]
    evaluation: JobLine | None
    jobs: tuple[JobLine, ...]
    images: tuple[ImageView, ...]
    artifacts: tuple[ArtifactLine, ...]


@dataclass(frozen=True, slots=True)
class BuildRows:
    """What the selects of a Build's page found."""

    build: Build
    counts: JobCounts
    evaluation: Job | None
    jobs: Sequence[Job]
    images: Sequence[Image]
    publications: Sequence[Publication]
    artifacts: Sequence[Artifact]
    status: StatusReport | None
    tails: Mapping[int, tuple[str, ...]]
    """The last lines of a Job's log, by its id."""


def build_page(rows: BuildRows, settings: Settings, now: datetime) -> BuildPage:
    """Put together the page of a Build."""
    build = rows.build
    registries = {registry.name: registry for registry in settings.registries}
    return BuildPage(
        line=build_line(build, rows.counts, now),
        started=moment(build.started_at, now) if build.started_at else None,
        ended=moment(build.ended_at, now) if build.ended_at else None,
        commit_url=commit_url(settings, build.repo, build.commit),
        rerun_of=build.rerun_of,
        trusted=build.trusted,
        waits=build.state is BuildState.WAITING_APPROVAL,
        pull=build.pull,
        head_label=build.head_label,
        merged=_merged(build),
        approved_by=build.approved_by,
        stages=_stages(rows),
        evaluation=job_line(rows.evaluation, rows.tails, now) if rows.evaluation else None,
        jobs=tuple(job_line(job, rows.tails, now) for job in rows.jobs),
        images=tuple(_image(image, rows.publications, registries, now) for image in rows.images),
        artifacts=artifact_lines(rows.artifacts),
    )


def _merged(build: Build) -> str:
    if build.merge_into is None or build.base_commit is None:
        return ""
    return f"{build.merge_into.removeprefix(BRANCH_PREFIX)} at {build.base_commit[:SHORT_COMMIT]}"


def job_line(job: Job, tails: Mapping[int, tuple[str, ...]], now: datetime) -> JobLine:
    """A Job in a list."""
    return JobLine(
        id=job.id,
        name=job.name,
        what=", ".join(job.attributes) or _WHAT[job.kind],
        system=job.system,
        platform=platform_of(job),
        state=state_view(job.state),
        message=job.message,
        duration=duration(job.started_at, job.ended_at, now),
        tail=tails.get(job.id, ()),
    )


def artifact_lines(artifacts: Sequence[Artifact]) -> tuple[ArtifactLine, ...]:
    """Files kept for download."""
    return tuple(
        ArtifactLine(
            id=one.id,
            name=one.path or one.store_path.rpartition("/")[2] or one.output,
            platform=platform_of(one.job),
            digest=one.digest,
            size=format_bytes(one.size),
        )
        for one in artifacts
    )


def platform_of(job: Job) -> str:
    """What it builds for: an attribute of another system is a cross build, placed by the derivation's own system."""
    for attribute in job.attributes:
        parts = attribute.split(".")
        platform = from_system(parts[1]) if len(parts) > 2 else None
        if platform is not None:
            return str(platform)
    own = from_system(job.system)
    return str(own) if own else ""


def _image(
    image: Image, publications: Sequence[Publication], registries: Mapping[str, RegistrySettings], now: datetime
) -> ImageView:
    own = [publication for publication in publications if publication.image_id == image.id]
    lines = tuple(_publication(publication, registries.get(publication.registry_name), now) for publication in own)
    there = {PublicationState.PUBLISHED, PublicationState.SUPERSEDED}
    pulls = [
        line.pull for line, publication in zip(lines, own, strict=True) if line.pull and publication.state in there
    ]
    return ImageView(
        name=image.name,
        digest=image.digest,
        size=format_bytes(image.size),
        platforms=tuple(image.platforms),
        publications=lines,
        pull=f"docker pull {pulls[0].rpartition(':')[0]}@{image.digest}" if pulls else "",
    )


def _publication(publication: Publication, registry: RegistrySettings | None, now: datetime) -> PublicationLine:
    reference = f"{publication.name}:{publication.tag}"
    waits = publication.state is PublicationState.PENDING and publication.tries > 0
    return PublicationLine(
        registry=publication.registry_name,
        reference=reference,
        pull=_pull_reference(registry, reference),
        state=state_view(publication.state),
        message=publication.message,
        next_try=moment(publication.next_try_at, now) if waits else None,
        tries=publication.tries,
        required=publication.required,
        ended=publication.ended_at is not None,
        sent=format_bytes(publication.bytes_sent),
        skipped=format_bytes(publication.bytes_skipped),
    )


def _pull_reference(registry: RegistrySettings | None, reference: str) -> str:
    """Only `docker://` addresses can be pulled from: settings do not say where a static directory is served."""
    if registry is None or not registry.url.startswith("docker://"):
        return ""
    prefix = registry.url.removeprefix("docker://").partition("?")[0].strip("/")
    return f"{prefix}/{reference}"


def _stages(rows: BuildRows) -> tuple[Stage, ...]:
    """Where the Build stands on its way; what was not reached is `off` once it ended."""
    ended = is_end(rows.build.state)
    ahead = Tone.OFF if ended else Tone.WAIT
    return (
        Stage("Received", Tone.GOOD, _received(rows.build.trigger)),
        _evaluation_stage(rows, ahead),
        _jobs_stage(rows.counts, ahead),
        _images_stage(rows, ahead),
        _publications_stage(rows.publications, ahead),
        _status_stage(rows.status, ended),
    )


def _received(trigger: Trigger) -> str:
    return f"by {trigger.replace('_', ' ')}" if trigger is not Trigger.API else "by a call"


def _evaluation_stage(rows: BuildRows, ahead: Tone) -> Stage:
    if rows.evaluation is None:
        given = next((job.name for job in rows.jobs if job.kind is JobKind.BUILDER), "")
        return Stage("Evaluation", Tone.OFF, f"left to {given}") if given else Stage("Evaluation", ahead, "not begun")
    view = state_view(rows.evaluation.state)
    return Stage("Evaluation", view.tone, view.word)


def _jobs_stage(counts: JobCounts, ahead: Tone) -> Stage:
    if not counts.total:
        return Stage("Jobs", ahead, "none yet" if ahead is Tone.WAIT else "none")
    if counts.failed:
        return Stage("Jobs", Tone.BAD, f"{counts.failed} of {counts.total} failed")
    tone = Tone.GOOD if counts.succeeded == counts.total else Tone.BUSY if counts.open else Tone.OFF
    return Stage("Jobs", tone, f"{counts.succeeded} of {counts.total} done")


def _images_stage(rows: BuildRows, ahead: Tone) -> Stage:
    if rows.images:
        platforms = len({platform for image in rows.images for platform in image.platforms})
        many = len(rows.images) != 1
        text = f"{len(rows.images)} image{'s' if many else ''}, {platforms} platform{'s' if platforms != 1 else ''}"
        return Stage("Images", Tone.GOOD, text)
    if rows.build.state is BuildState.PUBLISHING:
        return Stage("Images", Tone.BUSY, "being assembled")
    return Stage("Images", ahead, "none yet" if ahead is Tone.WAIT else "none")


def _publications_stage(publications: Sequence[Publication], ahead: Tone) -> Stage:
    if not publications:
        return Stage("Registries", ahead, "none yet" if ahead is Tone.WAIT else "none")
    settled = sum(p.state in {PublicationState.PUBLISHED, PublicationState.SUPERSEDED} for p in publications)
    if any(p.state is PublicationState.FAILED for p in publications):
        return Stage("Registries", Tone.BAD, f"{settled} of {len(publications)} published")
    tone = Tone.GOOD if settled == len(publications) else Tone.BUSY
    return Stage("Registries", tone, f"{settled} of {len(publications)} published")


def _status_stage(status: StatusReport | None, ended: bool) -> Stage:
    if status is None:
        return Stage("Commit status", Tone.WAIT if not ended else Tone.OFF, "not due yet" if not ended else "none")
    if status.sent < status.version:
        return Stage("Commit status", Tone.WARN if status.error else Tone.BUSY, "on its way")
    view = state_view(status.state)
    return Stage("Commit status", view.tone, view.word)


def failed_jobs(jobs: Sequence[Job], limit: int) -> list[int]:
    """The Jobs whose last lines the page shows."""
    return [job.id for job in jobs if job.state is JobState.FAILED][:limit]
