"""States of a Build, Job, Attempt and Publication, the moves allowed between them, and the reasons of an end.

Each member is documented where it stands; `check_move` alone judges a move, and a state without moves is an end.
"""

from __future__ import annotations

from enum import StrEnum

from albatros.errors import ConflictError


class BuildState(StrEnum):
    """Where a Build stands."""

    WAITING_APPROVAL = "waiting_approval"
    """Committed; it comes from somebody who may not push, and a person who may has to approve its commit."""
    QUEUED = "queued"
    """Committed; its evaluation waits for a free slot."""
    EVALUATING = "evaluating"
    """Its flake is being evaluated."""
    RUNNING = "running"
    """Planned; at least one Job is not done."""
    PUBLISHING = "publishing"
    """Every Job succeeded; images are being assembled and published."""
    SUCCEEDED = "succeeded"
    """Everything is built, and every required Publication is done."""
    FAILED = "failed"
    """The commit is at fault: a Job failed, or something cannot be published for good."""
    ERRORED = "errored"
    """The infrastructure is at fault: what ran it was lost, refused or full, and the tries are used up."""
    CANCELLED = "cancelled"
    """A person stopped it."""
    SUPERSEDED = "superseded"
    """A newer commit of the same ref took its place."""
    SKIPPED = "skipped"
    """The commit's message, or the `[on]` of its `.albatros.toml`, says that nothing is to be built."""


class JobState(StrEnum):
    """Where a Job stands."""

    WAITING = "waiting"
    """A Job it needs is not done, or its Build waits for approval."""
    QUEUED = "queued"
    """Ready; waits for a free slot on its system."""
    RUNNING = "running"
    """It has an open Attempt."""
    SUCCEEDED = "succeeded"
    """Its outputs are in the store."""
    FAILED = "failed"
    """Its evaluation or builder failed, or its tries are used up."""
    CANCELLED = "cancelled"
    """Stopped with its Build."""
    SKIPPED = "skipped"
    """A Job it needs failed, so it never ran."""


class AttemptState(StrEnum):
    """Where one try at a Job stands."""

    SUBMITTING = "submitting"
    """The intent is committed; the executor may or may not know of it yet."""
    SUBMITTED = "submitted"
    """The executor took it; its runner has not claimed it."""
    CLAIMED = "claimed"
    """One runner holds it, by its nonce, for as long as it renews the lease."""
    SUCCEEDED = "succeeded"
    """The runner's result said so, and it is committed."""
    FAILED = "failed"
    """The runner's result said so, or the executor gave up on it."""
    LOST = "lost"
    """The lease ran out, or the runner died before it could speak."""
    CANCELLED = "cancelled"
    """Stopped on request."""
    HANDED_BACK = "handed_back"
    """Stopped by a server that is shutting down; the Job is queued again and no try is counted."""


class PublicationState(StrEnum):
    """Where one Image stands at one Registry under one tag."""

    PENDING = "pending"
    """Due; waits for a publisher, or for its next try."""
    PUSHING = "pushing"
    """A publisher holds it."""
    PUBLISHED = "published"
    """The tag, with everything below it, was seen at the registry."""
    SUPERSEDED = "superseded"
    """Pushed by digest only: a newer Build of the ref holds the tag."""
    FAILED = "failed"
    """The registry refused it for good, or its tries are used up."""


class Reason(StrEnum):
    """Why something did not end in success; one word a machine can count, beside a sentence a person can read."""

    BUILD_FAILED = "build_failed"
    """A builder exited with an error, or an output is not what it claims to be."""
    EVALUATION_FAILED = "evaluation_failed"
    """The flake, or one of its attributes, does not evaluate."""
    MERGE_CONFLICT = "merge_conflict"
    """The pull request does not merge with the branch that it is for; its author has to bring it up to date."""
    PUBLICATION_FAILED = "publication_failed"
    """An image could not be assembled, or a registry refused it for good."""
    TIMEOUT = "timeout"
    """The wall-clock limit was reached."""
    SILENT = "silent"
    """No output for longer than the limit."""
    CANCELLED = "cancelled"
    """A person stopped it."""
    SUPERSEDED = "superseded"
    """A newer commit of the same ref took its place."""
    SKIPPED = "skipped"
    """The commit's message, or the `[on]` of its `.albatros.toml`, says that nothing is to be built."""
    NODE_LOST = "node_lost"
    """The runner stopped renewing its lease."""
    OOM = "oom"
    """It used more memory than it may."""
    PREEMPTED = "preempted"
    """The executor took its place away for something more important."""
    DRIVER = "driver"
    """The executor or its Nix could not run it."""
    NO_CAPACITY = "no_capacity"
    """Nothing here can run its system."""
    DISK_FULL = "disk_full"
    """A disk it needs is full."""


INFRASTRUCTURE_REASONS = frozenset(
    {Reason.NODE_LOST, Reason.PREEMPTED, Reason.DRIVER, Reason.NO_CAPACITY, Reason.DISK_FULL}
)
"""Not the commit's fault: another Attempt is made, and a Build that ends so is `errored`."""


class Trigger(StrEnum):
    """What asked for a Build."""

    PUSH = "push"
    """A branch moved."""
    TAG = "tag"
    """A tag was made or moved."""
    PULL_REQUEST = "pull_request"
    """A pull request was opened or got new commits."""
    SCHEDULE = "schedule"
    """The repo's own timetable."""
    API = "api"
    """A call of the API or the command line."""
    RERUN = "rerun"
    """Somebody asked for an earlier Build once more."""


class JobKind(StrEnum):
    """What a Job does."""

    EVALUATION = "evaluation"
    """Finds out what the flake has to build: the first Job of a Build."""
    BUILD = "build"
    """Builds one derivation."""
    SCRIPT = "script"
    """Runs the repo's own program, `.albatros`."""
    BUILDER = "builder"
    """Runs a builder of the operator's own for the commit: the only Job of its Build, whose flake nobody evaluates."""


_B, _J, _A, _P = BuildState, JobState, AttemptState, PublicationState
_BUILD_ENDS = {_B.FAILED, _B.ERRORED, _B.CANCELLED, _B.SUPERSEDED}
_ATTEMPT_ENDS = {_A.SUCCEEDED, _A.FAILED, _A.LOST, _A.CANCELLED, _A.HANDED_BACK}

_MOVES: dict[type[StrEnum], dict[StrEnum, set[StrEnum]]] = {
    BuildState: {
        _B.WAITING_APPROVAL: {_B.QUEUED, _B.CANCELLED, _B.SUPERSEDED},
        _B.QUEUED: {_B.EVALUATING, _B.RUNNING, *_BUILD_ENDS},
        _B.EVALUATING: {_B.QUEUED, _B.RUNNING, _B.SKIPPED, *_BUILD_ENDS},
        _B.RUNNING: {_B.PUBLISHING, _B.SUCCEEDED, *_BUILD_ENDS},
        _B.PUBLISHING: {_B.SUCCEEDED, *_BUILD_ENDS},
    },
    JobState: {
        _J.WAITING: {_J.QUEUED, _J.SKIPPED, _J.CANCELLED},
        _J.QUEUED: {_J.RUNNING, _J.FAILED, _J.SKIPPED, _J.CANCELLED},
        _J.RUNNING: {_J.QUEUED, _J.SUCCEEDED, _J.FAILED, _J.CANCELLED},
    },
    AttemptState: {
        _A.SUBMITTING: {_A.SUBMITTED, _A.CLAIMED, *_ATTEMPT_ENDS},
        _A.SUBMITTED: {_A.CLAIMED, *_ATTEMPT_ENDS},
        _A.CLAIMED: set(_ATTEMPT_ENDS),
    },
    PublicationState: {
        _P.PENDING: {_P.PUSHING, _P.FAILED, _P.SUPERSEDED},
        _P.PUSHING: {_P.PENDING, _P.PUBLISHED, _P.SUPERSEDED, _P.FAILED},
    },
}


def moves_from(state: StrEnum) -> frozenset[StrEnum]:
    """The states that may follow `state`; empty for an end."""
    return frozenset(_MOVES[type(state)].get(state, set()))


def is_end(state: StrEnum) -> bool:
    """True when nothing follows `state`."""
    return not moves_from(state)


def check_move(old: StrEnum, new: StrEnum) -> None:
    """Raise ConflictError unless `new` may follow `old`."""
    if type(old) is not type(new) or new not in moves_from(old):
        raise ConflictError(f"{type(old).__name__} cannot go from {old} to {new}")


OPEN_ATTEMPTS = (AttemptState.SUBMITTING, AttemptState.SUBMITTED, AttemptState.CLAIMED)
OPEN_JOBS = (JobState.WAITING, JobState.QUEUED, JobState.RUNNING)
OPEN_BUILDS = (
    BuildState.WAITING_APPROVAL,
    BuildState.QUEUED,
    BuildState.EVALUATING,
    BuildState.RUNNING,
    BuildState.PUBLISHING,
)
