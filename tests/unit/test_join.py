"""What people may type for a repo that is to be added."""

from pathlib import Path

import pytest

from albatros.errors import BadInputError
from albatros.flows.join import read_address
from albatros.settings import Settings
from tests.support.flows import settings_of

BASES = (("home", "gitea", "https://git.example.org/"), ("lab", "gitlab", "https://gitlab.example.org/under"))


@pytest.fixture
def configured(tmp_path: Path) -> Settings:
    forges = [
        {"name": name, "kind": kind, "url": url, "token": "not-a-token", "webhook_secret": "not-a-secret"}
        for name, kind, url in BASES
    ]
    return settings_of(tmp_path, forges=forges)


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("home/alba/hello", ("home", "alba", "hello")),
        ("https://git.example.org/alba/hello", ("home", "alba", "hello")),
        ("https://git.example.org/alba/hello.git", ("home", "alba", "hello")),
        ("https://git.example.org/alba/hello/", ("home", "alba", "hello")),
        ("https://git.example.org/alba/hello.git/", ("home", "alba", "hello")),
        ("lab/group/sub/project", ("lab", "group/sub", "project")),
        ("https://gitlab.example.org/under/group/sub/project/", ("lab", "group/sub", "project")),
    ],
)
def test_an_address_names_a_repo(configured: Settings, address: str, named: tuple[str, str, str]) -> None:
    assert read_address(configured, address) == named


@pytest.mark.parametrize(
    "address",
    [
        "",
        "alba/hello",
        "home",
        "home/hello",
        "home/alba/sub/hello",
        "https://git.example.org.evil.example/alba/hello",
        "http://git.example.org/alba/hello",
        "https://gitlab.example.org/group/project",
        "https://git.example.org/alba/hello?x=1",
        "https://git.example.org/../alba/hello",
    ],
)
def test_what_names_no_repo_here_is_refused(configured: Settings, address: str) -> None:
    with pytest.raises(BadInputError):
        read_address(configured, address)
