"""Webhooks of repos on Gitea and Forgejo, by their API (`/repos/{owner}/{repo}/hooks`).

A hook's secret can be neither read nor changed there (`editHook` in Gitea's routers/api/v1/utils/hook.go leaves it as
it is), so a hook is made right by a new one: it is made before the old one goes, and no push falls between the two.
"""

from __future__ import annotations

from collections.abc import Sequence

from albatros.forges import payload
from albatros.forges.gitea import repo_path
from albatros.forges.rest import RestClient
from albatros.forges.rest_hooks import Json, RestHooks, missing_events
from albatros.settings import ForgeSettings

EVENTS = ("push", "delete", "pull_request", "release")
"""`pull_request` stands for everything about one, its comments too; Gitea then lists them one by one."""
JSON = "json"


class GiteaHooks(RestHooks):
    """The webhooks of one Gitea or Forgejo server."""

    page_size = "limit"

    def __init__(self, settings: ForgeSettings) -> None:
        self._kind = settings.kind
        self._secret = settings.webhook_secret.get_secret_value()
        token = settings.token.get_secret_value()
        headers = {"Authorization": f"token {token}"} if token else {}
        super().__init__(settings.name, RestClient(settings.name, f"{settings.url.rstrip('/')}/api/v1", headers))

    def _path(self, owner: str, name: str) -> str:
        return f"{repo_path(owner, name)}/hooks"

    def _url_of(self, hook: Json) -> object:
        return payload.child(hook, "config").get("url")

    def _set(self, owner: str, name: str, url: str, old: Sequence[Json]) -> Sequence[Json]:
        secret = payload.secret_of_repo(self._secret, f"{owner}/{name}")
        config = {"url": url, "content_type": JSON, "secret": secret}
        hook = {"type": self._kind.value, "config": config, "events": list(EVENTS), "active": True}
        self._api.post(self._path(owner, name), hook)
        return old

    def _ring(self, path: str) -> bool:
        """Gitea sends a push of the default branch's head; from a repo without commits it sends nothing."""
        self._api.post(f"{path}/tests", {})
        return True

    def _differences(self, hook: Json) -> list[str]:
        found = [] if hook.get("active") is True else ["is not active"]
        if payload.child(hook, "config").get("content_type") != JSON:
            found.append("does not send application/json")
        found += missing_events(EVENTS, hook.get("events"))
        if hook.get("branch_filter") not in {None, "", "*"}:
            found.append("tells of some branches only")
        return found
