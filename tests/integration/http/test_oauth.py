"""Logging in with a forge, as a browser goes through it: out, and back with what belongs to this login alone."""

import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from albatros.db import people
from albatros.forges.base import Permission
from albatros.forges.gitea import GiteaForge
from albatros.forges.oauth import OAuthLogin
from albatros.http import sessions
from albatros.http.sessions import SessionSigner, signer
from albatros.settings import ForgeSettings, OperatorSettings
from tests.services.gitea_server import ADMIN, GiteaServer
from tests.support.api import Api
from tests.support.fake_oauth import CLIENT_ID, CLIENT_SECRET, FakeOAuth, fake_oauth
from tests.support.gitea_login import make_application, somebody

# Nothing here depends on the kind of database.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
HTML = {"Accept": "text/html"}
SESSION, BEGUN = "albatros_session", "albatros_login"


@pytest.fixture
def forge() -> Iterator[FakeOAuth]:
    with fake_oauth() as server:
        yield server


@pytest.fixture
def site(api: Api, forge: FakeOAuth) -> Iterator[Api]:
    """A server that people log in to with the forge `home`."""
    settings = ForgeSettings.model_validate(
        {
            "name": "home",
            "kind": "gitea",
            "url": forge.url,
            "webhook_secret": "not-a-secret",
            "oauth_client_id": CLIENT_ID,
            "oauth_client_secret": CLIENT_SECRET,
        }
    )
    api.people.ids[forge.login] = str(forge.subject)
    with closing(OAuthLogin(settings)) as login:
        object.__setattr__(api.context, "logins", {"home": login})
        yield api


@pytest.fixture
def browser(site: Api) -> Iterator[httpx.Client]:
    """Keeps cookies; it does not follow redirects by itself."""
    with httpx.Client(base_url=site.url, headers={**HTML, "Origin": site.url}, timeout=60) as client:
        yield client


def begin(browser: httpx.Client, target: str = "/repos?skip=0") -> str:
    answer = browser.get("/login/home", params={"next": target})
    assert answer.status_code == 303
    return answer.headers["location"]


def log_in(browser: httpx.Client, forge: FakeOAuth, target: str = "/repos?skip=0") -> httpx.Response:
    return browser.get(forge.approve(begin(browser, target)))


def refused(answer: httpx.Response, status: int, text: str) -> None:
    assert answer.status_code == status, answer.text
    assert text in answer.text
    assert SESSION not in answer.headers.get("set-cookie", "")


def test_a_person_logs_in_and_sees_what_the_forge_lets_them_see(
    site: Api, browser: httpx.Client, forge: FakeOAuth
) -> None:
    site.people.given["alba/keys", "ines"] = Permission.READ
    assert "Log in with home" in browser.get("/login?next=/repos").text
    answer = log_in(browser, forge)
    assert (answer.status_code, answer.headers["location"]) == (303, "/repos?skip=0")
    cookies = {cookie.partition("=")[0]: cookie for cookie in answer.headers.get_list("set-cookie")}
    assert "HttpOnly" in cookies[SESSION]
    assert "SameSite=lax" in cookies[SESSION]
    assert "Max-Age=0" in cookies[BEGUN]
    assert "ines" in browser.get("/").text
    assert browser.get(f"/builds/{site.seeded.private}").status_code == 200
    assert [call for call in forge.calls if "token" in call and "?" in call] == []
    token = next(iter(forge.tokens))
    assert token not in str(answer.headers) + str(dict(browser.cookies)) + browser.get("/").text


def test_the_way_back_comes_from_the_settings_and_not_from_the_host(browser: httpx.Client, site: Api) -> None:
    answer = browser.get("/login/home", headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"})
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    assert query["redirect_uri"] == [f"{site.url}/login/home/callback"]
    assert "evil" not in answer.headers["location"]


def test_each_login_has_a_state_a_nonce_and_a_challenge_of_its_own(browser: httpx.Client) -> None:
    queries = [parse_qs(urlsplit(begin(browser)).query) for _ in range(2)]
    for name in ("state", "nonce", "code_challenge"):
        assert queries[0][name] != queries[1][name]
    assert queries[0]["code_challenge_method"] == ["S256"]


def test_the_login_leads_nowhere_else(browser: httpx.Client, forge: FakeOAuth) -> None:
    for target in ("//evil.example", "https://evil.example", "/\\evil.example", "evil", "/a\nb", "/\t/evil.example"):
        answer = log_in(browser, forge, target)
        assert (answer.status_code, answer.headers["location"]) == (303, "/"), target


def test_a_forged_state_is_refused(browser: httpx.Client, forge: FakeOAuth) -> None:
    back = forge.approve(begin(browser))
    for state in ("", "x", "\u00e9", "a" * 4000):
        query = {"code": "a-code", "state": state}
        refused(browser.get(f"/login/home/callback?{urlencode(query)}"), 403, "begun in another browser")
        begin(browser)
    refused(browser.get(back), 403, "begun in another browser")


def test_a_login_that_another_browser_began_is_refused(browser: httpx.Client, forge: FakeOAuth, site: Api) -> None:
    back = forge.approve(begin(browser))
    with httpx.Client(base_url=site.url, headers=HTML, timeout=60) as other:
        refused(other.get(back), 403, "begun in another browser")
        begin(other)
        refused(other.get(back), 403, "begun in another browser")


def test_a_login_of_another_server_or_purpose_is_refused(browser: httpx.Client, forge: FakeOAuth, site: Api) -> None:
    keys = signer(site.context.settings.keys)
    text = "home:the-state:%2F"
    for cookie in (
        SessionSigner(b"x" * 32).seal("login", text, 60),
        keys.seal("session", text, 60),
        keys.seal("login", "work:the-state:%2F", 60),
    ):
        browser.cookies.set(BEGUN, cookie)
        refused(browser.get("/login/home/callback?code=c&state=the-state"), 403, "begun in another browser")
        browser.cookies.clear()


def test_a_login_that_took_too_long_is_refused(
    browser: httpx.Client, forge: FakeOAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = forge.approve(begin(browser))
    later = time.time() + 601
    monkeypatch.setattr(time, "time", lambda: later)
    refused(browser.get(back), 403, "took too long")


def test_a_code_is_good_once(browser: httpx.Client, forge: FakeOAuth) -> None:
    back = forge.approve(begin(browser))
    begun = browser.cookies[BEGUN]
    assert browser.get(back).status_code == 303
    refused(browser.get(back), 403, "begun in another browser")
    # Even with the cookie that the browser gave up.
    browser.cookies.set(BEGUN, begun)
    refused(browser.get(back), 401, "does not take this login")


@pytest.mark.parametrize(
    ("claims", "text"),
    [
        ({"iss": "https://evil.example"}, "evil.example"),
        ({"aud": "another-application"}, "somebody else&#39;s application"),
        ({"exp": 1}, "compare the clocks"),
        ({"exp": "soon"}, "compare the clocks"),
        ({"nonce": "another"}, "another login"),
        ({"nonce": "\ud800"}, "another login"),
        ({"nonce": None}, "another login"),
        ({"sub": "8"}, "two different people"),
        ({"iss": ["x"]}, "not from"),
    ],
)
def test_an_answer_that_is_not_for_this_login_is_refused(
    browser: httpx.Client, forge: FakeOAuth, claims: dict[str, object], text: str
) -> None:
    forge.claims = claims
    refused(log_in(browser, forge), 401, text)


def test_the_issuer_that_comes_back_is_the_forge(browser: httpx.Client, forge: FakeOAuth) -> None:
    back = forge.approve(begin(browser))
    refused(browser.get(f"{back}&iss=https%3A%2F%2Fevil.example"), 401, "evil.example")
    back = forge.approve(begin(browser))
    assert browser.get(f"{back}&{urlencode({'iss': forge.url})}").status_code == 303


@pytest.mark.parametrize(
    ("status", "body", "told", "text"),
    [
        (500, b"", 502, "try again in a minute"),
        (200, b"", 502, "without a bearer token"),
        (200, b"<html>", 502, "without a bearer token"),
        (200, b"[]", 502, "without a bearer token"),
        (200, b'{"access_token": "x", "token_type": "mac"}', 502, "without a bearer token"),
        (200, b'{"access_token": "x", "token_type": "bearer"}', 401, "not from"),
        (200, b'{"access_token": "x", "token_type": "bearer", "id_token": "a.b.c"}', 401, "not from"),
        (200, b'{"access_token": "x", "token_type": "bearer", "id_token": "a.!\xc3\xa9.c"}', 401, "not from"),
        (400, b'{"error": "invalid_grant"}', 401, "invalid_grant"),
        (200, b'{"error": "bad_verification_code"}', 401, "bad_verification_code"),
        (200, b"[" * 200_000, 502, "without a bearer token"),
    ],
)
def test_a_forge_that_answers_oddly_lets_nobody_in(
    browser: httpx.Client, forge: FakeOAuth, status: int, body: bytes, told: int, text: str
) -> None:
    forge.answer = (status, body)
    refused(log_in(browser, forge), told, text)


@pytest.mark.parametrize(
    "person", [{"sub": "7"}, {"sub": "7", "preferred_username": "../x"}, {"sub": "7", "preferred_username": "a" * 101}]
)
def test_a_name_that_is_none_is_refused(browser: httpx.Client, forge: FakeOAuth, person: dict[str, object]) -> None:
    forge.person = person
    refused(log_in(browser, forge), 502, "did not say who that is")


def test_a_person_who_says_no_is_told(browser: httpx.Client) -> None:
    state = parse_qs(urlsplit(begin(browser)).query)["state"][0]
    refused(browser.get(f"/login/home/callback?error=access_denied&state={state}"), 403, "access_denied")
    state = parse_qs(urlsplit(begin(browser)).query)["state"][0]
    answer = browser.get("/login/home/callback", params={"error": "<script>alert(1)</script>", "state": state})
    refused(answer, 403, "&lt;script&gt;")
    assert "<script>alert" not in answer.text


def test_there_is_no_login_with_a_forge_that_has_none(browser: httpx.Client) -> None:
    assert browser.get("/login/office").status_code == 404
    refused(browser.get("/login/office/callback?code=c&state=s"), 404, "Nobody can log in")


def test_a_logout_ends_the_session_in_every_browser(browser: httpx.Client, forge: FakeOAuth, site: Api) -> None:
    log_in(browser, forge)
    kept = browser.cookies[SESSION]
    page = browser.get("/").text
    token = page.partition('name="form_token" value="')[2].partition('"')[0]
    assert browser.post("/logout", data={"form_token": "0" * 64}).status_code == 403
    assert browser.get("/").status_code == 200
    assert browser.post("/logout", data={"form_token": token}).status_code == 303
    assert SESSION not in browser.cookies
    with httpx.Client(base_url=site.url, headers=HTML, cookies={SESSION: kept}, timeout=60) as other:
        assert other.get("/").status_code == 303


def test_a_session_is_over_when_its_name_is_anothers(browser: httpx.Client, forge: FakeOAuth, site: Api) -> None:
    log_in(browser, forge)
    assert browser.get("/").status_code == 200
    with site.context.database.write() as session:
        people.logged_in(session, "home", "another-id", "INES")
    assert browser.get("/").status_code == 303


def make_operators(site: Api, **operator: object) -> None:
    one = OperatorSettings.model_validate({"forge": "home", "login": "Ines", **operator})
    object.__setattr__(site.context, "settings", site.context.settings.model_copy(update={"operators": (one,)}))


def sees_everything(browser: httpx.Client, site: Api) -> bool:
    return browser.get(f"/builds/{site.seeded.private}").status_code == 200


def test_an_operator_is_who_first_logged_in_under_the_name(
    browser: httpx.Client, forge: FakeOAuth, site: Api, caplog: pytest.LogCaptureFixture
) -> None:
    make_operators(site)
    log_in(browser, forge)
    assert sees_everything(browser, site)
    forge.login, first = "ines-b", forge.subject
    log_in(browser, forge)
    assert not sees_everything(browser, site), "another name is not in the configuration"
    forge.login, forge.subject = "ines", first + 1
    log_in(browser, forge)
    assert "ines" in browser.get("/").text
    assert not sees_everything(browser, site)
    assert "an operator's name is somebody else's by now" in caplog.text
    forge.subject = first
    log_in(browser, forge)
    assert sees_everything(browser, site)


def test_an_operator_with_an_id_is_nobody_else(browser: httpx.Client, forge: FakeOAuth, site: Api) -> None:
    make_operators(site, id=forge.subject + 1)
    log_in(browser, forge)
    assert not sees_everything(browser, site)
    make_operators(site, id=forge.subject)
    assert sees_everything(browser, site)
    forge.login = "ines-b"
    log_in(browser, forge)
    assert sees_everything(browser, site), "the id decides, whatever the name"
    forge.login, forge.subject = "ines", forge.subject + 5
    log_in(browser, forge)
    assert not sees_everything(browser, site)


def test_an_expired_session_is_over(browser: httpx.Client, forge: FakeOAuth, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(browser, forge)
    later = time.time() + sessions.LIFETIME_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert browser.get("/").status_code == 303


def test_a_button_asks_what_the_forge_lets_its_person_do(browser: httpx.Client, forge: FakeOAuth, site: Api) -> None:
    log_in(browser, forge)
    path = f"/builds/{site.seeded.running}"
    site.people.given["alba/hello", "ines"] = Permission.READ
    page = browser.get(path).text
    assert ">Cancel<" not in page
    token = page.partition('name="form_token" value="')[2].partition('"')[0]
    assert browser.post(f"{path}/cancel", data={"form_token": token}).status_code == 403
    site.people.given["alba/hello", "ines"] = Permission.WRITE
    site.context.roles._answers.clear()
    assert ">Cancel<" in browser.get(path).text
    assert browser.post(f"{path}/cancel", data={"form_token": token}).status_code == 303


def test_over_https_cookies_are_for_this_host_alone(browser: httpx.Client, site: Api, forge: FakeOAuth) -> None:
    settings = site.context.settings
    server = settings.server.model_copy(update={"url": "https://ci.example.org"})
    object.__setattr__(site.context, "settings", settings.model_copy(update={"server": server}))
    cookie = browser.get("/login/home").headers["set-cookie"]
    assert cookie.startswith("__Host-albatros_login=")
    assert "Secure" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie


def test_a_person_of_a_real_gitea_sees_what_it_lets_them_see(api: Api, gitea: GiteaServer) -> None:
    name, password = f"ines-{secrets.token_hex(4)}", secrets.token_hex(12)
    account: dict[str, object] = {"username": name, "email": f"{name}@example.org", "password": password}
    gitea.api("POST", "/admin/users", {**account, "must_change_password": False})
    gitea.api("POST", "/user/repos", {"name": "keys", "private": True})
    made = make_application(gitea, f"{api.url}/login/home/callback")
    settings = ForgeSettings.model_validate(
        {
            "name": "home",
            "kind": "gitea",
            "url": gitea.url,
            "token": gitea.token,
            "webhook_secret": "not-a-secret",
            "oauth_client_id": made.client_id,
            "oauth_client_secret": made.client_secret,
        }
    )
    path = f"/builds/{api.seeded.private}"
    with (
        closing(OAuthLogin(settings)) as login,
        closing(GiteaForge(settings)) as asked,
        somebody(gitea, name, password) as person,
        httpx.Client(base_url=api.url, headers={**HTML, "Origin": api.url}, timeout=60) as browser,
    ):
        object.__setattr__(api.context, "logins", {"home": login})
        object.__setattr__(api.context, "permissions", {"home": asked})
        answer = browser.get(person.approve(begin(browser, path)))
        assert (answer.status_code, answer.headers["location"]) == (303, path)
        assert browser.get(path).status_code == 404
        gitea.api("PUT", f"/repos/{ADMIN}/keys/collaborators/{name}", {"permission": "write"})
        api.context.roles._answers.clear()
        page = browser.get(path)
        assert page.status_code == 200
        assert ">Run again<" in page.text
        gitea.api("DELETE", f"/repos/{ADMIN}/keys/collaborators/{name}")
        api.context.roles._answers.clear()
        assert browser.get(path).status_code == 404
