"""Secrets at rest and on their way to a runner, on both databases: sealed, bound, and never lost in a rotation."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select, update
from sqlalchemy.engine import make_url

from albatros.cli import main
from albatros.db import migrate, secrets
from albatros.db.keyring import KEPT, Keyring
from albatros.db.models import Secret
from albatros.db.session import Database, connect
from albatros.domain.secrets import Place
from albatros.domain.states import AttemptState, BuildState, Reason
from albatros.errors import GoneError, SecretsUnreadableError
from albatros.flows import secrets as flow
from tests.support.flows import World, settings_of
from tests.tools import find

HELLO = Place("home", "alba", "hello")
OWNER = Place("home", "alba")
SERVER = Place()
HOST = "git.example.org"
VALUE = "ghp_plainly-visible-0123456789"
COUNT = 7


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    forge = {"name": "home", "kind": "git", "url": "/git", "webhook_secret": "not-a-secret"}
    configured = {"flake_tokens": {"configured.example.org": "from-the-config"}}
    return World(database, settings_of(tmp_path, forges=[forge | configured]))


@pytest.fixture
def keyring(world: World) -> Keyring:
    return Keyring(world.settings.secrets_key)


def put(world: World, place: Place, value: str = VALUE, *refs: str, name: str = HOST) -> None:
    with world.database.write() as session:
        secrets.put(session, Keyring(world.settings.secrets_key), place, name, refs, value)


def tokens(world: World) -> object:
    """What the runner of the newest Build is given."""
    return world.dispatch_one().claim()["access_tokens"]


def test_a_trusted_build_is_given_its_repos_tokens_beside_those_of_the_config(world: World) -> None:
    put(world, HELLO)
    put(world, Place("home", "alba", "other"), "another-repos-token", name="other.example.org")
    put(world, Place("away", "alba"), "another-forges-token", name="away.example.org")
    world.build()
    assert tokens(world) == {"configured.example.org": "from-the-config", HOST: VALUE}


def test_what_nobody_trusted_pushed_is_given_none(world: World) -> None:
    for place in (SERVER, OWNER, HELLO):
        put(world, place)
    world.build(trusted=False)
    assert tokens(world) == {}


def test_the_nearest_secret_counts(world: World) -> None:
    for place, value in ((SERVER, "of-the-server"), (HELLO, "of-the-repo"), (OWNER, "of-the-owner")):
        put(world, place, value)
    for repo, wanted in (("hello", "of-the-repo"), ("driftnote", "of-the-owner")):
        world.build(repo)
        assert tokens(world) == {"configured.example.org": "from-the-config", HOST: wanted}


def test_a_secret_bound_to_refs_reaches_no_other(world: World) -> None:
    put(world, HELLO, VALUE, "refs/heads/main", "refs/tags/v*")
    for ref, given in (
        ("refs/heads/main", True),
        ("refs/tags/v1.2", True),
        ("refs/heads/maintenance", False),
        ("refs/tags/nightly", False),
        ("0123456789abcdef0123456789abcdef01234567", False),
    ):
        world.build(ref=ref)
        assert (HOST in str(tokens(world))) is given


def test_the_owners_secret_stands_in_where_the_repos_own_is_bound_elsewhere(world: World) -> None:
    put(world, OWNER, "of-the-owner")
    put(world, HELLO, "of-the-repo", "refs/heads/main")
    world.build(ref="refs/heads/topic")
    assert tokens(world) == {"configured.example.org": "from-the-config", HOST: "of-the-owner"}


def test_neither_database_nor_dump_holds_a_value(world: World, database_url: str, tmp_path: Path) -> None:
    put(world, HELLO)
    put(world, HELLO, VALUE + "-changed")
    if world.database.is_sqlite:
        kept = b"".join(path.read_bytes() for path in tmp_path.glob("albatros.sqlite3*"))
    else:
        kept = _dump(database_url)
    assert HOST.encode() in kept
    assert VALUE.encode() not in kept
    assert VALUE.encode().hex().encode() not in kept
    key_file = world.settings.secrets_key
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert VALUE not in repr(Secret(name=HOST))


def _dump(database_url: str) -> bytes:
    url = make_url(database_url)
    socket = str(url.query["host"])
    command = [find("pg_dump"), "--host", socket, "--username", str(url.username), str(url.database)]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.mark.parametrize(
    "change",
    [{"repo": "driftnote"}, {"refs": []}, {"name": "evil.example.org"}, {"sealed": b"x" * 40}, {"key_id": "0"}],
)
def test_a_row_that_was_moved_or_loosened_does_not_open(world: World, change: dict[str, object]) -> None:
    put(world, HELLO, VALUE, "refs/heads/*")
    with world.database.write() as session:
        session.execute(update(Secret).values(**change))
    build_id = world.build(str(change.get("repo", "hello")))
    runner = world.dispatch_one()
    with pytest.raises(GoneError, match="set"):
        runner.claim()
    assert (runner.attempt().state, runner.attempt().reason) == (AttemptState.FAILED, Reason.DRIVER)
    assert "secret" in runner.attempt().message
    assert VALUE not in runner.attempt().message
    assert world.state(build_id) is BuildState.EVALUATING


def test_a_broken_key_file_says_so(world: World, keyring: Keyring) -> None:
    put(world, HELLO)
    for content in (b"", b"not base64!\n", b"c2hvcnQ=\n"):
        world.settings.secrets_key.write_bytes(content)
        with pytest.raises(SecretsUnreadableError, match=r"secrets\.key"):
            keyring.current()


def test_a_rotation_leaves_nothing_under_the_old_key_and_the_values_as_they_were(
    world: World, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "BATCH", 2)
    for number in range(COUNT):
        put(world, HELLO, f"{VALUE}-{number}", name=f"host-{number}.example.org")
    for _ in range(4):
        old = keyring.current()
        assert flow.rotate(world.database, keyring) == COUNT
        assert keyring.current() != old
        assert values(world.database, keyring) == [f"{VALUE}-{number}" for number in range(COUNT)]
        assert key_ids(world.database) == {keyring.current()}
        assert len(world.settings.secrets_key.read_bytes().split()) <= KEPT


KILLED = """
import os, signal, sys
from pathlib import Path
from albatros.db.keyring import Keyring
from albatros.db.session import connect
from albatros.flows import secrets

url, key_file, where, count = sys.argv[1:]
real, calls = getattr(*((Keyring, where) if hasattr(Keyring, where) else (secrets, where))), 0

def kill(*arguments):
    global calls
    calls += 1
    if calls > int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)

setattr(Keyring if hasattr(Keyring, where) else secrets, where, kill)
secrets.BATCH = 2
secrets.rotate(connect(url), Keyring(Path(key_file)))
"""


@pytest.mark.parametrize(
    ("where", "count"), [("add", 0), ("_encrypt_some", 0), ("_encrypt_some", 2), ("seal", 3), ("forget", 0)]
)
def test_a_rotation_that_is_killed_is_finished_by_the_next(
    world: World, keyring: Keyring, database_url: str, where: str, count: int
) -> None:
    for number in range(COUNT):
        put(world, HELLO, f"{VALUE}-{number}", name=f"host-{number}.example.org")
    wanted = values(world.database, keyring)
    command = [sys.executable, "-c", KILLED, database_url, str(world.settings.secrets_key), where, str(count)]
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert values(world.database, keyring) == wanted
    put(world, HELLO, "set-after-the-kill", name="new.example.org")
    flow.rotate(world.database, keyring)
    assert values(world.database, keyring) == [*wanted, "set-after-the-kill"]
    assert key_ids(world.database) == {keyring.current()}


def test_a_value_sealed_while_a_rotation_ended_opens_still(world: World, keyring: Keyring) -> None:
    put(world, HELLO)
    late = keyring.seal("late-comer", ["a"])
    flow.rotate(world.database, keyring)
    assert keyring.open(late, ["a"]) == "late-comer"


def test_the_command_rotates_the_key_of_a_configs_server(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "albatros.toml"
    config.write_text(f'[server]\ndata = "{tmp_path}"\n[database]\nurl = "{database_url}"\n')
    migrate.upgrade(database_url)
    keyring, database = Keyring(tmp_path / "keys" / "secrets.key"), connect(database_url)
    with database.write() as session:
        secrets.put(session, keyring, SERVER, HOST, [], VALUE)
    old = keyring.current()
    assert main(["secret", "rotate", "--json", "--config", str(config)]) == 0
    assert json.loads(capsys.readouterr().out)["encrypted"] == 1
    assert key_ids(database) == {keyring.current()} != {old}
    assert values(database, keyring) == [VALUE]
    database.dispose()


def values(database: Database, keyring: Keyring) -> list[str]:
    with database.read() as session:
        rows = session.scalars(select(Secret).order_by(Secret.id)).all()
        return [secrets.open_value(keyring, row) for row in rows]


def key_ids(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(Secret.key_id)))
