"""Logging in with a forge and the page of tokens, in a real browser."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.remote.webelement import WebElement

from albatros.forges.base import Permission
from albatros.forges.oauth import OAuthLogin
from albatros.settings import ForgeSettings
from tests.support.api import Api
from tests.support.chromium import DESKTOP, PHONE, resize
from tests.support.fake_oauth import CLIENT_ID, CLIENT_SECRET, FakeOAuth, fake_oauth
from tests.support.pages import console, do, press, roles, text_of, texts_of, type_into, unnamed, until, width
from tests.tools import needs

pytestmark = needs("chromium")
Opened = Callable[[str], Chrome]


@pytest.fixture
def forge(site: Api) -> Iterator[FakeOAuth]:
    """The forge `home`, whose person is logged in there and says yes to everything."""
    with fake_oauth() as server:
        settings = {
            "name": "home",
            "kind": "gitea",
            "url": server.url,
            "webhook_secret": "not-a-secret",
            "oauth_client_id": CLIENT_ID,
            "oauth_client_secret": CLIENT_SECRET,
        }
        site.people.given["alba/keys", server.login] = Permission.READ
        site.people.ids[server.login] = str(server.subject)
        with closing(OAuthLogin(ForgeSettings.model_validate(settings))) as login:
            object.__setattr__(site.context, "logins", {"home": login})
            yield server
            object.__setattr__(site.context, "logins", {})


def test_the_button_leads_to_the_forge_and_back(site: Api, forge: FakeOAuth, open_page: Opened) -> None:
    path = f"/builds/{site.seeded.private}"
    browser = open_page(path)
    assert "404" in text_of(browser, "main")
    console(browser)
    browser = open_page(f"/login?next={path}")
    assert text_of(browser, "a.button.main") == "Log in with home"
    field = ("textbox", "API token")
    assert field not in roles(browser)
    do(browser, "summary", WebElement.click)
    until(browser, roles, lambda found: field in found)
    press(browser, "a.button.main")
    assert text_of(browser, "h1") == "Rotate the signing keys"
    assert forge.login in text_of(browser, "header")
    assert browser.current_url == site.url + path
    press(browser, "header button")
    browser.get(site.url + path)
    assert "404" in text_of(browser, "main")


def test_a_token_is_made_seen_once_and_revoked(site: Api, forge: FakeOAuth, open_page: Opened) -> None:
    browser = open_page("/login?next=/settings")
    press(browser, "a.button.main")
    assert "You are ines of the forge home" in text_of(browser, "main")
    type_into(browser, "#name", "laptop")
    press(browser, "form[action='/settings/tokens'] button")
    token = text_of(browser, "#made")
    assert token.startswith("alb_")
    assert site.with_token(token).get(f"/api/v1/builds/{site.seeded.private}").status_code == 200
    assert texts_of(browser, "tbody th") == ["laptop"]
    browser.get(site.url + "/settings")
    assert token not in browser.page_source
    resize(browser, PHONE)
    until(browser, width, PHONE.width.__ge__)
    resize(browser, DESKTOP)
    assert unnamed(browser) == []
    press(browser, "tbody button")
    assert text_of(browser, ".empty") == "None yet."
    assert site.with_token(token).get("/api/v1/builds").status_code == 401
    assert console(browser) == []
