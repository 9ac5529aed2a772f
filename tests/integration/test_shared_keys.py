"""Servers on one database have one set of keys and one store, on both databases: others are refused at the start."""

import shutil
from pathlib import Path

import pytest

from albatros.bootstrap import data
from albatros.bootstrap.data import shared_keys
from albatros.db import shared_keys as known
from albatros.db.keyring import Keyring
from albatros.db.session import Database
from albatros.errors import ConfigError
from albatros.flows import secrets
from albatros.http.sessions import signer
from albatros.settings import Settings
from tests.support.flows import settings_of

NAMES = (data.ATTEMPT_KEY, "session.key", "secrets.key")


def server(tmp_path: Path, name: str, keys: str = "") -> Settings:
    """The settings of a server with a data directory of its own."""
    directory = tmp_path / name
    directory.mkdir(exist_ok=True)
    return settings_of(tmp_path, server={"data": str(directory), "keys": keys})


def test_servers_share_a_directory_of_keys_and_a_server_may_start_again(database: Database, tmp_path: Path) -> None:
    keys = str(tmp_path / "keys")
    first = shared_keys(server(tmp_path, "a", keys), database)
    assert shared_keys(server(tmp_path, "b", keys), database) == first
    assert shared_keys(server(tmp_path, "a", keys), database) == first


@pytest.mark.parametrize("name", NAMES)
def test_a_server_with_another_key_is_refused_until_it_is_copied(database: Database, tmp_path: Path, name: str) -> None:
    first, second = server(tmp_path, "a"), server(tmp_path, "b")
    key = shared_keys(first, database)
    shutil.copytree(first.keys, second.keys)
    (second.keys / name).unlink()
    data_keys_forgotten()
    with pytest.raises(ConfigError, match=f"{name} is not the key of the other servers") as refused:
        shared_keys(second, database)
    assert key.hex() not in str(refused.value)
    shutil.copy(first.keys / name, second.keys / name)
    data_keys_forgotten()
    assert shared_keys(second, database) == key


def test_keys_that_are_lost_may_be_replaced(database: Database, tmp_path: Path) -> None:
    shared_keys(server(tmp_path, "a"), database)
    with pytest.raises(ConfigError, match="forget-keys"):
        shared_keys(server(tmp_path, "b"), database)
    assert known.forget(database) == len(NAMES)
    shared_keys(server(tmp_path, "b"), database)


def test_a_rotation_has_to_be_copied_to_the_others(database: Database, tmp_path: Path) -> None:
    first, second = server(tmp_path, "a"), server(tmp_path, "b")
    shared_keys(first, database)
    shutil.copytree(first.keys, second.keys)
    Keyring(first.secrets_key).add()
    with database.write() as session:
        known.remember(session, "secrets.key", Keyring(first.secrets_key).current())
    with pytest.raises(ConfigError, match=r"secrets\.key"):
        shared_keys(second, database)
    shutil.copy(first.secrets_key, second.secrets_key)
    shared_keys(second, database)
    assert secrets.rotate(database, Keyring(first.secrets_key)) == 0
    shared_keys(first, database)


def test_servers_on_one_database_have_one_store(database: Database) -> None:
    known.check_store(database, "dir:/a", "a" * 32, learn=False)
    known.check_store(database, "dir:/b", "b" * 32)
    known.check_store(database, "dir:/b-mounted-elsewhere", "b" * 32)
    for learn in (True, False):
        with pytest.raises(ConfigError, match="dir:/a is not the blob store that this database belongs to"):
            known.check_store(database, "dir:/a", "a" * 32, learn=learn)


def test_a_store_that_is_lost_may_be_replaced_and_the_keys_stay(database: Database, tmp_path: Path) -> None:
    shared_keys(server(tmp_path, "a"), database)
    known.check_store(database, "dir:/a", "a" * 32)
    assert known.forget_store(database) == 1
    known.check_store(database, "dir:/b", "b" * 32)
    assert known.forget(database) == len(NAMES)
    with pytest.raises(ConfigError, match="forget-store"):
        known.check_store(database, "dir:/a", "a" * 32)


def data_keys_forgotten() -> None:
    """A session key is read once a process; each server here stands for a process of its own."""
    signer.cache_clear()
