"""What a secret may be called, hold and be bound to, and whose it is."""

import pytest

from albatros.domain.secrets import (
    MAX_REFS,
    MAX_TOKEN,
    MAX_VALUE,
    Place,
    check_name,
    check_refs,
    check_value,
    may_have,
)
from albatros.errors import BadInputError


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("server", Place()),
        ("home/alba", Place("home", "alba")),
        ("home/alba/hello", Place("home", "alba", "hello")),
        ("server/alba", Place("server", "alba")),
        ("lab/group/sub/", Place("lab", "group/sub")),
        ("lab/group/sub/project", Place("lab", "group/sub", "project")),
    ],
)
def test_a_place_is_read_and_written(written: str, place: Place) -> None:
    assert Place.parse(written) == place
    assert str(place) == written


@pytest.mark.parametrize(
    "text", ["", "home", "home/", "/alba", "home/alba/", "home/alba//x", "Home/alba", "home/..", "home/a b/c"]
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(BadInputError):
        Place.parse(text)


def test_the_places_around_a_repo_are_the_servers_its_owners_and_its_own() -> None:
    assert [str(place) for place in Place.parse("home/alba/hello").around()] == [
        "server",
        "home/alba",
        "home/alba/hello",
    ]


def test_what_is_a_groups_is_not_its_subgroups() -> None:
    around = [str(place) for place in Place.parse("lab/group/sub/project").around()]
    assert around == ["server", "lab/group/sub/", "lab/group/sub/project"]


@pytest.mark.parametrize("name", ["github.com", "git.example.org:3000", "localhost", "127.0.0.1:8080"])
def test_a_host_is_a_name(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "GitHub.com", "https://github.com", "a b", "host:", "host:1234567", "-a", "a\n"])
def test_what_is_no_host_is_no_name(name: str) -> None:
    with pytest.raises(BadInputError, match="give the host"):
        check_name(name)


@pytest.mark.parametrize("value", ["abcde", "two words", "a#comment", "two\nlines", "x" * (MAX_TOKEN + 1), "schlüssel"])
def test_a_value_that_cannot_be_used_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(BadInputError) as refused:
        check_value("github.com", value)
    assert value not in refused.value.detail


def test_a_value_is_kept_as_it_is() -> None:
    assert check_value("gitlab.com", "PAT:glpat-0123456789=") == "PAT:glpat-0123456789="


@pytest.mark.parametrize("name", ["DEPLOY_KEY", "_X", "A1", "GITHUB_TOKEN", "A" * 100])
def test_a_variable_is_a_name_of_a_secret_for_scripts(name: str) -> None:
    assert check_name(name) == name
    value = "-----BEGIN-----\n\t schlüssel # \r\n-----END-----"
    assert check_value(name, value) == value


@pytest.mark.parametrize(
    "name", ["PATH", "ALBATROS_SECRETS", "LD_PRELOAD", "COMMIT", "IFS", "BASH_ENV", "Deploy_Key", "A" * 101]
)
def test_a_variable_that_means_something_else_is_refused(name: str) -> None:
    with pytest.raises(BadInputError):
        check_name(name)


@pytest.mark.parametrize(
    "value", ["brief", "x" * (MAX_VALUE + 1), "ö" * (MAX_VALUE // 2 + 1), "nul\0byte", "half\ud800"]
)
def test_what_no_script_could_read_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(BadInputError) as refused:
        check_value("DEPLOY_KEY", value)
    assert value not in refused.value.detail


def test_globs_of_refs_are_whole_refs() -> None:
    assert check_refs(["refs/tags/v*", "refs/heads/main", "refs/tags/v*"]) == ("refs/heads/main", "refs/tags/v*")
    for globs in (["main"], ["refs/notes/x"], ["refs/heads/\x1b"], ["refs/heads/main"] * (MAX_REFS + 1)):
        with pytest.raises(BadInputError):
            check_refs(globs)


@pytest.mark.parametrize(
    ("refs", "ref", "trusted", "given"),
    [
        ((), "refs/heads/main", True, True),
        ((), "refs/heads/main", False, False),
        (("refs/heads/main",), "refs/heads/main", True, True),
        (("refs/heads/main",), "refs/heads/main", False, False),
        (("refs/heads/main",), "refs/heads/mainly", True, False),
        (("refs/heads/release/*",), "refs/heads/release/1/x", True, True),
        (("refs/tags/v*",), "refs/heads/v1", True, False),
        (("refs/heads/Main",), "refs/heads/main", True, False),
    ],
)
def test_who_may_have_it(refs: tuple[str, ...], ref: str, trusted: bool, given: bool) -> None:
    assert may_have(refs, ref, trusted=trusted) is given
