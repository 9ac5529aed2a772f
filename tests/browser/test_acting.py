"""What people change on the pages: a stranger's build is approved, and a repo joins."""

from collections.abc import Callable, Iterator

import pytest
from selenium.webdriver import Chrome

from albatros.db.models import Build
from albatros.db.signals import Topic
from albatros.domain.states import BuildState
from albatros.flows import progress
from albatros.forges.base import Permission
from tests.support.api import Api
from tests.support.forges import MemoryForge
from tests.support.pages import console, press, shows, text_of, texts_of, type_into, unnamed, until
from tests.support.people import cookie_of
from tests.support.waiting import HEAD, waiting_build
from tests.tools import needs

pytestmark = needs("chromium")
APPROVE = "form[action$='/approve'] button"
LogIn = Callable[[str], Chrome]


@pytest.fixture
def log_in(site: Api, browser: Chrome) -> LogIn:
    """The browser, in which somebody of the forge has logged in."""

    def logged_in(login: str) -> Chrome:
        browser.get(f"{site.url}/login")
        browser.delete_all_cookies()
        for name, value in cookie_of(site.context, login).items():
            browser.add_cookie({"name": name, "value": value, "path": "/", "httpOnly": True})
        return browser

    return logged_in


@pytest.fixture
def forge(site: Api) -> Iterator[MemoryForge]:
    """What the server takes for the forge `home`."""
    memory = MemoryForge()
    memory.add("alba/hello", main=HEAD)
    memory.add("alba/new")
    site.forges["home"] = memory
    yield memory
    del site.forges["home"]
    site.people.given.clear()
    site.hooks.hooks.clear()


def test_who_may_write_approves_and_sees_it_run(site: Api, forge: MemoryForge, log_in: LogIn) -> None:
    site.people.given["alba/hello", "ada"] = Permission.WRITE
    build = waiting_build(site, forge)
    browser = log_in("ada")
    browser.get(f"{site.url}/builds/{build}")
    shows(browser, ".reason .state", "waiting approval")
    assert text_of(browser, APPROVE) == f"Approve {HEAD[:10]}"
    assert unnamed(browser) == []
    press(browser, APPROVE)
    assert browser.current_url == f"{site.url}/builds/{build}"
    shows(browser, ".reason .state", "queued")
    assert "approved by ada" in text_of(browser, ".facts")
    assert texts_of(browser, APPROVE) == []
    with site.context.database.write() as session:
        progress.move_build(session, session.get_one(Build, build), BuildState.EVALUATING)
    site.context.signals.notify(Topic.WATCHERS)
    shows(browser, ".reason .state", "evaluating")
    assert console(browser) == []


def test_who_may_only_read_has_no_button(site: Api, forge: MemoryForge, log_in: LogIn) -> None:
    site.people.given["alba/hello", "rae"] = Permission.READ
    build = waiting_build(site, forge)
    browser = log_in("rae")
    browser.get(f"{site.url}/builds/{build}")
    shows(browser, ".reason .state", "waiting approval")
    assert texts_of(browser, "main form") == []


def test_an_approval_of_another_head_is_refused(site: Api, forge: MemoryForge, log_in: LogIn) -> None:
    site.people.given["alba/hello", "ada"] = Permission.WRITE
    build = waiting_build(site, forge)
    browser = log_in("ada")
    browser.get(f"{site.url}/builds/{build}")
    del forge.pulls[7]
    press(browser, APPROVE)
    until(browser, lambda page: text_of(page, "main"), lambda text: "pull request 7 is not open" in text.lower())
    browser.get(f"{site.url}/builds/{build}")
    shows(browser, ".reason .state", "waiting approval")


def test_a_click_makes_the_webhook_and_another_removes_it(site: Api, forge: MemoryForge, log_in: LogIn) -> None:
    site.people.given["alba/new", "ada"] = Permission.ADMIN
    browser = log_in("ada")
    browser.get(f"{site.url}/join")
    assert unnamed(browser) == []
    type_into(browser, "#repo", "https://git.example.org/alba/new")
    press(browser, "button[value=add]")
    shows(browser, ".reason .state", "webhook ready")
    assert site.hooks.hooks == {"alba/new": {f"{site.url}/webhooks/home": True}}
    assert texts_of(browser, "main a[href='/repos/home/alba/new']") == ["Builds of home/alba/new"]
    press(browser, "button[value=remove]")
    shows(browser, ".reason .state", "webhook missing")
    assert site.hooks.hooks == {"alba/new": {}}
    assert console(browser) == []


def test_who_is_not_its_admin_is_told_so(site: Api, forge: MemoryForge, log_in: LogIn) -> None:
    site.people.given["alba/new", "rae"] = Permission.WRITE
    browser = log_in("rae")
    browser.get(f"{site.url}/join")
    type_into(browser, "#repo", "home/alba/new")
    press(browser, "button[value=add]")
    shows(browser, ".reason .state", "refused")
    assert site.hooks.hooks == {}
