from datetime import UTC, datetime, timedelta
from enum import StrEnum

import pytest

from albatros.domain.states import AttemptState, BuildState, JobKind, JobState, PublicationState, Reason
from albatros.http import views
from albatros.http.job_views import hint
from albatros.http.render import sentence
from albatros.http.views import Tone

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC).replace(tzinfo=None)


@pytest.mark.parametrize("kind", [BuildState, JobState, AttemptState, PublicationState])
def test_every_state_has_a_word_and_a_tone(kind: type[StrEnum]) -> None:
    for state in kind:
        assert views.state_view(state).word
    assert views.state_view(AttemptState.HANDED_BACK).word == "handed back"


def test_bad_and_good_ends_do_not_look_alike() -> None:
    ends = (BuildState.SUCCEEDED, BuildState.FAILED, BuildState.ERRORED, BuildState.CANCELLED)
    assert [views.state_view(end).tone for end in ends] == [Tone.GOOD, Tone.BAD, Tone.WARN, Tone.OFF]


@pytest.mark.parametrize("state", list(BuildState))
def test_every_build_says_why_it_is_where_it_is(state: BuildState) -> None:
    assert views.explain(state, None, "").endswith(".")


@pytest.mark.parametrize("kind", JobKind)
def test_every_job_says_why_it_is_where_it_is(kind: JobKind) -> None:
    hints = {hint(kind, state) for state in JobState}
    assert len(hints) == len(JobState)
    assert all(text.endswith(".") for text in hints)


def test_a_builds_own_message_comes_first() -> None:
    assert views.explain(BuildState.FAILED, Reason.BUILD_FAILED, "It broke.") == "It broke."
    assert "build failed" in views.explain(BuildState.FAILED, Reason.BUILD_FAILED, "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s ago"),
        (59, "59 s ago"),
        (61, "1 min ago"),
        (7_200, "2 h ago"),
        (86_400, "1 day ago"),
        (20 * 86_400, "20 days ago"),
        (-95, "in 1 min"),
    ],
)
def test_distances(seconds: int, text: str) -> None:
    shown = views.moment(NOW - timedelta(seconds=seconds), NOW)
    assert shown.ago == text
    assert shown.full.endswith(" UTC")
    assert shown.iso.endswith("+00:00")


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0.0 s"), (4.24, "4.2 s"), (42, "42 s"), (185, "3 min 05 s"), (4_320, "1 h 12 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert views.format_seconds(seconds) == text


def test_what_has_not_begun_took_no_time() -> None:
    assert views.duration(None, None, NOW) == ""
    assert views.duration(NOW - timedelta(seconds=30), None, NOW) == "30 s"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1_468_006, "1.4 MiB"), (5 << 40, "5.0 TiB"), (5 << 50, "5120.0 TiB")],
)
def test_sizes(size: int, text: str) -> None:
    assert views.format_bytes(size) == text


@pytest.mark.parametrize(
    ("ref", "kind", "name"),
    [
        ("refs/heads/feature/tides", "branch", "feature/tides"),
        ("refs/tags/v1", "tag", "v1"),
        ("refs/pull/7/head", "pull request", "#7"),
        ("refs/merge-requests/7/head", "pull request", "#7"),
        ("refs/pull/7/merge", "merge of", "#7"),
        ("refs/notes/albatros", "ref", "refs/notes/albatros"),
    ],
)
def test_refs(ref: str, kind: str, name: str) -> None:
    shown = views.ref_view(ref)
    assert (shown.kind, shown.name, shown.full) == (kind, name, ref)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("cancelled by Ines", "Cancelled by Ines."),
        ("packages.x86_64-linux.hello failed", "packages.x86_64-linux.hello failed."),
        ("is it up?", "Is it up?"),
        ("error: a trace\n  of lines", "error: a trace\n  of lines"),
        ("", ""),
    ],
)
def test_a_message_is_a_sentence(message: str, shown: str) -> None:
    assert sentence(message) == shown
