"""Why a Job did not succeed, in the words of the runner protocol."""

from enum import StrEnum

MESSAGE_LIMIT = 4000
EXIT_LOST = 3
"""Exit status of a runner whose Attempt is lost or closed."""


class Reason(StrEnum):
    """Every reason that a runner may report."""

    BUILD_FAILED = "build_failed"
    """A builder failed, or what it made is not what the order asked for."""
    EVALUATION_FAILED = "evaluation_failed"
    """The flake is missing, is not valid, or may not be evaluated."""
    MERGE_CONFLICT = "merge_conflict"
    """The pull request does not merge with the branch that it is for."""
    TIMEOUT = "timeout"
    """The wall clock of the Attempt ran out."""
    SILENT = "silent"
    """Nothing was printed for too long."""
    CANCELLED = "cancelled"
    """A person, or a rule, cancelled the Build."""
    SUPERSEDED = "superseded"
    """A newer Build took its place."""
    OOM = "oom"
    """Memory ran out, the machine's or the evaluation's share."""
    DISK_FULL = "disk_full"
    """No room was left for a store path or an upload."""
    DRIVER = "driver"
    """The runner's own surroundings failed: git, Nix, its sandbox, or the server's order."""
    NO_CAPACITY = "no_capacity"
    """This machine cannot build for the derivation's system."""
    HANDBACK = "handback"
    """The Attempt was given back to the queue."""


class JobFailedError(Exception):
    """Ends the Job with a reason and a sentence for a person."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = shorten(message, MESSAGE_LIMIT)


class LeaseLostError(Exception):
    """The server has closed this Attempt, or could not be reached for longer than the lease allows."""


def shorten(text: str, limit: int) -> str:
    """Keep `text` within `limit` characters by leaving out its middle."""
    if len(text) <= limit:
        return text
    mark = "\n[…]\n"
    head = (limit - len(mark)) // 3
    return text[:head] + mark + text[len(text) - (limit - len(mark) - head) :]
