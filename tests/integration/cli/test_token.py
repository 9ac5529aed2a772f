"""`albatros token`: at the database itself, before anybody has a token; the secret is shown once and kept nowhere."""

import json
from pathlib import Path

import pytest

from albatros.cli import main
from albatros.db import migrate, tokens
from albatros.db.session import connect, now
from albatros.domain.access import TOKEN_PREFIX, Scope


@pytest.fixture
def config(database_url: str, tmp_path: Path) -> str:
    """A server's config on each kind of database."""
    path = tmp_path / "albatros.toml"
    path.write_text(f'[server]\ndata = "{tmp_path}"\n[database]\nurl = "{database_url}"\n')
    migrate.upgrade(database_url)
    return str(path)


def test_a_token_is_shown_once_listed_and_revoked(
    config: str, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", "create", "ada", "--scope", "write", "--expires", "30", "--config", config]) == 0
    token = capsys.readouterr().out.strip()
    assert token.startswith(TOKEN_PREFIX)
    assert len(token) >= len(TOKEN_PREFIX) + 43
    database = connect(database_url)
    with database.read() as session:
        row = tokens.find(session, token)
    database.dispose()
    assert row is not None
    assert (row.name, row.scope) == ("ada", Scope.WRITE)
    assert row.expires_at is not None
    assert 29 <= (row.expires_at - now()).days <= 30
    assert main(["token", "list", "--json", "--config", config]) == 0
    listed = capsys.readouterr().out
    assert [one["name"] for one in json.loads(listed)] == ["ada"]
    assert token not in listed
    assert main(["token", "list", "--config", config]) == 0
    assert "ada" in capsys.readouterr().out
    assert main(["token", "revoke", "ada", "--config", config]) == 0
    assert main(["token", "revoke", "ada", "--config", config]) == 1
    assert "token list" in capsys.readouterr().err


def test_two_tokens_differ_and_a_name_is_taken_once(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    secrets = set()
    for name in ("one", "two"):
        assert main(["token", "create", name, "--json", "--config", config]) == 0
        made = json.loads(capsys.readouterr().out)
        assert made["scope"] == "read"
        assert made["expires_at"] is None
        secrets.add(made["token"])
    assert len(secrets) == 2
    assert main(["token", "create", "one", "--config", config]) == 1
    assert "revoke it first" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["", "--expires", "1"], ["x" * 101], ["a\nb"], ["ok", "--expires", "0"]])
def test_a_wrong_use_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str]) -> None:
    path = tmp_path / "albatros.toml"
    path.write_text(f'[server]\ndata = "{tmp_path}"\n')
    assert main(["token", "create", *wrong, "--config", str(path)]) == 2
    assert capsys.readouterr().out == ""


def test_the_first_token_can_be_made_before_the_server_ever_ran(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "albatros.toml"
    path.write_text(f'[server]\ndata = "{tmp_path / "data"}"\n')
    assert main(["token", "create", "first", "--config", str(path)]) == 0
    assert capsys.readouterr().out.startswith(TOKEN_PREFIX)
