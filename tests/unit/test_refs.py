"""Names from outside: what is accepted is what git itself accepts, and nothing else gets further."""

import string
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albatros.domain.refs import check_commit, check_full_name, check_ref, is_commit, is_ref, matches_any, one_line
from albatros.errors import BadInputError
from tests.tools import needs

REFS = st.text(st.sampled_from(string.ascii_letters + "/./-@{~^:?*[\\ \t\x7f\x00é\ud800"), max_size=20)


@needs("git")
@settings(max_examples=150, deadline=None)
@given(REFS)
def test_refs_are_those_of_git(name: str) -> None:
    ref = f"refs/heads/{name}"
    if not is_ref(ref):
        with pytest.raises(BadInputError):
            check_ref(ref)
        return
    assert check_ref(ref) == ref
    subprocess.run(["git", "check-ref-format", ref], check=True)
    subprocess.run(["git", "check-ref-format", "--branch", name], check=True, capture_output=True)


@pytest.mark.parametrize("ref", ["refs/heads/main", "refs/heads/feature/a-b_c.d", "refs/tags/v1.0+x", "refs/heads/é"])
def test_ordinary_refs_are_accepted(ref: str) -> None:
    assert is_ref(ref)


@pytest.mark.parametrize("ref", ["main", "refs/pull/1/head", "refs/heads", "refs/notes/albatros", "HEAD", ""])
def test_other_refs_are_not(ref: str) -> None:
    assert not is_ref(ref)


@pytest.mark.parametrize("text", ["a" * 40, "0" * 39 + "1", "f" * 64])
def test_full_commits(text: str) -> None:
    assert is_commit(text)
    assert check_commit(text) == text


@pytest.mark.parametrize(
    "text", ["0" * 40, "0" * 64, "a" * 39, "A" * 40, "a" * 41, "g" * 40, "", "a" * 40 + "\n", "--x"]
)
def test_everything_else_is_no_commit(text: str) -> None:
    assert not is_commit(text)
    with pytest.raises(BadInputError):
        check_commit(text)


def test_full_names() -> None:
    assert check_full_name("alba/hello") == ("alba", "hello")
    assert check_full_name("a.b/.profile") == ("a.b", ".profile")


@given(st.text(max_size=40))
def test_a_name_that_is_accepted_is_safe_as_a_path(text: str) -> None:
    try:
        parts = check_full_name(text)
    except BadInputError:
        return
    for part in parts:
        assert part not in {"", ".", ".."}
        assert set(part) <= set(string.ascii_letters + string.digits + "._-")
        assert not part.startswith("-")


def test_globs() -> None:
    assert matches_any("alba/hello", ("eve/*", "alba/*"))
    assert not matches_any("albatros/hello", ("alba/*",))
    assert not matches_any("alba/hello", ())


@given(st.text(), st.integers(1, 50))
def test_one_line_is_one_line_that_any_database_takes(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1
    assert "\x00" not in line
    line.encode("utf-8")


def test_one_line_keeps_what_people_wrote() -> None:
    assert one_line("a title\n\nmore", 80) == "a title"
    assert one_line("  tab\there ", 80) == "tab here"
    assert one_line("x" * 10, 5) == "xxxx…"
