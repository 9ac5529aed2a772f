"""Gitea and Forgejo: webhooks, the API under /api/v1, commit statuses.

Each signs under its own header, and only the configured kind's counts: both also send headers of Gogs and GitHub.
Addresses come from the settings and the repo's name; redirects are not followed, so the token goes nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import quote

from albatros.domain.inbound import Head, HeadMoved, Inbound, Pull, PullAction, RepoInfo
from albatros.domain.refs import BRANCH_PREFIX, TAG_PREFIX, one_line, pull_number
from albatros.errors import ForgeError
from albatros.forges import payload, pulls
from albatros.forges.answers import commit_of, described, heads_of
from albatros.forges.base import CloneSource, CommitStatus, Permission, status_word
from albatros.forges.rest import RestClient
from albatros.settings import ForgeKind, ForgeSettings

PAGE = 50
MAX_PAGES = 200
_NOT_BUILT = {
    "create": "a new branch or tag is built by the push that comes with it",
    "release": "a release builds nothing; its tag is built by the push that comes with it",
}
_ACTIONS = {
    "opened": PullAction.OPENED,
    "synchronized": PullAction.NEW_HEAD,
    "reopened": PullAction.REOPENED,
    "closed": PullAction.CLOSED,
    "label_updated": PullAction.LABELLED,
    "label_cleared": PullAction.LABELLED,
}
_PERMISSIONS = {
    "owner": Permission.ADMIN,
    "admin": Permission.ADMIN,
    "write": Permission.WRITE,
    "read": Permission.READ,
}


class GiteaForge:
    """One Gitea or Forgejo server."""

    reads_disk = False

    def __init__(self, settings: ForgeSettings) -> None:
        self.name = settings.name
        self._url = settings.url.rstrip("/")
        self._secret = settings.webhook_secret.get_secret_value()
        self._token = settings.token.get_secret_value()
        self._clone_token = settings.cloning_token
        self._prefix = "X-Forgejo" if settings.kind is ForgeKind.FORGEJO else "X-Gitea"
        headers = {"Authorization": f"token {self._token}"} if self._token else {}
        self._api = RestClient(self.name, f"{self._url}/api/v1", headers)

    def close(self) -> None:
        """Close the connections to the API."""
        self._api.close()

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        name = f"{self._prefix}-Signature"
        payload.check_repo_signature(self._secret, headers.get(name.lower(), ""), body, name)

    def parse(self, headers: Mapping[str, str], body: bytes) -> Inbound:
        delivery = payload.required_header(headers, f"{self._prefix}-Delivery", payload.MAX_ID)
        event = payload.required_header(headers, f"{self._prefix}-Event", payload.MAX_EVENT)
        data = payload.read_object(body)
        if event in {"pull_request", "issue_comment"}:
            return _read_pull_event(delivery, event, data)
        if event not in {"push", "delete"}:
            repo = payload.read_repo(payload.child(data, "repository")) if "repository" in data else None
            return Inbound(delivery, event, repo, ignored=_NOT_BUILT.get(event, f"a {event} event builds nothing"))
        repo = payload.read_repo(payload.child(data, "repository"))
        ref = payload.required_text(data, "ref")
        if event == "delete":
            return Inbound(delivery, event, repo, (_read_delete(data, ref),))
        if not ref.startswith((BRANCH_PREFIX, TAG_PREFIX)):
            return Inbound(delivery, event, repo, ignored=f"{one_line(ref, 80)} is neither a branch nor a tag")
        return Inbound(delivery, event, repo, (payload.read_push(data, ref, "login"),))

    def describe(self, owner: str, name: str) -> RepoInfo:
        return described(self.name, f"{owner}/{name}", self._api.get(repo_path(owner, name)))

    def repos(self) -> Iterable[RepoInfo]:
        return ()

    def heads(self, owner: str, name: str) -> Mapping[str, str]:
        path = repo_path(owner, name)
        return heads_of(self._pages(f"{path}/branches"), self._pages(f"{path}/tags"))

    def head(self, owner: str, name: str, ref: str) -> Head | None:
        number = pull_number(ref)
        if number is not None:
            return pulls.head_of(self.pull(owner, name, number))
        kind = "tags" if ref.startswith(TAG_PREFIX) else "branches"
        short = ref.removeprefix(TAG_PREFIX).removeprefix(BRANCH_PREFIX)
        found = self._api.get(f"{repo_path(owner, name)}/{kind}/{quote(short, safe='/')}")
        return _read_head(payload.as_object(found))

    def permission(self, owner: str, name: str, login: str, subject: str = "") -> Permission:
        found = self._api.get(f"{repo_path(owner, name)}/collaborators/{quote(login, safe='')}/permission")
        answer = payload.as_object(found)
        if subject and str(payload.child(answer, "user").get("id")) != subject:
            return Permission.NONE
        return _PERMISSIONS.get(str(answer.get("permission")), Permission.NONE)

    def pull(self, owner: str, name: str, number: int) -> Pull | None:
        found = self._api.get(f"{repo_path(owner, name)}/pulls/{number}")
        return pulls.answered(self.name, found) if found is not None else None

    def open_pulls(self, owner: str, name: str) -> Iterable[Pull]:
        for item in self._pages(f"{repo_path(owner, name)}/pulls?state=open"):
            yield pulls.answered(self.name, item)

    def clone_source(self, owner: str, name: str, *, credential: bool = True) -> CloneSource:
        url = f"{self._url}/{quote(owner, safe='')}/{quote(name, safe='')}.git"
        return CloneSource(url, "albatros", self._clone_token) if credential and self._clone_token else CloneSource(url)

    def post_status(self, owner: str, name: str, status: CommitStatus) -> None:
        body = {
            "state": status_word(status.state),
            "context": status.context,
            "description": status.description,
            "target_url": status.target_url,
        }
        self._api.post(f"{repo_path(owner, name)}/statuses/{quote(status.commit, safe='')}", body)

    def _pages(self, path: str) -> Iterable[Mapping[str, object]]:
        for page in range(1, MAX_PAGES + 1):
            items = self._api.get(f"{path}{'&' if '?' in path else '?'}page={page}&limit={PAGE}")
            if not isinstance(items, list) or not items:
                return
            yield from (item for item in items if isinstance(item, dict))
        raise ForgeError(f"{self.name}: {path} has more than {MAX_PAGES} pages; delete some branches or tags")


def repo_path(owner: str, name: str) -> str:
    """A repo's path below the API's address."""
    return f"/repos/{quote(owner, safe='')}/{quote(name, safe='')}"


def _read_pull_event(delivery: str, event: str, data: Mapping[str, object]) -> Inbound:
    repo = payload.read_repo(payload.child(data, "repository"))
    if event == "issue_comment":
        return pulls.read_comment(delivery, event, repo, data, on_pull=data.get("is_pull") is True)
    return pulls.read_event(delivery, event, repo, data, _ACTIONS)


def _read_delete(data: Mapping[str, object], short: str) -> HeadMoved:
    prefix = TAG_PREFIX if data.get("ref_type") == "tag" else BRANCH_PREFIX
    return payload.moved(prefix + short, None, None, payload.text(payload.child(data, "sender"), "login"))


def _read_head(item: Mapping[str, object]) -> Head | None:
    """A branch or tag; only a branch brings the commit's message and author."""
    commit = payload.child(item, "commit")
    digest = commit_of(commit)
    if digest is None:
        return None
    author = payload.text(payload.child(commit, "author"), "name")
    return Head(digest, author, payload.text(commit, "message"), payload.asks(commit))
