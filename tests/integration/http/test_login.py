from collections.abc import Iterator

import httpx
import pytest

from albatros.db import tokens
from albatros.db.models import Build
from albatros.domain.access import Scope
from albatros.domain.states import BuildState
from tests.support.api import Api

COOKIE = "albatros_session"
HTML = {"Accept": "text/html"}
# Nothing here depends on the kind of database.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def browser(api: Api) -> Iterator[httpx.Client]:
    """Keeps cookies and sends Origin, as a browser does; it does not follow redirects by itself."""
    with httpx.Client(base_url=api.url, headers={**HTML, "Origin": api.url}, timeout=60) as client:
        yield client


def log_in(browser: httpx.Client, token: str, target: str = "/") -> httpx.Response:
    return browser.post("/login", data={"token": token, "next": target})


def form_token(page: str) -> str:
    return page.partition('name="form_token" value="')[2].partition('"')[0]


def state_of(api: Api, build: int) -> BuildState:
    with api.context.database.read() as session:
        return session.get_one(Build, build).state


def test_pages_lead_to_the_login(browser: httpx.Client) -> None:
    for path in ("/", "/repos", "/builds/1", "/jobs/1", "/repos/home/alba/hello"):
        answer = browser.get(path + "?x=1")
        assert answer.status_code == 303
        assert answer.headers["location"] == f"/login?next={path}%3Fx%3D1"


def test_a_good_token_opens_the_pages_and_leads_back(api: Api, browser: httpx.Client) -> None:
    answer = log_in(browser, api.tokens[Scope.READ], "/repos?skip=0")
    assert (answer.status_code, answer.headers["location"]) == (303, "/repos?skip=0")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Max-Age=43200" in cookie
    assert "Secure" not in cookie
    assert api.tokens[Scope.READ] not in cookie
    page = browser.get("/")
    assert page.status_code == 200
    assert "a-read-token" in page.text


def test_a_wrong_token_is_told(browser: httpx.Client) -> None:
    answer = log_in(browser, "alb_wrong")
    assert answer.status_code == 401
    assert "not known" in answer.text
    assert COOKIE not in browser.cookies


def test_the_login_leads_nowhere_else(api: Api, browser: httpx.Client) -> None:
    for target in ("//evil.example", "https://evil.example", "/\\evil.example", "evil", "/a\nb"):
        assert log_in(browser, api.tokens[Scope.READ], target).headers["location"] == "/"


def test_a_revoked_token_ends_its_session(api: Api, browser: httpx.Client) -> None:
    log_in(browser, api.tokens[Scope.READ])
    with api.context.database.write() as session:
        tokens.revoke(session, "a-read-token")
    assert browser.get("/").status_code == 303


def test_a_session_also_opens_the_live_streams_and_no_more(api: Api, browser: httpx.Client) -> None:
    log_in(browser, api.tokens[Scope.WRITE])
    assert browser.get("/api/v1/builds").status_code == 200
    build = api.seeded.running
    assert browser.post(f"/api/v1/builds/{build}/cancel").status_code == 401
    assert state_of(api, build) is BuildState.RUNNING


def test_a_form_of_another_site_is_refused(api: Api, browser: httpx.Client) -> None:
    log_in(browser, api.tokens[Scope.WRITE])
    data = {"form_token": form_token(browser.get("/").text), "token": "x"}
    for origin in ("https://evil.example", "null", ""):
        for path in ("/login", "/logout", f"/builds/{api.seeded.running}/cancel"):
            answer = browser.post(path, data=data, headers={"Origin": origin})
            assert answer.status_code == 403, (origin, path)
    assert state_of(api, api.seeded.running) is BuildState.RUNNING


def test_the_buttons_cancel_and_run_again(api: Api, browser: httpx.Client) -> None:
    log_in(browser, api.tokens[Scope.WRITE])
    path = f"/builds/{api.seeded.running}"
    page = browser.get(path).text
    assert ">Cancel<" in page
    answer = browser.post(f"{path}/cancel", data={"form_token": form_token(page)})
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    assert state_of(api, api.seeded.running) is BuildState.CANCELLED
    page = browser.get(path).text
    assert "a-write-token" in page
    assert ">Run again<" in page
    again = browser.post(f"{path}/rerun", data={"form_token": form_token(page)})
    assert again.status_code == 303
    assert state_of(api, int(again.headers["location"].rpartition("/")[2])) is BuildState.QUEUED


def test_a_form_needs_the_token_of_its_session(api: Api, browser: httpx.Client) -> None:
    log_in(browser, api.tokens[Scope.WRITE])
    for given in ({}, {"form_token": "0" * 64}):
        assert browser.post(f"/builds/{api.seeded.running}/cancel", data={"x": "", **given}).status_code == 403
    assert state_of(api, api.seeded.running) is BuildState.RUNNING


def test_who_may_only_read_has_no_buttons(api: Api, browser: httpx.Client) -> None:
    log_in(browser, api.tokens[Scope.READ])
    path = f"/builds/{api.seeded.running}"
    page = browser.get(path).text
    assert ">Cancel<" not in page
    answer = browser.post(f"{path}/cancel", data={"form_token": form_token(page)})
    assert answer.status_code == 403
    assert "may see" in answer.text


def test_a_bearer_token_reads_pages_but_presses_no_buttons(api: Api) -> None:
    assert api.writer.get("/", headers=HTML).status_code == 200
    path = f"/builds/{api.seeded.running}/cancel"
    answer = api.writer.post(path, data={"form_token": ""}, headers={"Origin": api.url})
    assert answer.status_code == 401
    assert state_of(api, api.seeded.running) is BuildState.RUNNING


def test_the_logout_takes_the_cookie_back(api: Api, browser: httpx.Client) -> None:
    log_in(browser, api.tokens[Scope.READ])
    token = form_token(browser.get("/").text)
    assert browser.post("/logout", data={"form_token": token}).status_code == 303
    assert COOKIE not in browser.cookies
    assert browser.get("/").status_code == 303


def test_a_form_that_is_none_is_refused(browser: httpx.Client) -> None:
    form = "application/x-www-form-urlencoded"
    for content, kind, status in (
        (b"token=" + b"x" * 5000, form, 413),
        (b"{}", "application/json", 400),
        (b"\xff\xfe", form, 400),
        (b"&".join(b"a%d=1" % number for number in range(50)), form, 400),
    ):
        answer = browser.post("/login", content=content, headers={"Content-Type": kind})
        assert answer.status_code == status
        assert "<h1>" in answer.text
