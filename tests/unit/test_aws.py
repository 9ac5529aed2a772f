"""Where keys for S3 come from, and that no error repeats a secret."""

from pathlib import Path

import pytest

from albatros.errors import ConfigError
from albatros.registries.aws import S3Keys, find_keys
from albatros.registries.base import Credentials

SECRET = "hunter2/secret"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    path = tmp_path / "credentials"
    path.write_text(
        f"[default]\naws_access_key_id = GK1\naws_secret_access_key = {SECRET}\n"
        f"[team]\naws_access_key_id=GK2\naws_secret_access_key={SECRET}%d\naws_session_token=t0ken\n"
        "[half]\naws_access_key_id=GK3\n"
    )
    return path


def test_the_variables_come_first(shared: Path) -> None:
    names = {"AWS_SHARED_CREDENTIALS_FILE": str(shared), "AWS_ACCESS_KEY_ID": "GK9", "AWS_SECRET_ACCESS_KEY": SECRET}
    assert find_keys(names) == S3Keys("GK9", SECRET, "AWS_ACCESS_KEY_ID")
    assert find_keys(names | {"AWS_SESSION_TOKEN": "t"}).token == "t"


def test_a_profile_of_the_shared_file(shared: Path) -> None:
    names = {"AWS_SHARED_CREDENTIALS_FILE": str(shared)}
    assert find_keys(names) == S3Keys("GK1", SECRET, f"profile 'default' in {shared}")
    team = S3Keys("GK2", f"{SECRET}%d", f"profile 'team' in {shared}", "t0ken")
    assert find_keys(names | {"AWS_PROFILE": "team"}) == team


def test_the_file_in_the_home_directory(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    shared.rename(tmp_path / ".aws" / "credentials")
    assert find_keys({}).key_id == "GK1"


def test_without_keys_it_is_said_where_they_go(shared: Path) -> None:
    for names in ({"AWS_SHARED_CREDENTIALS_FILE": "/nowhere"}, {"AWS_SHARED_CREDENTIALS_FILE": str(shared.parent)}):
        with pytest.raises(ConfigError):
            find_keys(names)
    with pytest.raises(ConfigError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write profile 'gone'"):
        find_keys({"AWS_SHARED_CREDENTIALS_FILE": str(shared), "AWS_PROFILE": "gone"})
    with pytest.raises(ConfigError, match=r"profile 'half' in .* lacks"):
        find_keys({"AWS_SHARED_CREDENTIALS_FILE": str(shared), "AWS_PROFILE": "half"})
    with pytest.raises(ConfigError, match="only one is set"):
        find_keys({"AWS_ACCESS_KEY_ID": "GK1"})


def test_a_damaged_file_is_told_without_its_text(shared: Path) -> None:
    shared.write_text(f"{SECRET}\n[default]\n")
    with pytest.raises(ConfigError, match="cannot be read as AWS credentials") as caught:
        find_keys({"AWS_SHARED_CREDENTIALS_FILE": str(shared)})
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


def test_configured_credentials_are_a_key() -> None:
    keys = S3Keys.of(Credentials("GK1", SECRET, "[[registries]] garage"))
    assert keys == S3Keys("GK1", SECRET, "[[registries]] garage")
    assert SECRET not in repr(keys)
