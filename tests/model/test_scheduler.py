"""The machine finds nothing in the scheduler, on either database, and something in each that lacks a rule."""

import __future__

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import event

from albatros.db.models import Base
from albatros.db.session import Database, connect
from albatros.errors import ConflictError
from albatros.flows import attempts, settle
from tests.model.machine import Place, machine_on
from tests.model.rules import ViolationError

EXAMPLES = {"sqlite": 25, "postgresql": 5}
STEPS = 40
MOST_EXAMPLES = 200
"""Of a mutant; it ends at the first violation."""

pytestmark = pytest.mark.timeout(1800)


def explore(place: Place, examples: int) -> None:
    """The same examples each time, in a process that has loaded the same.

    No machine dies here, so that nothing has to reach a disk.
    """
    if place.engine.dialect.name == "sqlite":
        event.listen(place.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        place.engine.dispose()
    run_state_machine_as_test(
        machine_on(place),
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_every_rule_holds(database: Database, tmp_path: Path) -> None:
    explore(Place(database.engine, tmp_path), EXAMPLES[database.engine.dialect.name])


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
    "word of the executor on a closed Attempt": (
        settle.close_attempt, "attempt is None or attempt.state not in OPEN_ATTEMPTS", "attempt is None",
        "AttemptState cannot go",
    ),
    "leases never expire": (
        settle.expire_leases, "queue.expired_attempts(session, at)", "()",
        "every Build ends|no Attempt is left open",
    ),
    "tries without end": (
        settle.close, "tried < limits.attempts", "True",
        "tries are bounded",
    ),
}  # fmt: skip
"""A function, what is taken out of it, what stands there instead, and the rules of which one then breaks first."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_missing_rule_is_found(name: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    function, old, new, broken = MUTANTS[name]
    _mutate(monkeypatch, function, old, new)
    with pytest.raises((ViolationError, ConflictError), match=broken):
        explore(place, MOST_EXAMPLES)


def test_a_start_that_is_not_idempotent_is_found(place: Place) -> None:
    with pytest.raises(ViolationError, match="an Attempt is registered once"):
        explore(replace(place, enforce_index=False), MOST_EXAMPLES)


def _mutate(monkeypatch: pytest.MonkeyPatch, function: Callable[..., object], old: str, new: str) -> None:
    """Put a function in its own place with a part of its source changed."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{function.__qualname__} has no such line any more: {old}"
    flags = __future__.annotations.compiler_flag
    namespace: dict[str, object] = {}
    code = compile(source.replace(old, new), "<mutant>", "exec", flags)
    exec(code, function.__globals__, namespace)
    owner = reduce(getattr, function.__qualname__.split(".")[:-1], sys.modules[function.__module__])
    monkeypatch.setattr(owner, function.__name__, namespace[function.__name__])
