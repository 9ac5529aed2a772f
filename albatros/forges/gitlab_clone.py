"""Credentials for clones of one project of GitLab each: deploy tokens (REST API, "Deploy tokens").

Such a token reads the repository of its project and nothing else. GitLab ends it by itself, and then still lists it:
ours are deleted when the next one is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from albatros.errors import ForgeError
from albatros.forges import payload
from albatros.forges.clone_tokens import CloneToken, CloneTokens
from albatros.forges.gitlab_payload import project_path
from albatros.forges.rest import RestClient
from albatros.log import get_logger

log = get_logger(__name__)
NAME = "albatros-clone"
LIFE = timedelta(hours=2)
MAX_LISTED = 100


class DeployTokens(CloneTokens):
    """The deploy tokens of one GitLab."""

    use = LIFE / 2

    def __init__(self, forge: str, api: RestClient) -> None:
        super().__init__(forge)
        self._api = api

    def _make(self, owner: str, name: str) -> CloneToken:
        project = project_path(owner, name)
        expires = (datetime.now(UTC) + LIFE).isoformat(timespec="seconds")
        wanted = {"name": NAME, "scopes": ["read_repository"], "expires_at": expires}
        token = self._read(self._api.post(f"{project}/deploy_tokens", wanted))
        try:
            self._delete_ended(project)
        except ForgeError as error:
            log.warning("old deploy tokens stay listed", forge=self._forge, repo=f"{owner}/{name}", error=error.detail)
        return token

    def _delete_ended(self, project: str) -> None:
        listed = self._api.get(f"{project}/deploy_tokens?per_page={MAX_LISTED}")
        found = [payload.as_object(one) for one in listed] if isinstance(listed, list) else []
        for number in [one.get("id") for one in found if _has_ended(one)]:
            self._api.delete(f"{project}/deploy_tokens/{number}")


def _has_ended(token: Mapping[str, object]) -> bool:
    """Whether a token is ours, and of no use any more."""
    expires = token.get("expires_at")
    if token.get("name") != NAME or not isinstance(token.get("id"), int) or not isinstance(expires, str):
        return False
    try:
        return datetime.fromisoformat(expires) < datetime.now(UTC)
    except (ValueError, TypeError):
        return False
