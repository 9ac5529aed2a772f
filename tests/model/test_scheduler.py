"""The machine finds nothing in the scheduler, on either database, and something in each that lacks a rule."""

import __future__

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FunctionType, ModuleType

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.internal.conjecture.providers import HypothesisProvider
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import event

from albatros.db import queue
from albatros.db.models import Base
from albatros.db.session import Database, connect
from albatros.errors import ConflictError
from albatros.flows import attempts, dispatch, recover, settle
from tests.model.machine import Explored, Place, machine_on
from tests.model.rules import ViolationError

SHALLOW = settings(
    derandomize=True,
    database=None,
    stateful_step_count=100,
    deadline=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
WALKS = {"sqlite": 40, "postgresql": 5}
MOST_WALKS = 100
"""Of a mutant; it ends at the first violation."""
DEEP = settings.get_current_profile_name() == "deep"

pytestmark = pytest.mark.timeout(0 if DEEP else 1800)


def explore(place: Place, wanted: settings) -> None:
    """Walk as often and as far as wanted. No machine dies here, so that nothing has to reach a disk."""
    if place.engine.dialect.name == "sqlite":
        event.listen(place.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        place.engine.dispose()
    with pytest.MonkeyPatch.context() as patches:
        # Hypothesis likes numbers that occur in the modules that are loaded: other ones in each process.
        patches.setattr(HypothesisProvider, "_maybe_draw_constant", lambda *_, **__: None)
        run_state_machine_as_test(machine_on(place), settings=wanted)


def test_every_rule_holds(database: Database, tmp_path: Path) -> None:
    place = Place(database.engine, tmp_path)
    wanted = settings(SHALLOW, max_examples=WALKS[database.engine.dialect.name])
    if DEEP:
        wanted = settings(
            SHALLOW,
            max_examples=settings().max_examples,
            stateful_step_count=settings().stateful_step_count,
            derandomize=False,
            phases=[Phase.generate, Phase.shrink],
        )
    try:
        explore(place, wanted)
    finally:
        sys.stdout.write(f"explored {place.explored.steps} steps in {place.explored.walks} walks\n")
    assert place.explored.walks == wanted.max_examples


def test_walks_are_the_same_whatever_else_is_loaded(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hypothesis reads the numbers in each module that is not of a library, and draws them more often."""
    few = settings(SHALLOW, max_examples=2)
    explore(place, few)
    module = ModuleType("full_of_numbers")
    module.__file__ = str(tmp_path / "full_of_numbers.py")
    Path(module.__file__).write_text(f"NUMBERS = {list(range(1, 32))}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    again = replace(place, explored=Explored())
    explore(again, few)
    assert again.explored == place.explored


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Where a mutant runs: SQLite alone, since what it lacks is no database's doing."""
    opened = connect(f"sqlite:///{tmp_path / 'albatros.sqlite3'}")
    Base.metadata.create_all(opened.engine)
    yield Place(opened.engine, tmp_path)
    opened.dispose()


MUTANTS: dict[str, tuple[Callable[..., object], str, str, str]] = {
    "claim without the fence": (
        attempts.claim, "attempt.nonce not in (None, nonce)", "False",
        "an Attempt stays with the runner that claimed it|only the runner that claimed first is told",
    ),
    "result without the nonce": (
        attempts._held, "attempt.nonce != nonce", "False",
        "only the runner that claimed is heard",
    ),
    "report that comes again": (
        attempts._is_repeated, "attempt.nonce == nonce", "False",
        "a report that was taken is not refused when it comes again",
    ),
    "word of the executor on a closed Attempt": (
        settle.close_attempt, "attempt is None or attempt.state not in OPEN_ATTEMPTS", "attempt is None",
        "AttemptState cannot go",
    ),
    "lease not read again": (
        settle._expire, "attempt.lease_until is None or attempt.lease_until >= at", "False",
        "a runner that is alive and in its lease is not lost",
    ),
    "leases never expire": (
        settle.expire_leases, "queue.expired_attempts(session, at)", "()",
        "every Build ends|no Attempt is left open",
    ),
    "tries without end": (
        settle.close, "tried < limits.attempts", "True",
        "tries are bounded",
    ),
    "infrastructure's failure is final": (
        settle.close, "tried < limits.attempts", "False",
        "infrastructure fails a Job after its last try only",
    ),
    "hand-back that fails a Job": (
        settle.close, "to is AttemptState.HANDED_BACK", "False",
        "a Job fails for a reason",
    ),
    "tried again at once": (
        settle._queue_again, "now() + delay", "now()",
        "a Job is tried again after a pause",
    ),
    "recovery of what another server runs": (
        recover.recover, "attempt.executor == executor_name", "True",
        "a runner that is alive and in its lease is not lost",
    ),
    "repeated start on another executor": (
        dispatch.Dispatcher._start_intended, "attempt.executor == self._executor.name", "True",
        "an Attempt stays on its own executor",
    ),
    "runners of a cancelled Build go on": (
        attempts.ask_to_stop, "values(stop=why)", "values(stop=None)",
        "what runs for a Build that has ended is told to stop",
    ),
    "Job before what it needs": (
        queue.release_dependents, "needed.state != JobState.SUCCEEDED", "needed.state == JobState.WAITING",
        "a Job waits for what it needs",
    ),
}  # fmt: skip
"""A function, what is taken out of it, what stands there instead, and the rules of which one then breaks first."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_missing_rule_is_found(name: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    function, old, new, broken = MUTANTS[name]
    _mutate(monkeypatch, function, old, new)
    with pytest.raises((ViolationError, ConflictError), match=broken):
        explore(place, settings(SHALLOW, max_examples=MOST_WALKS))


def test_a_start_that_is_not_idempotent_is_found(place: Place) -> None:
    with pytest.raises(ViolationError, match="an Attempt is registered once"):
        explore(replace(place, enforce_index=False), settings(SHALLOW, max_examples=MOST_WALKS))


def _mutate(monkeypatch: pytest.MonkeyPatch, function: Callable[..., object], old: str, new: str) -> None:
    """Change a part of a function's source, in the function itself: others have imported it by its name."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{function.__qualname__} has no such line any more: {old}"
    flags = __future__.annotations.compiler_flag
    namespace: dict[str, FunctionType] = {}
    code = compile(source.replace(old, new), "<mutant>", "exec", flags)
    exec(code, function.__globals__, namespace)
    monkeypatch.setattr(function, "__code__", namespace[function.__name__].__code__)
