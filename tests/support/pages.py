"""What a person reads and does on a page that scripts may change meanwhile.

What was found on a page may be replaced a moment later, so a page is read by one command to the browser, never by
finding something and asking it afterwards; and what comes by itself is waited for.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

T = TypeVar("T")

PATIENCE_SECONDS = 60
POLL_SECONDS = 0.05

# Roles of what a person works with, which must say what it is.
CONTROLS = frozenset({"link", "button", "textbox", "searchbox", "combobox", "checkbox", "radio", "navigation"})
LANDMARKS = frozenset({"banner", "main", "contentinfo"})


def until(browser: Chrome, read: Callable[[Chrome], T], holds: Callable[[T], object]) -> T:
    """What was read when it held; what is not there yet, or was replaced while it was read, is read again.

    Raises AssertionError with what was read last.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        last: object
        try:
            found = last = read(browser)
            if holds(found):
                return found
        except WebDriverException as error:
            last = error
        assert time.monotonic() < deadline, f"after {PATIENCE_SECONDS} s the page still has: {last!r}"
        time.sleep(POLL_SECONDS)


def texts_of(browser: Chrome, css: str) -> list[str]:
    """The texts a person sees in all that match."""
    script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText.trim())"
    texts: list[str] = browser.execute_script(script, css)
    return texts


def text_of(browser: Chrome, css: str) -> str:
    """The text of the first that matches, empty when there is none."""
    return next(iter(texts_of(browser, css)), "")


def shows(browser: Chrome, css: str, text: str) -> None:
    """Wait until the first that matches has exactly this text."""
    until(browser, lambda page: text_of(page, css), text.__eq__)


def log_lines(browser: Chrome) -> list[str]:
    """The lines of the log, each after its number."""
    lines: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('.log > div')].map((row) => row.textContent)"
    )
    return lines


def do(browser: Chrome, css: str, act: Callable[[WebElement], None]) -> None:
    """Do this to the first that matches, as soon as it can be done."""

    def done(page: Chrome) -> bool:
        act(page.find_element(By.CSS_SELECTOR, css))
        return True

    until(browser, done, bool)


def type_into(browser: Chrome, css: str, *keys: str) -> None:
    do(browser, css, lambda field: field.send_keys(*keys))


def choose(browser: Chrome, css: str, value: str) -> None:
    do(browser, css, lambda field: Select(field).select_by_value(value))


def leave(browser: Chrome, act: Callable[[], None]) -> None:
    """Do what opens another page, and return when it has: a key press or click returns before that."""
    browser.execute_script("window.left = true")
    act()
    ready = "return !window.left && document.readyState === 'complete'"
    until(browser, lambda page: page.execute_script(ready), bool)


def press(browser: Chrome, css: str) -> None:
    """Click what opens another page, and return when it has."""
    leave(browser, lambda: do(browser, css, WebElement.click))


def width(browser: Chrome) -> int:
    """How wide the page is, in CSS pixels, with what would need scrolling."""
    pixels: int = browser.execute_script("return document.documentElement.scrollWidth")
    return pixels


def console(browser: Chrome) -> list[object]:
    """What the console said since it was last asked."""
    said: list[object] = browser.get_log("browser")  # type: ignore[no-untyped-call]  # selenium has no types for it
    return said


def roles(browser: Chrome) -> list[tuple[str, str]]:
    """What the page is to a screen reader: role and name of each part, in one answer of the browser."""
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    seen = [node for node in nodes if not node["ignored"] and "role" in node]
    return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in seen]


def unnamed(browser: Chrome) -> list[str]:
    """The controls that do not say what they are."""
    return [role for role, name in roles(browser) if role in CONTROLS and not name]


def landmarks(browser: Chrome) -> list[str]:
    return [role for role, _ in roles(browser) if role in LANDMARKS]
