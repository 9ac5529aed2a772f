"""Credentials out of docker's config.json, in every form that `docker login` and its kin write."""

import base64
import json
import os
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


def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, name: str = "vault") -> None:
    directory = tmp_path / "bin"
    directory.mkdir(exist_ok=True)
    program = directory / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def find_in(tmp_path: Path, config: object, host: str = "r.example.org") -> Credentials | None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    return find_credentials(host, path)


ANSWER = (
    'read server; echo "{\\"ServerURL\\":\\"$server\\",\\"Username\\":\\"%s\\",\\"Secret\\":\\"for $server $# $1\\"}"'
)


@pytest.mark.parametrize("config", [{"credsStore": "vault"}, {"credHelpers": {"r.example.org": "vault"}}])
def test_a_helper_is_asked_through_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, object]
) -> None:
    helper(tmp_path, monkeypatch, ANSWER % "robot")
    found = find_in(tmp_path, {**config, "auths": {"r.example.org": {"auth": AUTH}}})
    origin = f"docker-credential-vault (named by {tmp_path / 'config.json'})"
    assert found == Credentials("robot", "for r.example.org 1 get", origin)


def test_the_hosts_own_helper_goes_before_the_one_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, ANSWER % "own", "own")
    helper(tmp_path, monkeypatch, ANSWER % "store", "store")
    config = {"credsStore": "store", "credHelpers": {"r.example.org": "own"}}
    for host, user in (("r.example.org", "own"), ("other.example.org", "store")):
        found = find_in(tmp_path, config, host)
        assert found is not None
        assert found.username == user


def test_docker_hub_is_asked_for_by_its_old_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, ANSWER % "robot")
    found = find_in(tmp_path, {"credsStore": "vault"}, "docker.io")
    assert found is not None
    assert found.password == "for https://index.docker.io/v1/ 1 get"


def test_a_helper_may_keep_an_identity_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, ANSWER % "<token>")
    found = find_in(tmp_path, {"credsStore": "vault"})
    assert found is not None
    assert (found.username, found.password, found.identity_token) == ("", "", "for r.example.org 1 get")


def test_the_file_may_hold_an_identity_token(tmp_path: Path) -> None:
    found = find(tmp_path, {"r.example.org:5000": {"auth": AUTH, "identitytoken": "refresh"}})
    assert found == Credentials("", "", str(tmp_path / "config.json"), "refresh")


def test_what_a_helper_does_not_know_may_be_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, "echo credentials not found in native keychain; exit 1")
    config = {"credsStore": "vault", "auths": {"r.example.org": {"auth": AUTH}}}
    found = find_in(tmp_path, config)
    assert found is not None
    assert found.username == "robot"
    assert find_in(tmp_path, config, "other.example.org") is None


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo secret-text; exit 1", "failed for r.example.org with status 1"),
        ("echo secret-text", "gave nothing usable"),
        ("echo '{}'", "gave nothing usable"),
        ("head -c 100000 /dev/zero", "gave nothing usable"),
    ],
)
def test_a_helper_that_fails_is_named_and_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, error: str
) -> None:
    helper(tmp_path, monkeypatch, script)
    with pytest.raises(ConfigError, match=error) as caught:
        find_in(tmp_path, {"credsStore": "vault"})
    assert "docker-credential-vault" in caught.value.detail
    assert "secret-text" not in caught.value.detail


@pytest.mark.parametrize("name", ["missing", "../../bin/sh", "a b", "-x"])
def test_a_helper_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="which is not on PATH"):
        find_in(tmp_path, {"credsStore": name})
