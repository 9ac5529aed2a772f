"""Somebody at a real Gitea, in a browser without scripts: they log in there, and say yes to an application."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.services.gitea_server import GiteaServer


@dataclass(frozen=True)
class Application:
    """An OAuth2 application of Gitea."""

    client_id: str
    client_secret: str


def make_application(gitea: GiteaServer, redirect_uri: str) -> Application:
    """Register a confidential application."""
    body: dict[str, object] = {
        "name": secrets.token_hex(4),
        "redirect_uris": [redirect_uri],
        "confidential_client": True,
    }
    made = gitea.api("POST", "/user/applications/oauth2", body)
    assert isinstance(made, dict)
    return Application(made["client_id"], made["client_secret"])


@dataclass(frozen=True)
class Somebody:
    """A browser that is logged in at Gitea."""

    browser: httpx.Client

    def approve(self, address: str) -> str:
        """Say yes; the address that Gitea sends the browser back to."""
        asked = {key: values[0] for key, values in parse_qs(urlsplit(address).query).items()}
        answer = self.browser.get(address)
        if answer.status_code == httpx.codes.OK:
            fields = ("client_id", "state", "scope", "nonce", "redirect_uri")
            form = {key: asked[key] for key in fields} | {"granted": "true"}
            answer = self.browser.post("/login/oauth/grant", data=form)
        return str(answer.headers["location"])


@contextmanager
def somebody(gitea: GiteaServer, login: str, password: str) -> Iterator[Somebody]:
    """Log in at Gitea."""
    with httpx.Client(base_url=gitea.url, timeout=60) as browser:
        browser.post("/user/login", data={"user_name": login, "password": password})
        yield Somebody(browser)
