"""Credentials out of docker's config.json, in every form that `docker login` and its kin write."""

import base64
import json
from pathlib import Path

import pytest

from albatros.errors import ConfigError
from albatros.registries.base import Credentials
from albatros.registries.docker_config import config_path, find_credentials

AUTH = base64.b64encode(b"robot:hunter:22").decode()


def find(tmp_path: Path, auths: object, host: str = "r.example.org:5000") -> Credentials | None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": auths}))
    return find_credentials(host, path)


@pytest.mark.parametrize("key", ["r.example.org:5000", "https://r.example.org:5000", "http://r.example.org:5000"])
@pytest.mark.parametrize("entry", [{"auth": AUTH}, {"username": "robot", "password": "hunter:22"}])
def test_a_host_is_found_under_any_of_its_keys(tmp_path: Path, key: str, entry: dict[str, str]) -> None:
    found = find(tmp_path, {key: entry, "other": {"auth": "x"}})
    assert found == Credentials("robot", "hunter:22", str(tmp_path / "config.json"))


def test_docker_hub_has_a_key_of_its_own(tmp_path: Path) -> None:
    found = find(tmp_path, {"https://index.docker.io/v1/": {"auth": AUTH}}, "docker.io")
    assert found is not None
    assert found.username == "robot"


@pytest.mark.parametrize(
    "auths",
    [
        None,
        [],
        {},
        {"other": {"auth": AUTH}},
        {"r.example.org:5000": None},
        {"r.example.org:5000": {}},
    ],
)
def test_a_host_that_is_not_in_it_is_anonymous(tmp_path: Path, auths: object) -> None:
    assert find(tmp_path, auths) is None


def test_no_file_is_anonymous(tmp_path: Path) -> None:
    assert find_credentials("r.example.org", tmp_path / "none.json") is None


@pytest.mark.parametrize(
    "entry",
    [
        {"auth": "%%%"},
        {"auth": "/w=="},
        {"username": "x"},
        {"username": 1, "password": "x"},
    ],
)
def test_an_entry_that_cannot_be_used_names_the_file(tmp_path: Path, entry: object) -> None:
    with pytest.raises(ConfigError, match=r"config\.json has an entry for r\.example\.org:5000"):
        find(tmp_path, {"r.example.org:5000": entry})


@pytest.mark.parametrize("text", ["", "{", "\xff", "[" * 100_000])
def test_a_file_that_is_damaged_is_named_and_not_quoted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        find_credentials("r.example.org", path)


def test_where_it_is(tmp_path: Path) -> None:
    assert config_path({"DOCKER_CONFIG": str(tmp_path)}) == tmp_path / "config.json"
    assert config_path({}) == Path.home() / ".docker" / "config.json"
