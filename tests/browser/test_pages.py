"""The pages in a real browser: readable, quiet on the console, usable by keyboard, in light and dark, on a phone."""

from collections.abc import Callable, Iterator

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By

from albatros.db import tokens
from albatros.domain.access import Scope, new_token
from tests.support.api import Api
from tests.support.chromium import DESKTOP, PHONE, prefer, resize
from tests.support.pages import (
    choose,
    console,
    landmarks,
    leave,
    press,
    text_of,
    texts_of,
    type_into,
    unnamed,
    until,
    width,
)
from tests.tools import needs

pytestmark = needs("chromium")
Opened = Callable[[str], Chrome]

# The contrast of every text with what lies behind it (WCAG 2.1, 1.4.3), least first.
CONTRASTS = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgba = (color) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const light = (color) => {
  const [r, g, b] = color.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const color = rgba(getComputedStyle(e).backgroundColor);
    if (color[3] === 255) return color;
  }
  return [255, 255, 255, 255];
};
const found = [];
for (const e of document.querySelectorAll("body *")) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  if (!own || e.closest(".skip, .unseen, noscript, option")) continue;
  const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
  found.push([(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 40)]);
}
return found.sort((x, y) => x[0] - y[0]);
"""


def paths(site: Api) -> list[str]:
    seeded = site.seeded
    return [
        "/",
        f"/builds/{seeded.published}",
        f"/builds/{seeded.failed}",
        f"/jobs/{seeded.failed_job}",
        "/repos",
        "/repos/home/alba/hello",
        "/login",
    ]


def test_the_newest_builds_come_first_with_their_states_in_words(open_page: Opened) -> None:
    browser = open_page("/")
    assert texts_of(browser, ".builds .title")[:3] == [
        "Keep notes for a fortnight",
        "Greet in the reader's own language",
        "Release 1.4.0",
    ]
    assert {"queued", "running", "publishing", "succeeded", "failed", "errored", "cancelled", "superseded"} <= set(
        texts_of(browser, ".builds .state")
    )


def test_builds_are_filtered_by_a_form(open_page: Opened) -> None:
    browser = open_page("/")
    type_into(browser, "[name=repo]", "alba/hello")
    choose(browser, "[name=state]", "failed")
    press(browser, ".filter button")
    assert texts_of(browser, ".builds .title") == ["Tidy the flake"]
    assert browser.execute_script("return document.querySelector('[name=repo]').value") == "alba/hello"


def test_a_build_shows_its_way_its_image_and_where_it_is_published(site: Api, open_page: Opened) -> None:
    browser = open_page(f"/builds/{site.seeded.published}")
    assert text_of(browser, "h1") == "Say hello on four platforms"
    assert "succeeded" in text_of(browser, ".reason")
    assert [text.split("\n")[0] for text in texts_of(browser, ".way li")] == [
        "Received",
        "Evaluation",
        "Jobs",
        "Images",
        "Registries",
        "Commit status",
    ]
    digest = text_of(browser, ".digest")
    assert digest.startswith("sha256:")
    assert text_of(browser, ".command").endswith(f"docker pull hub.example.org/alba/hello@{digest}")
    rows = texts_of(browser, "tbody tr")
    assert len(rows) == 4
    assert all("published" in row for row in rows)
    assert len([text for text in texts_of(browser, ".card .tag") if text.startswith("linux/")]) == 4


def test_a_failed_build_shows_why(site: Api, open_page: Opened) -> None:
    browser = open_page(f"/builds/{site.seeded.failed}")
    assert "packages.armv6l-linux.driftnote failed" in text_of(browser, ".reason")
    assert "store/tides.go:41:19" in text_of(browser, ".jobs .tail pre")


def test_nothing_is_said_on_the_console(site: Api, browser: Chrome) -> None:
    for path in paths(site):
        browser.get(site.url + path)
        assert console(browser) == [], path


def test_every_page_has_landmarks_names_and_one_heading(site: Api, browser: Chrome) -> None:
    for path in paths(site):
        browser.get(site.url + path)
        assert len(texts_of(browser, "h1")) == 1, path
        assert len(texts_of(browser, "html[lang=en]")) == 1, path
        assert landmarks(browser) == ["banner", "main", "contentinfo"], path
        assert unnamed(browser) == [], path
        assert texts_of(browser, "img:not([alt])") == [], path


def test_the_keyboard_reaches_the_content_first(open_page: Opened) -> None:
    browser = open_page("/")
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    skip = browser.switch_to.active_element
    assert skip.text == "Skip to the content"
    assert skip.is_displayed()
    skip.send_keys(Keys.ENTER)
    until(browser, lambda page: page.switch_to.active_element.tag_name, "main".__eq__)


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest, browser: Chrome) -> Iterator[str]:
    prefer(browser, request.param)
    yield request.param
    prefer(browser, "light")


def test_text_stands_out_in_light_and_dark(site: Api, browser: Chrome, scheme: str) -> None:
    for path in paths(site):
        browser.get(site.url + path)
        (least, text), *_ = browser.execute_script(CONTRASTS)
        assert least >= 4.5, (scheme, path, text)


def test_dark_is_dark(open_page: Opened, browser: Chrome, scheme: str) -> None:
    open_page("/")
    color = browser.find_element(By.TAG_NAME, "html").value_of_css_property("background-color")
    red = int(color.partition("(")[2].split(",")[0])
    assert (red < 64) == (scheme == "dark")


def test_a_phone_needs_no_sideways_scrolling(site: Api, browser: Chrome) -> None:
    resize(browser, PHONE)
    try:
        for path in paths(site):
            browser.get(site.url + path)
            until(browser, width, PHONE.width.__ge__)
    finally:
        resize(browser, DESKTOP)


def test_a_token_opens_what_is_private_until_the_logout(site: Api, open_page: Opened) -> None:
    token = new_token()
    with site.context.database.write() as session:
        tokens.create(session, "ines", token, Scope.READ, None)
    path = f"/builds/{site.seeded.private}"
    browser = open_page(path)
    assert "404" in text_of(browser, "main")
    open_page("/login?next=" + path)
    leave(browser, lambda: type_into(browser, "#token", token, Keys.ENTER))
    assert text_of(browser, "h1") == "Rotate the signing keys"
    assert "ines" in text_of(browser, "header")
    press(browser, "header button")
    assert "Rotate the signing keys" not in texts_of(browser, ".builds .title")
    assert text_of(browser, "header").endswith("Log in")
