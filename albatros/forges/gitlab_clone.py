"""Credentials for clones of one project of GitLab each: short-lived deploy tokens (REST API, "Deploy tokens").

Such a token reads the repository of its project and nothing else. It is kept in memory alone and handed out for the
first half of its life. GitLab ends it by itself, and then still lists it: ours are deleted when the next one is made.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from albatros.errors import ForgeError, ForgeUnavailableError
from albatros.forges import payload
from albatros.forges.gitlab_payload import project_path
from albatros.forges.rest import RestClient
from albatros.log import get_logger

log = get_logger(__name__)
NAME = "albatros-clone"
LIFE = timedelta(hours=2)
MAX_KEPT = 1000
MAX_LISTED = 100
MAX_LENGTH = 255


@dataclass(frozen=True, slots=True)
class DeployToken:
    """What git logs in with."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Kept:
    token: DeployToken | None
    """None where GitLab refused to make one."""
    until: datetime


class DeployTokens:
    """The deploy tokens of one GitLab, for several threads."""

    def __init__(self, forge: str, api: RestClient) -> None:
        self._forge = forge
        self._api = api
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._making = tuple(threading.Lock() for _ in range(16))
        """One of them is held while a project's token is made, so that Jobs that start at once share it."""

    def of(self, owner: str, name: str) -> DeployToken | None:
        """A token that has an hour to live at least; None where GitLab makes none. Raises ForgeUnavailableError."""
        project = project_path(owner, name)
        with self._making[hash(project) % len(self._making)]:
            with self._lock:
                kept = self._kept.get(project)
            if kept is not None and kept.until > datetime.now(UTC):
                return kept.token
            token = self._make(project, f"{owner}/{name}", told=kept is not None and kept.token is None)
            with self._lock:
                self._kept[project] = _Kept(token, datetime.now(UTC) + LIFE / 2)
                self._kept.move_to_end(project)
                if len(self._kept) > MAX_KEPT:
                    self._kept.popitem(last=False)
            return token

    def _make(self, project: str, full_name: str, *, told: bool) -> DeployToken | None:
        expires = (datetime.now(UTC) + LIFE).isoformat(timespec="seconds")
        wanted = {"name": NAME, "scopes": ["read_repository"], "expires_at": expires}
        try:
            token = _read(self._forge, self._api.post(f"{project}/deploy_tokens", wanted))
        except ForgeUnavailableError:
            raise
        except ForgeError as error:
            if not told:
                log.warning(
                    "no deploy token for clones; runners get forges.clone_token, or forges.token without it",
                    forge=self._forge, repo=full_name, error=error.detail,
                )  # fmt: skip
            return None
        self._delete_ended(project, full_name)
        return token

    def _delete_ended(self, project: str, full_name: str) -> None:
        try:
            listed = self._api.get(f"{project}/deploy_tokens?per_page={MAX_LISTED}")
            found = [payload.as_object(one) for one in listed] if isinstance(listed, list) else []
            for number in [one.get("id") for one in found if _has_ended(one)]:
                self._api.delete(f"{project}/deploy_tokens/{number}")
        except ForgeError as error:
            log.warning("old deploy tokens stay listed", forge=self._forge, repo=full_name, error=error.detail)


def _read(forge: str, answer: object) -> DeployToken:
    """A token out of the answer. Raises ForgeError for anything that git's credential helpers would not pass on."""
    made = payload.as_object(answer)
    username, password = made.get("username"), made.get("token")
    for value in (username, password):
        if (
            not isinstance(value, str)
            or not 0 < len(value) <= MAX_LENGTH
            or not (value.isascii() and value.isprintable())
        ):
            raise ForgeError(f"{forge} answered with something that is no deploy token; check forges.url")
    return DeployToken(str(username), str(password))


def _has_ended(token: Mapping[str, object]) -> bool:
    """Whether a token is ours, and of no use any more."""
    expires = token.get("expires_at")
    if token.get("name") != NAME or not isinstance(token.get("id"), int) or not isinstance(expires, str):
        return False
    try:
        return datetime.fromisoformat(expires) < datetime.now(UTC)
    except (ValueError, TypeError):
        return False
