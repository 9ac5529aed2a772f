"""When a push is built: words in messages, globs, changed paths, and timetables."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatros.domain.repo_config import parse
from albatros.domain.rules import MAX_MESSAGE, MAX_PATHS, OnConfig, asks_to_skip, bounded_paths, selects
from albatros.domain.schedule import MAX_EXPRESSIONS, check, next_after
from albatros.domain.states import Trigger
from albatros.errors import EvaluationError

MAIN, TOPIC = "refs/heads/main", "refs/heads/topic/x"


@pytest.mark.parametrize("message", ["fix [skip ci]", "[ci skip] fix", "fix\n\n[Skip CI]\n", "a[SKIP CI]b"])
def test_a_message_may_ask_for_no_build(message: str) -> None:
    assert asks_to_skip(message)


@pytest.mark.parametrize("message", ["", "skip ci", "[skip  ci]", "[no ci]", "x" * MAX_MESSAGE + "[skip ci]"])
def test_other_messages_do_not(message: str) -> None:
    assert not asks_to_skip(message)


@pytest.mark.parametrize(
    ("globs", "text", "selected"),
    [
        ([], "main", False),
        (["main"], "main", True),
        (["main"], "Main", False),
        (["release/*"], "release/1/2", True),
        (["*", "!docs/*"], "docs/a.md", False),
        (["*", "!docs/*", "docs/flake.nix"], "docs/flake.nix", True),
        (["!docs/*"], "src/a", False),
    ],
)
def test_the_last_glob_that_matches_decides(globs: list[str], text: str, selected: bool) -> None:
    assert selects(globs, text) is selected


def test_nothing_set_leaves_nothing_out() -> None:
    for trigger in Trigger:
        assert OnConfig().why_not(trigger, MAIN, ["README.md"]) == ""


def test_branches_and_tags_are_chosen_apart() -> None:
    branches = OnConfig(branches=("main",))
    assert branches.why_not(Trigger.PUSH, MAIN, None) == ""
    assert "on.branches" in branches.why_not(Trigger.PUSH, TOPIC, None)
    assert branches.why_not(Trigger.TAG, "refs/tags/v1", None) == ""
    tags = OnConfig(tags=("v*",))
    assert tags.why_not(Trigger.PUSH, TOPIC, None) == ""
    assert "on.tags" in tags.why_not(Trigger.TAG, "refs/tags/nightly", None)


def test_a_push_that_changes_none_of_the_paths_is_left_out_if_they_are_known() -> None:
    rules = OnConfig(paths=("*", "!docs/*"))
    assert "on.paths" in rules.why_not(Trigger.PUSH, MAIN, ["docs/a.md", "docs/b.md"])
    assert rules.why_not(Trigger.PUSH, MAIN, ["docs/a.md", "flake.nix"]) == ""
    assert rules.why_not(Trigger.PUSH, MAIN, None) == ""


@pytest.mark.parametrize("trigger", [Trigger.API, Trigger.RERUN, Trigger.SCHEDULE, Trigger.PULL_REQUEST])
def test_what_is_asked_for_by_hand_or_timetable_is_not_left_out(trigger: Trigger) -> None:
    assert OnConfig(branches=(), tags=(), paths=()).why_not(trigger, TOPIC, ["a"]) == ""


def test_changed_paths_are_kept_in_bounds() -> None:
    assert bounded_paths(["b", "a", "b"]) == ("a", "b")
    assert bounded_paths([]) is None
    assert bounded_paths(str(number) for number in range(MAX_PATHS)) is not None
    assert bounded_paths(str(number) for number in range(MAX_PATHS + 1)) is None
    assert bounded_paths(["\udcff" * 40_000, "x" * 40_000]) is None


def test_the_tables_of_a_file() -> None:
    config = parse(
        '[on]\nbranches = ["main"]\ntags = []\npaths = ["src/*"]\nsupersede = true\n[schedule]\ncron = ["0 3 * * 1-5"]'
    )
    assert config.on == OnConfig(("main",), (), ("src/*",), True)
    assert config.schedule == ("0 3 * * 1-5",)


@pytest.mark.parametrize(
    "text",
    [
        "[on]\nbranch = []",
        "[on]\nbranches = 'main'",
        "[on]\nsupersede = 1",
        '[on]\nmerge = "yes"',
        "[schedule]\ncron = '0 3 * * *'",
        "on = []",
    ],
)
def test_wrong_tables_are_refused(text: str) -> None:
    with pytest.raises(EvaluationError, match=r"\.albatros\.toml"):
        parse(text)


@pytest.mark.parametrize(
    "text", ["", "@daily", "0 3 * *", "* * * * * *", "61 * * * *", "0 0 30 2 *", "x" * 200, "1/* * * * *"]
)
def test_what_is_no_cron_expression_is_refused(text: str) -> None:
    with pytest.raises(EvaluationError, match=r"schedule\.cron"):
        check([text])


def test_too_many_expressions_are_refused() -> None:
    with pytest.raises(EvaluationError, match="more than"):
        check(["0 3 * * *"] * (MAX_EXPRESSIONS + 1))


@given(
    st.lists(st.text("0123456789*/,-L#WMONJAN ", max_size=8), min_size=5, max_size=5).map(" ".join)
    | st.text(max_size=30)
)
def test_any_expression_is_refused_or_has_a_next_moment(text: str) -> None:
    at = datetime(2026, 11, 24, 17, 0)  # noqa: DTZ001 - as the database has it
    try:
        crons = check([text])
    except EvaluationError:
        return
    following = next_after(crons, at)
    assert following is not None
    assert following > at
    assert following.second == 0


def test_the_first_of_several_expressions_counts_in_utc() -> None:
    at = datetime(2026, 11, 24, 17, 0)  # noqa: DTZ001 - as the database has it
    assert next_after(["0 3 * * *", "30 17 * * *"], at) == at + timedelta(minutes=30)
    assert next_after(["0 17 * * *"], at) == at + timedelta(days=1)
    assert next_after([], at) is None


@pytest.mark.parametrize(("text", "merge"), [("", None), ("merge = true", True), ("merge = false", False)])
def test_merge_results_may_be_left_to_the_servers_settings(text: str, merge: bool | None) -> None:
    assert parse(f"[on]\n{text}\n").on.merge is merge
