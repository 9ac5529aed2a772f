"""A seeded site for each module, and one real Chromium for all; each test opens pages of its own."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from tests.support.api import Api
from tests.support.chromium import chromium
from tests.support.pages import console
from tests.support.site import seeded_site
from tests.tools import require


@pytest.fixture(scope="module")
def site() -> Iterator[Api]:
    require("chromium")
    with tempfile.TemporaryDirectory() as data, seeded_site(Path(data)) as running:
        yield running


@pytest.fixture(scope="session")
def shared_browser() -> Iterator[Chrome]:
    require("chromium")
    with chromium() as driver:
        yield driver


@pytest.fixture
def browser(shared_browser: Chrome) -> Iterator[Chrome]:
    """A desktop window without cookies; what the console said must be nothing."""
    shared_browser.execute_cdp_cmd("Network.clearBrowserCookies", {})
    console(shared_browser)
    yield shared_browser
    shared_browser.get("about:blank")


@pytest.fixture
def without_javascript() -> Iterator[Chrome]:
    require("chromium")
    with chromium(javascript=False) as driver:
        yield driver


@pytest.fixture
def open_page(site: Api, browser: Chrome) -> Callable[[str], Chrome]:
    def opened(path: str) -> Chrome:
        browser.get(site.url + path)
        return browser

    return opened
