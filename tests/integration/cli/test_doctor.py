"""What doctor says of a forge: the server's address as seen from there, the clone credential, and a test delivery."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from albatros.cli import doctor_forges
from albatros.cli.doctor_forges import Verdict, check
from albatros.db import migrate
from albatros.db.inbox import upsert_repo
from albatros.db.models import Delivery
from albatros.db.session import Database, connect, now
from albatros.domain.inbound import RepoInfo
from albatros.errors import ForgeError
from albatros.settings import Settings
from tests.support.hooks import MemoryHooks

GITEA = {"name": "home", "kind": "gitea", "url": "https://git.example.org", "webhook_secret": "not-a-secret"}


NOTHING: Mapping[str, object] = {}


def settings(data: Path, url: str = "https://ci.example.org", forge: Mapping[str, object] = NOTHING) -> Settings:
    return Settings.model_validate({"server": {"data": data, "url": url}, "forges": [{**GITEA, **forge}]})


def findings(loaded: Settings, hooks: MemoryHooks) -> list[tuple[Verdict, str]]:
    return [(found.verdict, found.text) for found in check(loaded, loaded.forges[0], hooks)]


@pytest.mark.parametrize(
    ("url", "forge", "verdict"),
    [
        ("https://ci.example.org", {}, None),
        ("http://ci.example.org", {}, Verdict.NOTE),
        ("http://localhost:8080", {}, Verdict.MISSING),
        ("", {}, Verdict.MISSING),
        ("https://127.0.0.1", {}, Verdict.MISSING),
        ("http://[::1]:80", {}, Verdict.MISSING),
        ("http://0.0.0.0:80", {}, Verdict.MISSING),
        ("", {"url": "http://127.0.0.1:3000"}, None),
        ("", {"url": "http://localhost:3000"}, None),
        ("", {"kind": "git", "url": "/srv/git"}, None),
    ],
)
def test_the_address_is_judged_from_where_the_forge_is(
    tmp_path: Path, url: str, forge: Mapping[str, object], verdict: Verdict | None
) -> None:
    found = findings(settings(tmp_path, url, forge), MemoryHooks())
    told = [one for one, text in found if "server.url" in text]
    assert told == ([verdict] if verdict is not None else [])


def test_a_runner_that_gets_the_token_that_may_write_is_told_of(tmp_path: Path) -> None:
    gitlab = {"kind": "gitlab", "token": "t0ken"}
    for forge, told in (
        ({"token": "t0ken"}, True),
        ({"token": "t0ken", "clone_token": "other"}, False),
        ({}, False),
        (gitlab, False),
        ({**gitlab, "submodules": True}, True),
    ):
        found = findings(settings(tmp_path, forge=forge), MemoryHooks())
        assert any("clone_token" in text for _, text in found) is told
        assert "t0ken" not in str(found)


class Delivering(MemoryHooks):
    """A forge whose test arrives."""

    database: Database

    def ring(self, owner: str, name: str, url: str) -> bool:
        with self.database.write() as session:
            session.add(Delivery(forge="home", delivery_id="a-test", event="push", received_at=now()))
        return super().ring(owner, name, url)


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Settings, Database]:
    loaded = settings(tmp_path)
    migrate.prepare(loaded.database_url)
    return loaded, connect(loaded.database_url)


def add_repo(database: Database) -> None:
    with database.write() as session:
        upsert_repo(session, "home", RepoInfo("alba", "hello", private=False, default_branch="main")).allowed = True


def test_a_test_delivery_is_seen_to_arrive(
    prepared: tuple[Settings, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, database = prepared
    url = "https://ci.example.org/webhooks/home"
    hooks = Delivering()
    hooks.database = database
    ((verdict, text),) = findings(loaded, hooks)
    assert (verdict, "no repo was added" in text) == (Verdict.NOTE, True)
    add_repo(database)
    ((verdict, text),) = findings(loaded, hooks)
    assert (verdict, "run `albatros repo add home/alba/hello`" in text) == (Verdict.MISSING, True)
    hooks.ensure("alba", "hello", url)
    assert findings(loaded, hooks) == [(Verdict.OK, f"a test of alba/hello arrived at {url}")]
    monkeypatch.setattr(doctor_forges, "ARRIVAL_SECONDS", 0.5)
    silent = MemoryHooks(hooks=hooks.hooks)
    ((verdict, text),) = findings(loaded, silent)
    assert (verdict, "did not arrive" in text, silent.rung) == (Verdict.MISSING, True, [url])
    ((verdict, text),) = findings(loaded, MemoryHooks(fails=ForgeError("home answered 403")))
    assert (verdict, text) == (Verdict.MISSING, "home answered 403")
    database.dispose()


def test_before_the_first_start_nothing_is_tested(tmp_path: Path) -> None:
    ((verdict, text),) = findings(settings(tmp_path), MemoryHooks())
    assert (verdict, "once the server runs" in text) == (Verdict.NOTE, True)
