"""Webhooks of projects on GitLab, by its API (REST API, "Project webhooks").

A webhook that GitLab disabled after failures is not enabled by a change to it, and what else it may carry (headers, a
body of its own) has many places, so one that differs is followed by a new one, which is made before the old one goes.
"""

from __future__ import annotations

from collections.abc import Sequence

from albatros.errors import ForgeError, ForgeUnavailableError
from albatros.forges import payload
from albatros.forges.gitlab import api_client
from albatros.forges.gitlab_payload import project_path
from albatros.forges.gitlab_secret import GitlabSecret
from albatros.forges.rest_hooks import Json, RestHooks, missing_events
from albatros.settings import ForgeSettings

EVENTS = ("push_events", "tag_push_events", "merge_requests_events", "note_events")
ALL_BRANCHES = "all_branches"
_NO_COMMIT = "at least one commit"


class GitlabHooks(RestHooks):
    """The webhooks of one GitLab."""

    def __init__(self, settings: ForgeSettings) -> None:
        self._secret = GitlabSecret(settings.name, settings.webhook_secret.get_secret_value())
        super().__init__(settings.name, api_client(settings))

    def _path(self, owner: str, name: str) -> str:
        return f"{project_path(owner, name)}/hooks"

    def _url_of(self, hook: Json) -> object:
        return hook.get("url")

    def _set(self, owner: str, name: str, url: str, old: Sequence[Json]) -> Sequence[Json]:
        key, secret = "signing_token" if self._secret.signs else "token", self._secret.of_repo(f"{owner}/{name}")
        hook = {"url": url, key: secret, "enable_ssl_verification": True, **dict.fromkeys(EVENTS, True)}
        made = payload.as_object(self._api.post(self._path(owner, name), hook))
        if self._secret.signs and made.get("signing_token_present") is not True:
            self._delete(owner, name, made)
            raise ForgeError(
                f"{self._name} takes no signing token through its API, which needs a newer GitLab: set forges."
                "webhook_secret to one that does not begin with whsec_"
            )
        return old

    def _ring(self, path: str) -> bool:
        """GitLab sends a push of the default branch, and answers when it knows what that was answered."""
        try:
            self._api.post(f"{path}/test/push_events", {})
        except ForgeUnavailableError:
            raise
        except ForgeError as error:
            if _NO_COMMIT in error.detail:
                return False
            raise
        return True

    def _differences(self, hook: Json) -> list[str]:
        found = []
        if hook.get("alert_status") not in {None, "executable"}:
            found.append("was disabled by GitLab after failures")
        if hook.get("enable_ssl_verification") is False:
            found.append("does not check the server's certificate")
        if hook.get("custom_webhook_template"):
            found.append("sends a body of its own")
        # GitLab before 19 says of neither token whether it is there.
        if hook.get("signing_token_present" if self._secret.signs else "token_present") is False:
            found.append("has no secret")
        if hook.get("signing_token_present") is True and not self._secret.signs:
            found.append("is signed, and forges.webhook_secret is no signing token")
        found += missing_events(EVENTS, [event for event in EVENTS if hook.get(event) is True])
        if hook.get("push_events_branch_filter") and hook.get("branch_filter_strategy") != ALL_BRANCHES:
            found.append("tells of some branches only")
        return found
