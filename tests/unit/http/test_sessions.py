import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from albatros.errors import ConfigError, ForbiddenError
from albatros.http import sessions
from albatros.http.sessions import (
    KEY_FILE,
    LIFETIME_SECONDS,
    Session,
    SessionKind,
    SessionSigner,
    person_proof,
    signer,
    token_proof,
)

HASH = "ab" * 32
OF_TOKEN = Session(SessionKind.TOKEN, 7, token_proof(HASH))


@pytest.fixture
def keys() -> SessionSigner:
    return SessionSigner(b"k" * 32)


def test_a_cookie_says_which_token_logged_in_and_does_not_hold_it(keys: SessionSigner) -> None:
    cookie = keys.issue(OF_TOKEN)
    assert keys.read(cookie) == OF_TOKEN
    assert HASH not in cookie


def test_a_token_of_the_same_id_that_came_later_is_not_logged_in(keys: SessionSigner) -> None:
    assert token_proof("cd" * 32) != OF_TOKEN.proof


def test_a_cookie_says_which_person_logged_in_and_until_which_logout(keys: SessionSigner) -> None:
    session = Session(SessionKind.PERSON, 7, person_proof(3))
    assert keys.read(keys.issue(session)) == session
    assert person_proof(4) != session.proof


def test_what_is_sealed_for_one_purpose_is_nothing_for_another(keys: SessionSigner) -> None:
    sealed = keys.seal("login", "person.7.1", 60)
    assert keys.unseal("login", sealed) == "person.7.1"
    assert keys.read(sealed) is None


@pytest.mark.parametrize("position", [0, 6, 20, -1])
def test_a_changed_cookie_is_refused(keys: SessionSigner, position: int) -> None:
    cookie = list(keys.issue(OF_TOKEN))
    cookie[position] = "8" if cookie[position] != "8" else "9"
    assert keys.read("".join(cookie)) is None


@pytest.mark.parametrize("cookie", ["", ".", "...", "7.9999999999.abc.", "\u00e9.\u00e9"])
def test_what_is_no_cookie_of_ours_is_refused(keys: SessionSigner, cookie: str) -> None:
    assert keys.read(cookie) is None


def test_a_cookie_of_another_server_is_refused(keys: SessionSigner) -> None:
    assert keys.read(SessionSigner(b"x" * 32).issue(OF_TOKEN)) is None


def test_a_session_ends(keys: SessionSigner, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = keys.issue(OF_TOKEN)
    end = time.time() + LIFETIME_SECONDS
    monkeypatch.setattr(time, "time", lambda: end + 2)
    assert keys.read(cookie) is None


def test_a_form_token_belongs_to_one_session(keys: SessionSigner) -> None:
    cookie, other = keys.issue(OF_TOKEN), keys.issue(replace(OF_TOKEN, row_id=8))
    keys.check_form_token(cookie, keys.form_token(cookie))
    with pytest.raises(ForbiddenError):
        keys.check_form_token(other, keys.form_token(cookie))


def test_a_cookies_own_signature_is_no_form_token(keys: SessionSigner) -> None:
    cookie = keys.issue(OF_TOKEN)
    with pytest.raises(ForbiddenError):
        keys.check_form_token(cookie, cookie.rpartition(".")[2])


def test_the_key_is_made_once_and_for_the_server_alone(tmp_path: Path) -> None:
    cookie = signer(tmp_path).issue(OF_TOKEN)
    signer.cache_clear()
    assert signer(tmp_path).read(cookie) is not None
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_servers_that_start_at_once_share_the_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = pool.map(lambda _: sessions.secret_file(tmp_path / KEY_FILE, lambda: secrets.token_bytes(32)), range(64))
        keys = set(made)
    assert len(keys) == 1


def test_a_damaged_key_is_told(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(ConfigError, match="delete it"):
        signer(tmp_path)
