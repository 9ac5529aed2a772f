"""Secrets over HTTP and the command line: values go in and never come out."""

import io
import json
from pathlib import Path

import pytest

from albatros.cli import main
from albatros.domain.access import Scope
from albatros.forges.base import Permission
from tests.support.api import Api
from tests.support.forges import MemoryForge
from tests.support.people import token_of

VALUE = "ghp_plainly-visible-0123456789"
BODY = {"place": "home/alba/hello", "name": "github.com", "value": VALUE, "refs": ["refs/heads/main"]}


@pytest.fixture(autouse=True)
def _forge(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.forges["home"] = MemoryForge()
    monkeypatch.setenv("ALBATROS_SERVER", api.url)
    monkeypatch.setenv("ALBATROS_TOKEN", api.tokens[Scope.ADMIN])


def test_a_secret_is_set_changed_listed_and_removed_and_never_shown(api: Api) -> None:
    first = api.admin.put("/api/v1/secrets", json=BODY)
    again = api.admin.put("/api/v1/secrets", json={**BODY, "value": VALUE + "2", "refs": []})
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["refs"] == ["refs/heads/main"]
    assert first.json()["created_at"] == again.json()["created_at"]
    listed = api.admin.get("/api/v1/secrets", params={"place": "home/alba/hello"})
    assert listed.json()["items"] == [again.json()]
    assert VALUE not in first.text + again.text + listed.text
    assert api.admin.get("/api/v1/secrets", params={"place": "home/alba"}).json()["items"] == []
    wanted = {"place": "home/alba/hello", "name": "github.com"}
    assert api.admin.delete("/api/v1/secrets", params=wanted).status_code == 204
    assert api.admin.delete("/api/v1/secrets", params=wanted).status_code == 404
    assert api.admin.get("/api/v1/secrets").json()["items"] == []


def test_pages_hold_each_secret_once(api: Api) -> None:
    for number in range(5):
        assert api.admin.put("/api/v1/secrets", json={**BODY, "name": f"host-{number}.org"}).status_code == 200
    first = api.admin.get("/api/v1/secrets", params={"limit": 3}).json()
    second = api.admin.get("/api/v1/secrets", params={"limit": 3, "cursor": first["next"]}).json()
    assert [item["name"] for item in first["items"] + second["items"]] == [f"host-{n}.org" for n in (4, 3, 2, 1, 0)]
    assert second["next"] is None


def test_only_an_admin_may_even_see_their_names(api: Api) -> None:
    for client, status in ((api.anybody, 401), (api.reader, 403), (api.writer, 403)):
        assert client.get("/api/v1/secrets").status_code == status
        assert client.put("/api/v1/secrets", json=BODY).status_code == status
        params = {"place": "server", "name": "github.com"}
        assert client.delete("/api/v1/secrets", params=params).status_code == status


@pytest.mark.parametrize(
    "change",
    [
        {"place": "home"},
        {"place": None},
        {"name": "https://github.com"},
        {"value": f"{VALUE} and more"},
        {"value": VALUE * 1000},
        {"value": [VALUE]},
        {"refs": ["main"]},
        {"refs": VALUE},
        {"refs": ["refs/heads/a"] * 30},
        {"more": VALUE},
    ],
)
def test_what_cannot_be_kept_is_refused_and_not_repeated(api: Api, change: dict[str, object]) -> None:
    answer = api.admin.put("/api/v1/secrets", json={**BODY, **change})
    assert answer.status_code == 400
    assert VALUE not in answer.text


def test_the_admin_of_a_repo_reaches_its_secrets_alone(api: Api) -> None:
    api.people.given["alba/hello", "ada"] = Permission.ADMIN
    ada = api.with_token(token_of(api.context.database, "ada", Scope.ADMIN))
    assert ada.put("/api/v1/secrets", json=BODY).status_code == 200
    params = {"place": "home/alba/hello", "name": "github.com"}
    assert len(ada.get("/api/v1/secrets", params=params).json()["items"]) == 1
    for place in ("server", "home/alba"):
        assert ada.put("/api/v1/secrets", json={**BODY, "place": place}).status_code == 403
        assert ada.get("/api/v1/secrets", params={"place": place}).status_code == 403
    assert ada.get("/api/v1/secrets").status_code == 403
    assert ada.put("/api/v1/secrets", json={**BODY, "place": "home/alba/keys"}).status_code == 404
    assert ada.delete("/api/v1/secrets", params=params).status_code == 204


def test_an_unknown_forge_is_not_found(api: Api) -> None:
    assert api.admin.put("/api/v1/secrets", json={**BODY, "place": "away/alba"}).status_code == 404


def test_the_command_line_reads_a_value_from_a_file_or_standard_input(
    api: Api, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(VALUE + "\n")
    bound = ["--branch", "main", "--tag", "v*"]
    assert main(["secret", "set", "home/alba/hello", "github.com", "--file", str(file), *bound]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(VALUE + "\n"))
    assert main(["secret", "set", "server", "git.example.org", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["place"] == "server"
    assert main(["secret", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in listed] == ["git.example.org", "github.com"]
    assert listed[1]["refs"] == ["refs/heads/main", "refs/tags/v*"]
    assert main(["secret", "list", "home/alba/hello"]) == 0
    shown = capsys.readouterr()
    assert "refs/heads/main refs/tags/v*" in shown.out
    assert VALUE not in shown.out + shown.err
    assert main(["secret", "rm", "server", "git.example.org"]) == 0
    assert main(["secret", "rm", "server", "git.example.org"]) == 1
    assert "secret list" in capsys.readouterr().err
    assert main(["secret", "set", "server", "github.com", "--file", str(tmp_path / "none")]) == 2
