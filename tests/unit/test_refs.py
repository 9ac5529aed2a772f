"""Names from outside: what is accepted is what git itself accepts, and nothing else gets further."""

import string
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albatros.domain.refs import (
    RepoFilter,
    check_commit,
    check_full_name,
    check_ref,
    is_commit,
    is_ref,
    matches_any,
    one_line,
    read_bound,
)
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


def test_a_groups_group_is_an_owner_where_it_may_be() -> None:
    assert check_full_name("group/sub/project", nested=True) == ("group/sub", "project")
    assert check_full_name("alba/hello", nested=True) == ("alba", "hello")
    deepest = "/".join(["g"] * 19)
    assert check_full_name(f"{deepest}/project", nested=True) == (deepest, "project")
    with pytest.raises(BadInputError, match="OWNER/NAME"):
        check_full_name("group/sub/project")


@pytest.mark.parametrize(
    "text",
    [
        "group//project",
        "/group/project",
        "group/sub/",
        "group/../project",
        "group/./project",
        "group/sub/..",
        "group/su\x00b/project",
        "group/su b/project",
        "group/-/project",
        "group/sub\n/project",
        "group/sub%2Fx/project",
        "project",
        "",
        "/",
        "g/" * 20 + "project",
        f"{'g' * 100}/{'g' * 100}/{'g' * 100}/project",
        "group/sub/hook",
        "group/sub/builds",
    ],
)
def test_hostile_names_are_refused_at_any_depth(text: str) -> None:
    with pytest.raises(BadInputError):
        check_full_name(text, nested=True)


def test_only_in_a_subgroup_a_word_of_addresses_is_no_name() -> None:
    assert check_full_name("group/hook", nested=True) == ("group", "hook")
    assert check_full_name("group/hook/project", nested=True) == ("group/hook", "project")


@pytest.mark.parametrize(
    ("text", "owner", "name"),
    [
        ("lab", "", ""),
        ("lab/group", "group", ""),
        ("lab/group/sub/", "group/sub", ""),
        ("lab/group/sub", "group", "sub"),
        ("lab/group/sub/project", "group/sub", "project"),
    ],
)
def test_a_bound_names_an_owner_or_a_repo_at_any_depth(text: str, owner: str, name: str) -> None:
    assert read_bound(text) == RepoFilter("lab", owner, name)
    assert str(read_bound(text)) == text


@pytest.mark.parametrize("text", ["lab/", "/", "lab/group/", "lab//x", "lab/group/sub//", "lab/group/../x", "la b/x"])
def test_what_names_no_repos_is_no_bound(text: str) -> None:
    with pytest.raises(BadInputError, match="names no repos"):
        read_bound(text)


def test_a_group_is_not_its_subgroups() -> None:
    assert not read_bound("lab/group").covers("lab", "group/sub", "project")
    assert read_bound("lab/group/sub/").covers("lab", "group/sub", "project")


@given(st.one_of(st.text(max_size=40), st.text(st.sampled_from("ab./-\x00 "), max_size=60)), st.booleans())
def test_a_name_that_is_accepted_is_safe_as_a_path(text: str, nested: bool) -> None:
    try:
        owner, name = check_full_name(text, nested=nested)
    except BadInputError:
        return
    assert f"{owner}/{name}" == text
    assert nested or "/" not in owner
    for part in (*owner.split("/"), name):
        assert part not in {"", ".", ".."}
        assert set(part) <= set(string.ascii_letters + string.digits + "._-")
        assert not part.startswith("-")


def test_globs() -> None:
    assert matches_any("alba/hello", ("eve/*", "alba/*"))
    assert not matches_any("albatros/hello", ("alba/*",))
    assert not matches_any("alba/hello", ())
    assert matches_any("group/sub/project", ("group/*",))
    assert not matches_any("group/sub/project", ("sub/*", "group/project"))


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


def test_nothing_turns_the_direction_of_what_follows() -> None:
    assert one_line("fix\u202e gnp.x", 80) == "fix  gnp.x"
    assert not is_ref("refs/heads/main\u2066")
