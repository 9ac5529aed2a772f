"""View models: what the templates show, worked out beforehand, so that a template only places text.

States become a word and a tone (the colour and the icon); times become an absolute and a relative text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from albatros.db.models import Build, RefHead, Repo
from albatros.db.pages import JobCounts, RepoRow
from albatros.domain.states import AttemptState, BuildState, JobState, PublicationState, Reason, is_end
from albatros.settings import ForgeKind, Settings

SHORT_COMMIT = 10


class Tone(StrEnum):
    """How a state looks; the style sheet has a colour and an icon for each."""

    GOOD = "good"
    BAD = "bad"
    WARN = "warn"
    BUSY = "busy"
    WAIT = "wait"
    OFF = "off"


_B, _J, _A, _P = BuildState, JobState, AttemptState, PublicationState
# Keyed by the word: a queued Build and a queued Job are one key and look alike.
_TONES: dict[str, Tone] = {
    _B.WAITING_APPROVAL: Tone.WAIT,
    _B.QUEUED: Tone.WAIT,
    _B.EVALUATING: Tone.BUSY,
    _B.RUNNING: Tone.BUSY,
    _B.PUBLISHING: Tone.BUSY,
    _B.SUCCEEDED: Tone.GOOD,
    _B.FAILED: Tone.BAD,
    _B.ERRORED: Tone.WARN,
    _B.CANCELLED: Tone.OFF,
    _B.SUPERSEDED: Tone.OFF,
    _B.SKIPPED: Tone.OFF,
    _J.WAITING: Tone.WAIT,
    _J.SKIPPED: Tone.OFF,
    _A.SUBMITTING: Tone.BUSY,
    _A.SUBMITTED: Tone.BUSY,
    _A.CLAIMED: Tone.BUSY,
    _A.LOST: Tone.WARN,
    _A.HANDED_BACK: Tone.OFF,
    _P.PENDING: Tone.WAIT,
    _P.PUSHING: Tone.BUSY,
    _P.PUBLISHED: Tone.GOOD,
}

_HINTS: dict[BuildState, str] = {
    _B.WAITING_APPROVAL: "A person with write access has to approve its commit.",
    _B.QUEUED: "Its evaluation waits for a free slot.",
    _B.EVALUATING: "Its flake is being evaluated.",
    _B.RUNNING: "Its jobs are being built.",
    _B.PUBLISHING: "Every job succeeded; images are on their way to the registries.",
    _B.SUCCEEDED: "Everything is built and published.",
    _B.CANCELLED: "A person stopped it.",
    _B.SUPERSEDED: "A newer commit of the same ref took its place.",
    _B.SKIPPED: "Nothing was to be built.",
}


@dataclass(frozen=True, slots=True)
class StateView:
    """A state as a word and a tone."""

    word: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class Moment:
    """A time: for machines, in full, and as a distance from now."""

    iso: str
    full: str
    ago: str


@dataclass(frozen=True, slots=True)
class RefView:
    """A ref as people call it."""

    kind: str
    name: str
    full: str


@dataclass(frozen=True, slots=True)
class BuildLine:
    """A Build in a list."""

    id: int
    number: int
    repo: str
    repo_path: str
    private: bool
    state: StateView
    reason: str
    title: str
    ref: RefView
    flavor: str
    is_merge: bool
    """Whether it builds what a pull request would make of its base."""
    commit: str
    short: str
    author: str
    trigger: str
    created: Moment
    duration: str
    running: bool
    jobs: JobCounts


@dataclass(frozen=True, slots=True)
class RepoLine:
    """A Repo in a list, with its newest Build."""

    name: str
    forge: str
    path: str
    private: bool
    default_branch: str
    newest: BuildLine | None


@dataclass(frozen=True, slots=True)
class HeadLine:
    """A ref of a Repo and where it stands."""

    ref: RefView
    flavor: str
    short: str
    updated: Moment


def state_view(state: StrEnum) -> StateView:
    """The word and tone of any state."""
    return StateView(state.value.replace("_", " "), _TONES[state])


def explain(state: BuildState, reason: Reason | None, message: str) -> str:
    """The sentence that says why a Build is where it is."""
    return message or _HINTS.get(state) or f"It ended with: {(reason or state).replace('_', ' ')}."


def moment(at: datetime, now: datetime) -> Moment:
    """Describe a time of the database (UTC, naive)."""
    return Moment(
        iso=at.replace(tzinfo=UTC).isoformat(timespec="seconds"),
        full=f"{at:%Y-%m-%d %H:%M:%S} UTC",
        ago=_ago((now - at).total_seconds()),
    )


def _ago(seconds: float) -> str:
    """The browser's script keeps this up to date with the same words."""
    distance = abs(seconds)
    for size, unit in ((86400, "day"), (3600, "h"), (60, "min")):
        if distance >= size:
            count = int(distance // size)
            text = f"{count} {unit}s" if unit == "day" and count > 1 else f"{count} {unit}"
            break
    else:
        text = f"{int(distance)} s"
    return f"{text} ago" if seconds >= 0 else f"in {text}"


def duration(start: datetime | None, end: datetime | None, now: datetime) -> str:
    """How long something took, or has taken so far; empty when it has not begun."""
    return format_seconds(((end or now) - start).total_seconds()) if start else ""


def format_seconds(seconds: float) -> str:
    """`4.2 s`, `3 min 05 s`, `1 h 12 min`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = timedelta(seconds=int(seconds))
    hours, rest = divmod(int(whole.total_seconds()), 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {left:02d} s" if minutes else f"{left} s"


def format_bytes(size: int) -> str:
    """`812 B`, `1.4 MiB`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def ref_view(ref: str) -> RefView:
    """`refs/heads/main` is the branch `main`; `refs/pull/7/head` is the pull request `#7`, `/merge` its result."""
    for prefix, kind in (("refs/heads/", "branch"), ("refs/tags/", "tag")):
        if ref.startswith(prefix):
            return RefView(kind, ref.removeprefix(prefix), ref)
    parts = ref.split("/")
    if len(parts) == 4 and parts[1] in {"pull", "merge-requests"}:
        return RefView("merge of" if parts[3] == "merge" else "pull request", f"#{parts[2]}", ref)
    return RefView("ref", ref, ref)


def repo_path(repo: Repo) -> str:
    """Where a Repo's page is."""
    return f"/repos/{repo.forge}/{repo.owner}/{repo.name}"


def commit_url(settings: Settings, repo: Repo, commit: str) -> str:
    """The commit on its forge; empty where the forge has no pages."""
    forge = next((forge for forge in settings.forges if forge.name == repo.forge), None)
    if forge is None or forge.kind is ForgeKind.GIT or not forge.url.startswith(("https://", "http://")):
        return ""
    middle = "/-" if forge.kind is ForgeKind.GITLAB else ""
    return f"{forge.url.rstrip('/')}/{repo.owner}/{repo.name}{middle}/commit/{commit}"


def build_line(build: Build, jobs: JobCounts, now: datetime, repo: Repo | None = None) -> BuildLine:
    """A Build in a list; `repo` is its own when the caller has it at hand."""
    owner = repo or build.repo
    return BuildLine(
        id=build.id,
        number=build.number,
        repo=owner.full_name,
        repo_path=repo_path(owner),
        private=owner.private,
        state=state_view(build.state),
        reason=explain(build.state, build.reason, build.message),
        title=build.title or f"commit {build.commit[:SHORT_COMMIT]}",
        ref=ref_view(build.ref),
        flavor=build.flavor,
        is_merge=build.merge_into is not None,
        commit=build.commit,
        short=build.commit[:SHORT_COMMIT],
        author=build.author,
        trigger=build.trigger.replace("_", " "),
        created=moment(build.created_at, now),
        duration=duration(build.started_at, build.ended_at, now),
        running=not is_end(build.state),
        jobs=jobs,
    )


def build_lines(builds: Sequence[Build], counts: Mapping[int, JobCounts], now: datetime) -> list[BuildLine]:
    """The lines of a list of Builds."""
    return [build_line(build, counts.get(build.id, JobCounts()), now) for build in builds]


def repo_line(row: RepoRow, counts: Mapping[int, JobCounts], now: datetime) -> RepoLine:
    """A Repo in a list."""
    newest = row.newest
    return RepoLine(
        name=row.repo.full_name,
        forge=row.repo.forge,
        path=repo_path(row.repo),
        private=row.repo.private,
        default_branch=row.repo.default_branch,
        newest=build_line(newest, counts.get(newest.id, JobCounts()), now, row.repo) if newest else None,
    )


def head_lines(heads: Iterable[RefHead], now: datetime) -> list[HeadLine]:
    """The refs of a Repo."""
    return [
        HeadLine(ref_view(h.ref), h.flavor, (h.commit or "")[:SHORT_COMMIT], moment(h.updated_at, now)) for h in heads
    ]
