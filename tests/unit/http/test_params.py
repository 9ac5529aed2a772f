"""What comes in paths and queries: cursors, repos, branches."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatros.domain.refs import RepoFilter
from albatros.errors import BadInputError
from albatros.http.params import (
    MAX_ID,
    branch_filter,
    check_forge,
    decode_cursor,
    encode_cursor,
    repo_filter,
)


@given(st.integers(1, MAX_ID))
def test_a_cursor_comes_back_as_the_id_it_was_made_of(last_id: int) -> None:
    assert decode_cursor("builds", encode_cursor("builds", last_id)) == last_id


def test_no_cursor_is_the_first_page() -> None:
    assert decode_cursor("builds", "") is None


@given(st.text(max_size=64))
def test_a_cursor_is_read_or_refused(text: str) -> None:
    try:
        decode_cursor("builds", text)
    except BadInputError:
        return


@pytest.mark.parametrize("inner", ["repos:1", "builds:0", "builds:-1", "builds:1 ", "builds:٣", f"builds:{MAX_ID + 1}"])
def test_a_cursor_of_something_else_is_refused(inner: str) -> None:
    with pytest.raises(BadInputError, match="begin again"):
        decode_cursor("builds", base64.urlsafe_b64encode(inner.encode()).decode())


def test_a_repo_is_named_with_or_without_its_forge() -> None:
    assert repo_filter("home/alba/hello") == RepoFilter("home", "alba", "hello")
    assert repo_filter("alba/hello") == RepoFilter("", "alba", "hello")
    assert repo_filter("lab/group/sub/project") == RepoFilter("lab", "group/sub", "project")
    assert repo_filter("").covers("any", "thing", "at all")
    assert repo_filter("alba/hello").covers("home", "alba", "hello")
    assert not repo_filter("home/alba/hello").covers("other", "alba", "hello")


@pytest.mark.parametrize("text", ["a", "a/b//d", "/b", "a/", "Home/a/b", "../b", "a/b\0", "a//b"])
def test_what_names_no_repo_is_refused(text: str) -> None:
    with pytest.raises(BadInputError):
        repo_filter(text)


def test_a_branch_is_a_whole_ref() -> None:
    assert branch_filter("main") == branch_filter("refs/heads/main") == "refs/heads/main"
    assert branch_filter("refs/tags/v1") == "refs/tags/v1"
    assert branch_filter("") == ""
    with pytest.raises(BadInputError):
        branch_filter("a..b")


@pytest.mark.parametrize("name", ["", "Home", "a b", "é", "-a", "a" * 64, "a\n"])
def test_what_names_no_forge_is_refused(name: str) -> None:
    with pytest.raises(BadInputError):
        check_forge(name)
