"""Logging in with a forge and the page of tokens, in a real browser."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.wait import WebDriverWait

from albatros.forges.base import Permission
from albatros.forges.oauth import OAuthLogin
from albatros.settings import ForgeSettings
from tests.support.api import Api
from tests.support.chromium import DESKTOP, PHONE, resize
from tests.support.fake_oauth import CLIENT_ID, CLIENT_SECRET, FakeOAuth, fake_oauth
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


def text_of(browser: Chrome, css: str) -> str:
    return browser.find_element(By.CSS_SELECTOR, css).text


def press(browser: Chrome, css: str) -> None:
    """Click what opens another page, and return when it has."""
    page = browser.find_element(By.TAG_NAME, "html")
    browser.find_element(By.CSS_SELECTOR, css).click()
    WebDriverWait(browser, 10).until(staleness_of(page))


def console(browser: Chrome) -> list[object]:
    found: list[object] = browser.get_log("browser")  # type: ignore[no-untyped-call]  # selenium has no types for it
    return found


def test_the_button_leads_to_the_forge_and_back(site: Api, forge: FakeOAuth, open_page: Opened) -> None:
    path = f"/builds/{site.seeded.private}"
    browser = open_page(path)
    assert "404" in text_of(browser, "main")
    console(browser)
    browser = open_page(f"/login?next={path}")
    assert text_of(browser, "a.button.main") == "Log in with home"
    assert not browser.find_element(By.ID, "token").is_displayed()
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
    browser.find_element(By.ID, "name").send_keys("laptop")
    press(browser, "form[action='/settings/tokens'] button")
    token = text_of(browser, "#made")
    assert token.startswith("alb_")
    assert site.with_token(token).get(f"/api/v1/builds/{site.seeded.private}").status_code == 200
    assert [e.text for e in browser.find_elements(By.CSS_SELECTOR, "tbody th")] == ["laptop"]
    browser.get(site.url + "/settings")
    assert token not in browser.page_source
    resize(browser, PHONE)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE.width
    resize(browser, DESKTOP)
    for control in browser.find_elements(By.CSS_SELECTOR, "main :is(a, button, input:not([type=hidden]), select)"):
        assert control.accessible_name, control.get_attribute("outerHTML")
    press(browser, "tbody button")
    assert text_of(browser, ".empty") == "None yet."
    assert site.with_token(token).get("/api/v1/builds").status_code == 401
    assert console(browser) == []
