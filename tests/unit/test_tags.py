"""Which tags a Build may move."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatros.domain.references import check_tag
from albatros.domain.states import Trigger
from albatros.domain.tags import TagKind, default_tags, slug

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RELEASE = re.compile(r"\d+\.\d+\.\d+.*")


def tags(ref: str, trigger: Trigger = Trigger.PUSH) -> dict[str, TagKind]:
    found = default_tags(ref, COMMIT, "main", trigger)
    assert found.pop(COMMIT) is TagKind.COMMIT
    return found


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("refs/heads/main", {"main": TagKind.BRANCH, "latest": TagKind.LATEST}),
        ("refs/heads/next", {"next": TagKind.BRANCH}),
        ("refs/heads/feature/a b", {"feature-a-b": TagKind.BRANCH}),
        ("refs/heads/Ünï", {"n": TagKind.BRANCH}),
        ("refs/heads/日本", {"unnamed": TagKind.BRANCH}),
        ("refs/heads/.hidden-", {"hidden": TagKind.BRANCH}),
        ("refs/tags/v1.2.3", {"1.2.3": TagKind.VERSION}),
        ("refs/tags/1.2.3", {"1.2.3": TagKind.VERSION}),
        ("refs/tags/v1.2.3-rc.1", {"1.2.3-rc.1": TagKind.VERSION}),
        ("refs/tags/v1.2.3+linux.5", {"1.2.3-linux.5": TagKind.VERSION}),
    ],
)
def test_a_ref_gives_its_tags(ref: str, expected: dict[str, TagKind]) -> None:
    assert tags(ref) == expected


@pytest.mark.parametrize("name", ["latest", "main", "nightly", "v1.2", "1.2.3.4", "v01.2.3", "release/1.2.3", COMMIT])
def test_a_git_tag_that_is_no_version_takes_no_name(name: str) -> None:
    assert tags(f"refs/tags/{name}", Trigger.TAG) == {}


@pytest.mark.parametrize(
    "branch", ["latest", "v1.2.3", "1.2.3", "1.2.3-rc1", "1.2.3/fix", "f" * 40, "e" * 64, "sha256-abc", "v1.2.3+x"]
)
def test_a_branch_cannot_take_a_name_that_means_something_else(branch: str) -> None:
    (tag,) = tags(f"refs/heads/{branch}")
    assert tag == f"ref-{slug(branch)}"


def test_latest_is_of_the_default_branch_alone() -> None:
    assert "latest" not in default_tags("refs/heads/main", COMMIT, "trunk", Trigger.PUSH)
    assert "latest" not in default_tags("refs/tags/main", COMMIT, "main", Trigger.TAG)
    assert "latest" not in default_tags("refs/heads/release/main", COMMIT, "main", Trigger.PUSH)


def test_a_pull_request_moves_no_tag() -> None:
    assert default_tags("refs/heads/main", COMMIT, "main", Trigger.PULL_REQUEST) == {}
    assert default_tags("refs/pull/1/head", COMMIT, "main", Trigger.RERUN) == {}


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=30))
def test_any_branch_gives_tags_that_registries_take(branch: str, default: str) -> None:
    found = default_tags(f"refs/heads/{branch}", COMMIT, default, Trigger.PUSH)
    for tag, kind in found.items():
        assert check_tag(tag) == tag
        if kind is TagKind.BRANCH:
            assert tag != "latest"
            assert not RELEASE.fullmatch(tag)


@given(st.from_regex(r"v?\d{1,40}\.\d{1,40}\.\d{1,60}(-[0-9A-Za-z.-]{1,80})?(\+[0-9A-Za-z.-]{1,80})?", fullmatch=True))
def test_any_version_gives_a_tag_that_registries_take(name: str) -> None:
    for tag in default_tags(f"refs/tags/{name}", COMMIT, "main", Trigger.TAG):
        assert check_tag(tag) == tag
