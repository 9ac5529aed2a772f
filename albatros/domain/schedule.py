"""A repo's timetable: cron expressions as Debian's cron reads them (crontab(5)), in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from albatros.domain.text import plain
from albatros.errors import EvaluationError

MAX_EXPRESSIONS = 10
MAX_LENGTH = 100
FIELDS = 5


def check(expressions: Sequence[str]) -> tuple[str, ...]:
    """The expressions of `[schedule]` as they are. Raises EvaluationError."""
    if len(expressions) > MAX_EXPRESSIONS:
        raise EvaluationError(f".albatros.toml: schedule.cron has more than {MAX_EXPRESSIONS} expressions")
    for expression in expressions:
        try:
            good = len(expression) <= MAX_LENGTH and len(expression.split()) == FIELDS
            next(CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC))) if good else None
        except (CronSimError, AssertionError, ValueError):
            good = False
        except StopIteration:
            raise EvaluationError(
                f".albatros.toml: schedule.cron: {plain(expression, MAX_LENGTH)!r} is no day that ever comes"
            ) from None
        if not good:
            raise EvaluationError(
                f".albatros.toml: schedule.cron: {plain(expression, MAX_LENGTH)!r} is no cron expression of "
                "five fields, such as '0 3 * * 1-5'"
            )
    return tuple(expressions)


def next_after(expressions: Sequence[str], at: datetime) -> datetime | None:
    """The first moment after `at` that a timetable names, None for an empty one; both are UTC and naive."""
    from_there = at.replace(tzinfo=UTC)
    times = (next(CronSim(expression, from_there), None) for expression in expressions)
    return min((time.replace(tzinfo=None) for time in times if time is not None), default=None)
