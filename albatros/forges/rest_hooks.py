"""What webhooks have in common on every forge whose REST API manages them: they are found again by their address."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from albatros.errors import ForgeError
from albatros.forges.base import Hook, HookState
from albatros.forges.rest import RestClient

PAGE = 50
MAX_HOOKS = 500
Json = Mapping[str, object]


class RestHooks(ABC):
    """The webhooks of one forge; `page_size` is what its API calls the length of a page."""

    page_size = "per_page"

    def __init__(self, forge: str, api: RestClient) -> None:
        self._name = forge
        self._api = api

    def close(self) -> None:
        """Close the connections to the API."""
        self._api.close()

    def look(self, owner: str, name: str, url: str) -> Hook:
        found = self._pointing_here(owner, name, url)
        if not found:
            return Hook(HookState.MISSING, f"no webhook of {owner}/{name} points to {url}")
        differences = self._all_differences(found)
        if differences:
            return Hook(HookState.DIFFERS, f"the webhook {'; '.join(differences)}")
        return Hook(HookState.READY, f"the webhook points to {url}")

    def ensure(self, owner: str, name: str, url: str) -> Hook:
        old = self._pointing_here(owner, name, url)
        for one in self._set(owner, name, url, old):
            self._delete(owner, name, one)
        if not old:
            return Hook(HookState.READY, f"the webhook to {url} was created")
        differences = self._all_differences(old)
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
        found = self._pointing_here(owner, name, url)
        if not found:
            raise ForgeError(f"no webhook of {owner}/{name} points to {url}: run `albatros repo add` for it")
        return self._ring(self._path_of(owner, name, found[0]))

    @abstractmethod
    def _path(self, owner: str, name: str) -> str:
        """Where the webhooks of a repo are listed and made."""

    @abstractmethod
    def _url_of(self, hook: Json) -> object:
        """Where a webhook points to."""

    @abstractmethod
    def _differences(self, hook: Json) -> list[str]:
        """What keeps a webhook from being right, each to be read after `it`."""

    @abstractmethod
    def _set(self, owner: str, name: str, url: str, old: Sequence[Json]) -> Sequence[Json]:
        """Have one webhook that is right; those of the `old` ones that are to go."""

    @abstractmethod
    def _ring(self, path: str) -> bool:
        """Have the webhook at a path send a test; False where the repo has nothing to send."""

    def _pointing_here(self, owner: str, name: str, url: str) -> list[Json]:
        found: list[Json] = []
        for page in range(1, MAX_HOOKS // PAGE + 1):
            items = self._api.get(f"{self._path(owner, name)}?page={page}&{self.page_size}={PAGE}")
            if items is None:
                raise ForgeError(
                    f"{self._name} shows no webhooks of {owner}/{name}: the user of forges.token has to be "
                    "administrator of the repo"
                )
            if not isinstance(items, list):
                raise ForgeError(f"{self._name} lists the webhooks of {owner}/{name} as no list; check forges.url")
            found += [hook for hook in items if isinstance(hook, dict) and self._url_of(hook) == url]
            if len(items) < PAGE:
                return found
        raise ForgeError(f"{self._name}: {owner}/{name} has more than {MAX_HOOKS} webhooks; delete some")

    def _all_differences(self, hooks: Sequence[Json]) -> list[str]:
        found = self._differences(hooks[0])
        return [*found, f"is there {len(hooks)} times"] if len(hooks) > 1 else found

    def _delete(self, owner: str, name: str, hook: Json) -> None:
        self._api.delete(self._path_of(owner, name, hook))

    def _path_of(self, owner: str, name: str, hook: Json) -> str:
        found = hook.get("id")
        if not isinstance(found, int) or isinstance(found, bool):
            raise ForgeError(f"{self._name} describes a webhook without a number as its id; check forges.url")
        return f"{self._path(owner, name)}/{found}"


def missing_events(wanted: Sequence[str], listed: object) -> list[str]:
    """That a webhook which tells of `listed` leaves some out, if it does."""
    missing = [event for event in wanted if not isinstance(listed, list) or event not in listed]
    return [f"does not tell of {', '.join(missing)}"] if missing else []
