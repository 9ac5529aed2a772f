"""Debian's Chromium under its own driver, headless, with an empty profile and nothing that talks to the outside."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from selenium import webdriver

from tests.tools import find

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


@dataclass(frozen=True)
class Screen:
    """A window, in CSS pixels."""

    width: int = 1280
    height: int = 800
    phone: bool = False


DESKTOP = Screen()
PHONE = Screen(390, 844, phone=True)


@contextmanager
def chromium(*, javascript: bool = True) -> Iterator[webdriver.Chrome]:
    """A browser that ends with the block; what its console says is kept for `get_log("browser")`."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = find("chromium")
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        if not javascript:
            options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(find("chromedriver")))
        try:
            resize(driver, DESKTOP)
            yield driver
        finally:
            driver.quit()


def resize(driver: webdriver.Chrome, screen: Screen) -> None:
    """Give the page this much room; a phone also answers to `mobile` viewports."""
    metrics = {"width": screen.width, "height": screen.height, "deviceScaleFactor": 1, "mobile": screen.phone}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def prefer(driver: webdriver.Chrome, scheme: str) -> None:
    """Prefer `light` or `dark`, as a person's system does."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
