"""Every move of every state machine, the illegal ones too, against the table that the reference shows."""

from enum import StrEnum
from itertools import product

import pytest

from albatros.domain import states
from albatros.domain.states import AttemptState, BuildState, JobState, PublicationState
from albatros.errors import ConflictError

MACHINES: dict[type[StrEnum], dict[str, str]] = {
    BuildState: {
        "waiting_approval": "queued cancelled superseded",
        "queued": "evaluating running failed errored cancelled superseded",
        "evaluating": "queued running skipped failed errored cancelled superseded",
        "running": "publishing succeeded failed errored cancelled superseded",
        "publishing": "succeeded failed errored cancelled superseded",
    },
    JobState: {
        "waiting": "queued skipped cancelled",
        "queued": "running failed skipped cancelled",
        "running": "queued succeeded failed cancelled",
    },
    AttemptState: {
        "submitting": "submitted claimed succeeded failed lost cancelled handed_back",
        "submitted": "claimed succeeded failed lost cancelled handed_back",
        "claimed": "succeeded failed lost cancelled handed_back",
    },
    PublicationState: {
        "pending": "pushing failed superseded",
        "pushing": "pending published superseded failed",
    },
}
PAIRS = [(old, new) for machine in MACHINES for old, new in product(machine, machine)]


@pytest.mark.parametrize(("old", "new"), PAIRS, ids=lambda state: f"{type(state).__name__}.{state}")
def test_a_move_is_allowed_or_refused(old: StrEnum, new: StrEnum) -> None:
    if new in MACHINES[type(old)].get(old, "").split():
        states.check_move(old, new)
    else:
        with pytest.raises(ConflictError, match=f"{type(old).__name__} cannot go from {old} to {new}"):
            states.check_move(old, new)


def test_a_state_of_another_machine_is_refused() -> None:
    with pytest.raises(ConflictError):
        states.check_move(BuildState.QUEUED, JobState.RUNNING)
    with pytest.raises(ConflictError):
        states.check_move(BuildState.RUNNING, JobState.SUCCEEDED)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_state_can_be_reached_and_every_way_ends(machine: type[StrEnum]) -> None:
    first = next(iter(machine))
    seen, todo = {first}, [first]
    while todo:
        for state in states.moves_from(todo.pop()):
            if state not in seen:
                seen.add(state)
                todo.append(machine(state))
    assert seen == set(machine)
    assert {state for state in machine if states.is_end(state)} == set(machine) - {
        machine(s) for s in MACHINES[machine]
    }


def test_open_states_are_those_that_are_no_end() -> None:
    for machine, open_states in (
        (BuildState, states.OPEN_BUILDS),
        (JobState, states.OPEN_JOBS),
        (AttemptState, states.OPEN_ATTEMPTS),
    ):
        assert list(open_states) == [state for state in machine if not states.is_end(state)]


def test_infrastructure_is_never_the_commits_fault() -> None:
    commits_fault = {"build_failed", "evaluation_failed", "merge_conflict", "publication_failed"}
    commits_fault |= {"timeout", "silent", "oom"}
    persons_wish = {"cancelled", "superseded", "skipped"}
    assert {str(reason) for reason in states.INFRASTRUCTURE_REASONS} == set(
        states.Reason
    ) - commits_fault - persons_wish
