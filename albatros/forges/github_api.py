"""Where GitHub's REST API is, and how it is asked."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from albatros.forges.rest import RestClient
from albatros.settings import ForgeSettings


def api_client(settings: ForgeSettings) -> RestClient:
    """Calls the REST API with the configured token."""
    headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
    if token := settings.token.get_secret_value():
        headers["Authorization"] = f"Bearer {token}"
    return RestClient(settings.name, api_address(settings.url.rstrip("/")), headers)


def api_address(url: str) -> str:
    """Where the REST API of a GitHub is."""
    return "https://api.github.com" if urlsplit(url).hostname == "github.com" else f"{url}/api/v3"


def repo_path(owner: str, name: str) -> str:
    """Where a repo is below the API."""
    return f"/repos/{quote(owner, safe='')}/{quote(name, safe='')}"
