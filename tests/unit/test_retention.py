"""What is old, and what never is."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from albatros.domain.retention import Cutoffs, PastBuild, build_may_go, outputs_may_go

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC).replace(tzinfo=None)
CUTOFF = NOW - timedelta(days=90)
OLD = PastBuild(id=1, ended_at=CUTOFF - timedelta(days=1), newer=30, newest_green=False, ref_exists=True)


def test_every_age_is_counted_from_now() -> None:
    cutoffs = Cutoffs.at(NOW, builds_days=90, logs_days=30, artifacts_days=20, deliveries_days=10)
    assert cutoffs == Cutoffs(
        builds=NOW - timedelta(days=90),
        logs=NOW - timedelta(days=30),
        artifacts=NOW - timedelta(days=20),
        deliveries=NOW - timedelta(days=10),
        events=NOW - timedelta(days=7),
        blobs=NOW - timedelta(hours=24),
    )


@pytest.mark.parametrize(
    ("build", "goes"),
    [
        (replace(OLD), True),
        (replace(OLD, ended_at=None), False),
        (replace(OLD, ended_at=CUTOFF), False),
        (replace(OLD, ended_at=CUTOFF - timedelta(microseconds=1)), True),
        (replace(OLD, newer=20), True),
        (replace(OLD, newer=19), False),
        (replace(OLD, newest_green=True), False),
        (replace(OLD, newer=0, newest_green=True, ref_exists=False), True),
        (replace(OLD, ended_at=None, ref_exists=False), False),
        (replace(OLD, ended_at=NOW, ref_exists=False), False),
    ],
)
def test_an_old_build_goes_unless_it_is_one_of_the_last(build: PastBuild, goes: bool) -> None:
    assert build_may_go(build, CUTOFF, keep=20) is goes


@pytest.mark.parametrize(
    ("newer", "newest_green", "goes"), [(0, False, False), (1, False, True), (1, True, False), (0, True, False)]
)
def test_outputs_stay_for_the_newest_and_the_newest_green_build(newer: int, newest_green: bool, goes: bool) -> None:
    assert outputs_may_go(replace(OLD, newer=newer, newest_green=newest_green), CUTOFF) is goes
