"""Webhooks of repos on GitHub, by its API (REST API, "Repository webhooks").

GitHub takes one webhook alone of an address and refuses another with 422, so one that differs is changed where it is,
its secret with it. A secret is never shown, only stars in its place.
"""

from __future__ import annotations

from collections.abc import Sequence

from albatros.errors import ForgeError, ForgeUnavailableError
from albatros.forges import payload
from albatros.forges.github_api import api_client, repo_path
from albatros.forges.rest_hooks import Json, RestHooks, missing_events
from albatros.settings import ForgeSettings

EVENTS = ("push", "pull_request", "issue_comment")
EVERYTHING = "*"
JSON = "json"
CHECKED = "0"


class GithubHooks(RestHooks):
    """The webhooks of github.com, or of one GitHub Enterprise Server."""

    def __init__(self, settings: ForgeSettings) -> None:
        self._secret = settings.webhook_secret.get_secret_value()
        super().__init__(settings.name, api_client(settings))

    def _path(self, owner: str, name: str) -> str:
        return f"{repo_path(owner, name)}/hooks"

    def _url_of(self, hook: Json) -> object:
        return payload.child(hook, "config").get("url")

    def _set(self, owner: str, name: str, url: str, old: Sequence[Json]) -> Sequence[Json]:
        secret = payload.secret_of_repo(self._secret, f"{owner}/{name}")
        config = {"url": url, "content_type": JSON, "insecure_ssl": CHECKED, "secret": secret}
        hook = {"config": config, "events": list(EVENTS), "active": True}
        if not old:
            try:
                self._api.post(self._path(owner, name), {"name": "web", **hook})
            except ForgeUnavailableError:
                raise
            except ForgeError:
                # Somebody else may have made it since it was looked for.
                old = self._pointing_here(owner, name, url)
                if not old:
                    raise
            else:
                return ()
        self._api.patch(self._path_of(owner, name, old[0]), hook)
        return old[1:]

    def _ring(self, path: str) -> bool:
        """GitHub sends a ping, whether or not the repo has commits."""
        self._api.post(f"{path}/pings", {})
        return True

    def _differences(self, hook: Json) -> list[str]:
        config = payload.child(hook, "config")
        found = [] if hook.get("active") is True else ["is not active"]
        if config.get("content_type") != JSON:
            found.append("does not send application/json")
        # Enterprise Server has answered with a number here.
        if str(config.get("insecure_ssl", CHECKED)) != CHECKED:
            found.append("does not check the server's certificate")
        if "secret" not in config:
            found.append("has no secret")
        return found if hook.get("events") == [EVERYTHING] else found + missing_events(EVENTS, hook.get("events"))
