"""GitLab: webhooks, the API under /api/v4, commit statuses.

A merge request's head is `refs/merge-requests/N/head`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from urllib.parse import quote

from albatros.domain.inbound import Head, Inbound, Pull, RepoInfo
from albatros.domain.refs import BRANCH_PREFIX, TAG_PREFIX, pull_number
from albatros.domain.states import BuildState
from albatros.errors import BadInputError, ForgeError
from albatros.forges import gitlab_payload, payload, pulls
from albatros.forges.answers import commit_of, described, heads_of
from albatros.forges.base import CloneSource, CommitStatus, Permission
from albatros.forges.gitlab_clone import DeployTokens
from albatros.forges.gitlab_payload import project_path
from albatros.forges.gitlab_secret import GitlabSecret
from albatros.forges.rest import RestClient
from albatros.settings import ForgeSettings

PAGE = 100
MAX_PAGES = 200
MAX_LOGIN = 255
_REPORTER, _DEVELOPER, _MAINTAINER = 20, 30, 40
"""Access levels (REST API, "Members"); a guest of a private project does not see its code."""
_WORDS = {
    BuildState.WAITING_APPROVAL: "pending",
    BuildState.QUEUED: "pending",
    BuildState.EVALUATING: "running",
    BuildState.RUNNING: "running",
    BuildState.PUBLISHING: "running",
    BuildState.SUCCEEDED: "success",
    BuildState.FAILED: "failed",
    BuildState.ERRORED: "failed",
    BuildState.CANCELLED: "canceled",
    BuildState.SUPERSEDED: "canceled",
    # A pipeline that is `skipped` holds up a merge where the project does not count it as successful.
    BuildState.SKIPPED: "success",
}
_OPEN_WORDS = ("pending", "running")


class GitlabForge:
    """One GitLab."""

    reads_disk = False

    def __init__(self, settings: ForgeSettings) -> None:
        self.name = settings.name
        self._url = settings.url.rstrip("/")
        self._secret = GitlabSecret(settings.name, settings.webhook_secret.get_secret_value())
        self._clone_token = settings.cloning_token
        self._api = api_client(settings)
        # A submodule of the same GitLab is cloned with the same credential, and a deploy token reads one project.
        limited = settings.token.get_secret_value() and not settings.submodules
        self._deploy_tokens = DeployTokens(self.name, self._api) if limited else None

    def close(self) -> None:
        """Close the connections to the API."""
        self._api.close()

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        self._secret.check(headers, body)

    def parse(self, headers: Mapping[str, str], body: bytes) -> Inbound:
        event = payload.required_header(headers, "X-Gitlab-Event", payload.MAX_EVENT)
        return gitlab_payload.read(_delivery(headers, body), event, payload.read_object(body))

    def describe(self, owner: str, name: str) -> RepoInfo:
        found = self._api.get(project_path(owner, name))
        return described(self.name, f"{owner}/{name}", found, gitlab_payload.read_project)

    def repos(self) -> Iterable[RepoInfo]:
        return ()

    def heads(self, owner: str, name: str) -> Mapping[str, str]:
        path = project_path(owner, name) + "/repository"
        return heads_of(self._pages(f"{path}/branches?"), self._pages(f"{path}/tags?"))

    def head(self, owner: str, name: str, ref: str) -> Head | None:
        number = pull_number(ref)
        if number is not None:
            return pulls.head_of(self.pull(owner, name, number))
        kind = "tags" if ref.startswith(TAG_PREFIX) else "branches"
        short = quote(ref.removeprefix(TAG_PREFIX).removeprefix(BRANCH_PREFIX), safe="")
        found = self._api.get(f"{project_path(owner, name)}/repository/{kind}/{short}")
        commit = payload.child(payload.as_object(found), "commit")
        digest = commit_of(commit)
        if digest is None:
            return None
        return Head(digest, payload.text(commit, "author_name"), payload.text(commit, "title"), payload.asks(commit))

    def permission(self, owner: str, name: str, login: str, subject: str = "") -> Permission:
        if not login or len(login) > MAX_LOGIN:
            return Permission.NONE
        project = self._api.get(project_path(owner, name))
        if project is None:
            return Permission.NONE
        least = Permission.READ if payload.as_object(project).get("visibility") == "public" else Permission.NONE
        people = self._api.get(f"/users?username={quote(login, safe='')}")
        found = [payload.as_object(one) for one in people] if isinstance(people, list) else []
        ids = [one.get("id") for one in found if str(one.get("username")).casefold() == login.casefold()]
        if len(ids) != 1 or not isinstance(ids[0], int) or subject not in {"", str(ids[0])}:
            return Permission.NONE
        member = payload.as_object(self._api.get(f"{project_path(owner, name)}/members/all/{ids[0]}"))
        level = member.get("access_level")
        if not isinstance(level, int) or member.get("state") != "active":
            return least
        if level >= _MAINTAINER:
            return Permission.ADMIN
        return Permission.WRITE if level >= _DEVELOPER else Permission.READ if level >= _REPORTER else least

    def pull(self, owner: str, name: str, number: int) -> Pull | None:
        found = self._api.get(f"{project_path(owner, name)}/merge_requests/{number}")
        return self._read_merge_request(found) if found is not None else None

    def open_pulls(self, owner: str, name: str) -> Iterable[Pull]:
        for item in self._pages(f"{project_path(owner, name)}/merge_requests?state=opened&"):
            yield self._read_merge_request(item)

    def _read_merge_request(self, item: object) -> Pull:
        try:
            return gitlab_payload.read_merge_request(payload.as_object(item))
        except BadInputError as error:
            raise ForgeError(f"{self.name} describes a merge request in a way that cannot be read: {error}") from None

    def clone_source(self, owner: str, name: str, *, credential: bool = True) -> CloneSource:
        url = f"{self._url}/{quote(owner, safe='/')}/{quote(name, safe='')}.git"
        if not credential or not self._clone_token:
            return CloneSource(url)
        token = self._deploy_tokens.of(owner, name) if self._deploy_tokens is not None else None
        if token is not None:
            return CloneSource(url, token.username, token.password)
        return CloneSource(url, "oauth2", self._clone_token)

    def post_status(self, owner: str, name: str, status: CommitStatus) -> None:
        word = _WORDS[status.state]
        body = {
            "state": word,
            "name": status.context,
            "description": status.description,
            "target_url": status.target_url,
        }
        if status.ref:
            body["ref"] = status.ref.removeprefix(BRANCH_PREFIX).removeprefix(TAG_PREFIX)
        path = f"{project_path(owner, name)}/statuses/{quote(status.commit, safe='')}"
        try:
            self._api.post(path, body)
        except ForgeError as error:
            if "Cannot transition status" not in error.detail or not self._shows(owner, name, status, word):
                raise

    def _shows(self, owner: str, name: str, status: CommitStatus, word: str) -> bool:
        """Whether a commit shows a status already, which GitLab refuses to be told again.

        An open status is not moved back to another open one either; its end is still to come.
        """
        commit = quote(status.commit, safe="")
        path = f"{project_path(owner, name)}/repository/commits/{commit}/statuses"
        found = self._api.get(f"{path}?name={quote(status.context, safe='')}&order_by=id&sort=desc&per_page=1")
        newest = payload.as_object(found[0]) if isinstance(found, list) and found else {}
        shown = newest.get("status")
        return shown == word or (shown in _OPEN_WORDS and word in _OPEN_WORDS)

    def _pages(self, path: str) -> Iterable[Mapping[str, object]]:
        for page in range(1, MAX_PAGES + 1):
            items = self._api.get(f"{path}per_page={PAGE}&page={page}", (HTTPStatus.NOT_FOUND,))
            if not isinstance(items, list):
                return
            yield from (item for item in items if isinstance(item, dict))
            if len(items) < PAGE:
                return
        raise ForgeError(f"{self.name}: {path} has more than {MAX_PAGES} pages; delete some branches or tags")


def api_client(settings: ForgeSettings) -> RestClient:
    """Calls the REST API with the configured token."""
    token = settings.token.get_secret_value()
    headers = {"PRIVATE-TOKEN": token} if token else {}
    return RestClient(settings.name, f"{settings.url.rstrip('/')}/api/v4", headers)


def _delivery(headers: Mapping[str, str], body: bytes) -> str:
    """The id of a delivery; GitLab before 17.4 gives only one that recursive webhooks share."""
    for name in ("webhook-id", "Idempotency-Key"):
        if name.lower() in headers:
            return payload.required_header(headers, name, payload.MAX_ID)
    shared = payload.required_header(headers, "X-Gitlab-Event-UUID", 100)
    return f"{shared}:{hashlib.sha256(body).hexdigest()[:32]}"
