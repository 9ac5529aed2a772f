"""The page that adds, repairs and removes a repo, for who is its admin on the forge."""

import re

import httpx
import pytest

from albatros.errors import ForgeUnavailableError
from albatros.forges.base import Permission
from tests.support.api import Api
from tests.support.forges import MemoryForge
from tests.support.people import cookie_of

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def browser(api: Api, login: str) -> httpx.Client:
    headers = {"Origin": api.url, "Accept": "text/html"}
    client = httpx.Client(base_url=api.url, headers=headers, cookies=cookie_of(api.context, login), timeout=60)
    return api.clients.enter_context(client)


def send(client: httpx.Client, action: str, repo: str) -> httpx.Response:
    found = re.search(r'name="form_token" value="([^"]+)"', client.get("/join").text)
    assert found is not None
    return client.post("/join", data={"form_token": found[1], "action": action, "repo": repo})


def prepare(api: Api) -> None:
    forge = MemoryForge()
    forge.add("alba/new")
    api.forges["home"] = forge
    api.people.given["alba/new", "boss"] = Permission.ADMIN
    api.people.given["alba/new", "hand"] = Permission.WRITE


def test_a_click_adds_repairs_and_removes(api: Api) -> None:
    prepare(api)
    boss = browser(api, "boss")
    added = send(boss, "add", "https://git.example.org/alba/new")
    assert (added.status_code, "The webhook was made." in added.text) == (200, True)
    url = f"{api.url}/webhooks/home"
    assert api.hooks.hooks == {"alba/new": {url: True}}
    api.hooks.hooks["alba/new"][url] = False
    shown = boss.get("/join", params={"repo": "home/alba/new"}).text
    assert "webhook differs" in shown
    assert "Set the webhook again" in shown
    assert "webhook ready" in send(boss, "add", "home/alba/new").text
    assert '<a href="/join?repo=home/alba/new">' in boss.get("/repos/home/alba/new").text
    assert "The webhook was removed" in send(boss, "remove", "home/alba/new").text
    assert api.hooks.hooks == {"alba/new": {}}


def test_others_may_not(api: Api) -> None:
    prepare(api)
    for login, status in (("hand", 403), ("stranger", 404)):
        client = browser(api, login)
        for action in ("add", "remove"):
            answer = send(client, action, "home/alba/new")
            assert (answer.status_code, 'role="alert"' in answer.text) == (status, True)
        assert client.get("/join", params={"repo": "home/alba/new"}).status_code == status
    assert api.hooks.hooks == {}
    assert "/join?repo" not in browser(api, "hand").get("/repos/home/alba/hello").text


def test_whoever_is_not_logged_in_is_asked_to(api: Api) -> None:
    answer = httpx.get(f"{api.url}/join?repo=home/alba/new", headers={"Accept": "text/html"}, timeout=60)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/join%3Frepo%3Dhome/alba/new")


@pytest.mark.parametrize("repo", ["", "alba", "https://elsewhere.example.org/a/b", "home/../x", "home/<b>/x"])
def test_what_is_no_address_is_told_on_the_page(api: Api, repo: str) -> None:
    prepare(api)
    answer = send(browser(api, "boss"), "add", repo)
    assert (answer.status_code, 'role="alert"' in answer.text) == (400, True)
    assert "<b>" not in answer.text


def test_a_forge_that_is_away_changes_nothing(api: Api) -> None:
    prepare(api)
    boss = browser(api, "boss")
    api.hooks.fails = ForgeUnavailableError("home does not answer")
    assert send(boss, "add", "home/alba/new").status_code == 502
    assert boss.get("/repos/home/alba/new").status_code == 404


def test_a_form_of_another_session_is_refused(api: Api) -> None:
    prepare(api)
    boss = browser(api, "boss")
    data = {"form_token": "forged", "action": "add", "repo": "home/alba/new"}
    assert boss.post("/join", data=data).status_code == 403
    assert api.hooks.hooks == {}
