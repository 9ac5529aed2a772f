"""API tokens that people make for themselves, through the API and on their page."""

from collections.abc import Iterator

import httpx
import pytest

from albatros.domain.access import Scope
from albatros.forges.base import Permission
from tests.support.api import Api
from tests.support.people import cookie_of, token_of

# Nothing here depends on the kind of database.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
TOKENS = "/api/v1/tokens"


@pytest.fixture
def ines(api: Api) -> httpx.Client:
    """A person who may write to one private repo, by an admin token of theirs."""
    api.people.given["alba/keys", "ines"] = Permission.WRITE
    return api.with_token(token_of(api.context.database, "ines", Scope.ADMIN))


@pytest.fixture
def browser(api: Api) -> Iterator[httpx.Client]:
    headers = {"Accept": "text/html", "Origin": api.url}
    with httpx.Client(base_url=api.url, headers=headers, cookies=cookie_of(api.context, "ines"), timeout=60) as client:
        yield client


def form_token(page: str) -> str:
    return page.partition('name="form_token" value="')[2].partition('"')[0]


def test_a_person_makes_lists_and_revokes_their_own(api: Api, ines: httpx.Client) -> None:
    answer = ines.post(TOKENS, json={"name": "a script", "scope": "write", "days": 30, "bound": "home/alba/keys"})
    assert answer.status_code == 201
    made = answer.json()
    assert (made["name"], made["scope"], made["bound"]) == ("a script", "write", "home/alba/keys")
    assert made["expires_at"] is not None
    listed = ines.get(TOKENS).json()["items"]
    assert [one["name"] for one in listed] == ["ines-admin-", "a script"]
    assert made["token"] not in ines.get(TOKENS).text
    script = api.with_token(made["token"])
    assert script.get(f"/api/v1/builds/{api.seeded.private}").status_code == 200
    assert script.get(f"/api/v1/builds/{api.seeded.running}").status_code == 404
    assert ines.delete(f"{TOKENS}/{made['id']}").status_code == 204
    assert script.get(f"/api/v1/builds/{api.seeded.private}").status_code == 401
    assert ines.delete(f"{TOKENS}/{made['id']}").status_code == 404


def test_a_token_does_no_more_than_its_person_may_at_the_moment(api: Api, ines: httpx.Client) -> None:
    made = ines.post(TOKENS, json={"name": "wide", "scope": "admin"}).json()
    wide = api.with_token(made["token"])
    path = f"/api/v1/builds/{api.seeded.private}"
    assert wide.get(path).status_code == 200
    assert wide.get("/api/v1/deliveries").status_code == 403
    assert wide.put("/api/v1/secrets", json={"place": "home/alba/keys", "name": "h", "value": "v"}).status_code == 403
    api.people.given["alba/keys", "ines"] = Permission.NONE
    api.context.roles._answers.clear()
    assert wide.get(path).status_code == 404


def test_nobody_reaches_anothers_tokens(api: Api, ines: httpx.Client) -> None:
    made = ines.post(TOKENS, json={"name": "mine"}).json()
    ada = api.with_token(token_of(api.context.database, "ada", Scope.ADMIN))
    assert [one["name"] for one in ada.get(TOKENS).json()["items"]] == ["ada-admin-"]
    assert ada.delete(f"{TOKENS}/{made['id']}").status_code == 404
    assert ada.post(TOKENS, json={"name": "mine"}).status_code == 201
    assert ines.post(TOKENS, json={"name": "mine"}).status_code == 409
    servers = api.admin.get(TOKENS).json()["items"]
    assert {one["name"] for one in servers} == {"a-read-token", "a-write-token", "a-admin-token"}
    assert ines.delete(f"{TOKENS}/{servers[0]['id']}").status_code == 404


def test_less_than_admin_looks_after_no_tokens(api: Api) -> None:
    from_repo = api.admin.post(TOKENS, json={"name": "narrow", "scope": "admin", "bound": "home"}).json()["token"]
    for client in (api.reader, api.writer, api.with_token(from_repo)):
        assert client.get(TOKENS).status_code == 403
        assert client.post(TOKENS, json={"name": "more", "scope": "read"}).status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "a\nb"},
        {"name": " "},
        {"name": "x", "scope": "owner"},
        {"name": "x", "days": 0},
        {"name": "x", "days": 367},
        {"name": "x", "bound": "home/alba//keys"},
        {"name": "x", "bound": "../x"},
        {"name": "x", "bound": "/"},
        {"name": "x" * 101},
        {"name": "x", "more": 1},
    ],
)
def test_what_is_no_token_is_refused(api: Api, ines: httpx.Client, body: dict[str, object]) -> None:
    assert ines.post(TOKENS, json=body).status_code == 400
    assert len(ines.get(TOKENS).json()["items"]) == 1


def test_a_person_has_so_many_tokens_and_no_more(ines: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("albatros.db.tokens.MAX_TOKENS", 3)
    statuses = [ines.post(TOKENS, json={"name": f"token {number}"}).status_code for number in range(4)]
    assert statuses == [201, 201, 409, 409]


def test_the_page_makes_a_token_and_shows_it_once(api: Api, browser: httpx.Client) -> None:
    page = browser.get("/settings").text
    assert "You are <b>ines</b> of the forge <b>home</b>" in page
    form = {"form_token": form_token(page), "name": "laptop", "scope": "read", "days": "30", "only": ""}
    answer = browser.post("/settings/tokens", data=form)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    token = answer.text.partition('aria-label="The new token">')[2].partition("<")[0]
    assert api.with_token(token).get("/api/v1/builds").status_code == 200
    again = browser.get("/settings").text
    assert "laptop" in again
    assert token not in again
    path = again.partition('action="/settings/tokens/')[2].partition("/revoke")[0]
    revoke = f"/settings/tokens/{path}/revoke"
    assert browser.post(revoke, data={"form_token": "0" * 64}).status_code == 403
    assert browser.post(revoke, data={"form_token": form_token(again)}).headers["location"] == "/settings"
    assert api.with_token(token).get("/api/v1/builds").status_code == 401


@pytest.mark.parametrize(
    "wrong", [{"scope": "owner"}, {"scope": ""}, {"days": "x"}, {"days": "\u0663"}, {"name": ""}, {"only": "a/b//d"}]
)
def test_the_page_says_what_is_wrong(browser: httpx.Client, wrong: dict[str, str]) -> None:
    form = {"form_token": form_token(browser.get("/settings").text), "name": "x", "scope": "read", "days": "3"}
    answer = browser.post("/settings/tokens", data={**form, **wrong})
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert "None yet." in browser.get("/settings").text


def test_the_page_needs_a_login_and_its_forms_a_token(api: Api, browser: httpx.Client) -> None:
    form = {"name": "x", "scope": "read", "days": "3"}
    assert browser.post("/settings/tokens", data=form).status_code == 403
    assert browser.post("/settings/tokens", data=form, headers={"Origin": "https://evil.example"}).status_code == 403
    browser.cookies.clear()
    assert browser.get("/settings").headers["location"] == "/login?next=/settings"
    assert api.reader.get("/settings").status_code == 401
