"""How a runner says that its Attempt ended, checked once where it comes in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from albatros.domain.outputs import Output, read_outputs
from albatros.domain.states import Reason
from albatros.domain.text import plain
from albatros.errors import BadInputError

HANDBACK = "handback"
"""The one word in `reason` that is no Reason: the Job goes back to the queue."""
MAX_MESSAGE = 8 << 10
_REASONS = {reason.value: reason for reason in Reason}


@dataclass(frozen=True, slots=True)
class RunnerResult:
    """What a runner reports; `reason` is None when it succeeded or handed its Job back."""

    succeeded: bool
    handed_back: bool
    reason: Reason | None
    message: str
    nix_version: str
    evaluation: Mapping[str, object] | None
    """Still unread: the plan checks it, and what is wrong with it is the commit's fault."""
    outputs: tuple[Output, ...]


def read_result(body: Mapping[str, object]) -> RunnerResult:
    """Check the body of a result. Raises BadInputError."""
    outcome, word = body.get("outcome"), body.get("reason")
    if outcome not in ("succeeded", "failed"):
        raise BadInputError("outcome must be succeeded or failed")
    succeeded = outcome == "succeeded"
    handed_back = not succeeded and word == HANDBACK
    reason = None
    if not succeeded and not handed_back:
        reason = _REASONS.get(word) if isinstance(word, str) else None
        if reason is None:
            raise BadInputError(f"reason must be {HANDBACK} or one of {', '.join(Reason)}")
    evaluation = body.get("evaluation")
    if evaluation is not None and not isinstance(evaluation, dict):
        raise BadInputError("evaluation must be an object or null")
    return RunnerResult(
        succeeded=succeeded,
        handed_back=handed_back,
        reason=reason,
        message=plain(body.get("message"), MAX_MESSAGE),
        nix_version=plain(body.get("nix_version"), 64),
        evaluation=evaluation,
        outputs=read_outputs(body.get("outputs") or []),
    )
