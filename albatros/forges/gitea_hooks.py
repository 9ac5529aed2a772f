"""Webhooks of repos on Gitea and Forgejo, by their API (`/repos/{owner}/{repo}/hooks`).

A hook's secret can be neither read nor changed there (`editHook` in Gitea's routers/api/v1/utils/hook.go leaves it as
it is), so a hook is made right by a new one: it is made before the old one goes, and no push falls between the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from albatros.errors import ForgeError
from albatros.forges import payload
from albatros.forges.base import Hook, HookState
from albatros.forges.gitea import repo_path
from albatros.forges.rest import RestClient
from albatros.settings import ForgeSettings

EVENTS = ("push", "delete", "pull_request", "release")
"""`pull_request` stands for everything about one, its comments too; Gitea then lists them one by one."""
PAGE = 50
MAX_HOOKS = 500
JSON = "json"


class GiteaHooks:
    """The webhooks of one Gitea or Forgejo server."""

    def __init__(self, settings: ForgeSettings) -> None:
        self._name = settings.name
        self._kind = settings.kind
        self._secret = settings.webhook_secret.get_secret_value()
        token = settings.token.get_secret_value()
        headers = {"Authorization": f"token {token}"} if token else {}
        self._api = RestClient(self._name, f"{settings.url.rstrip('/')}/api/v1", headers)

    def close(self) -> None:
        """Close the connections to the API."""
        self._api.close()

    def look(self, owner: str, name: str, url: str) -> Hook:
        found = self._pointing_here(owner, name, url)
        if not found:
            return Hook(HookState.MISSING, f"no webhook of {owner}/{name} points to {url}")
        differences = _differences(found)
        if differences:
            return Hook(HookState.DIFFERS, f"the webhook {'; '.join(differences)}")
        return Hook(HookState.READY, f"the webhook points to {url}")

    def ensure(self, owner: str, name: str, url: str) -> Hook:
        old = self._pointing_here(owner, name, url)
        secret = payload.secret_of_repo(self._secret, f"{owner}/{name}")
        config = {"url": url, "content_type": JSON, "secret": secret}
        hook = {"type": self._kind.value, "config": config, "events": list(EVENTS), "active": True}
        self._api.post(self._path(owner, name), hook)
        for one in old:
            self._delete(owner, name, one)
        if not old:
            return Hook(HookState.READY, f"the webhook to {url} was created")
        differences = _differences(old)
        if differences:
            return Hook(HookState.READY, f"the webhook to {url} was repaired: it {'; it '.join(differences)}")
        return Hook(HookState.READY, f"the webhook to {url} was set again, with its secret")

    def remove(self, owner: str, name: str, url: str) -> Hook:
        found = self._pointing_here(owner, name, url)
        for one in found:
            self._delete(owner, name, one)
        text = f"the webhook to {url} was removed" if found else f"no webhook pointed to {url}"
        return Hook(HookState.MISSING, text)

    def ring(self, owner: str, name: str, url: str) -> bool:
        """Gitea sends a push of the default branch's head; from a repo without commits it sends nothing."""
        found = self._pointing_here(owner, name, url)
        if not found:
            raise ForgeError(f"no webhook of {owner}/{name} points to {url}: run `albatros repo add` for it")
        self._api.post(f"{self._path(owner, name)}/{_id(found[0])}/tests", {})
        return True

    def _pointing_here(self, owner: str, name: str, url: str) -> list[Mapping[str, object]]:
        found: list[Mapping[str, object]] = []
        for page in range(1, MAX_HOOKS // PAGE + 1):
            items = self._api.get(f"{self._path(owner, name)}?page={page}&limit={PAGE}")
            if items is None:
                raise ForgeError(
                    f"{self._name} shows no webhooks of {owner}/{name}: the user of forges.token has to be "
                    "administrator of the repo"
                )
            hooks = items if isinstance(items, list) else []
            found += [hook for hook in hooks if isinstance(hook, dict) and _url_of(hook) == url]
            if len(hooks) < PAGE:
                return found
        raise ForgeError(f"{self._name}: {owner}/{name} has more than {MAX_HOOKS} webhooks; delete some")

    def _delete(self, owner: str, name: str, hook: Mapping[str, object]) -> None:
        self._api.delete(f"{self._path(owner, name)}/{_id(hook)}")

    def _path(self, owner: str, name: str) -> str:
        return f"{repo_path(owner, name)}/hooks"


def _id(hook: Mapping[str, object]) -> int:
    found = hook.get("id")
    if not isinstance(found, int):
        raise ForgeError("a webhook in the forge's answer has no id; is forges.url a Gitea or Forgejo?")
    return found


def _url_of(hook: Mapping[str, object]) -> object:
    return payload.child(hook, "config").get("url")


def _differences(hooks: Sequence[Mapping[str, object]]) -> list[str]:
    """What keeps the first of them from being right, each to be read after `it`."""
    hook = hooks[0]
    found = []
    if hook.get("active") is not True:
        found.append("is not active")
    if payload.child(hook, "config").get("content_type") != JSON:
        found.append("does not send application/json")
    listed = hook.get("events")
    missing = [event for event in EVENTS if not isinstance(listed, list) or event not in listed]
    if missing:
        found.append(f"does not tell of {', '.join(missing)}")
    if hook.get("branch_filter") not in {None, "", "*"}:
        found.append("tells of some branches only")
    if len(hooks) > 1:
        found.append(f"is there {len(hooks)} times")
    return found
