"""GitHub and GitHub Enterprise Server: webhooks, the REST API, commit statuses.

The API of github.com is at api.github.com, that of any other host below /api/v3. Contexts of commit statuses ignore
case there (REST API, "Commit statuses"), so that ours, which do not, get a mark where they have capitals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from urllib.parse import quote

from albatros.domain.inbound import Head, Inbound, Pull, PullAction, RepoInfo
from albatros.domain.refs import BRANCH_PREFIX, TAG_PREFIX, one_line, pull_number
from albatros.errors import ForgeError, UnauthorizedError
from albatros.forges import payload, pulls
from albatros.forges.answers import commit_of, described, heads_of
from albatros.forges.base import CloneSource, CommitStatus, Permission, status_word
from albatros.forges.github_api import api_client, repo_path
from albatros.forges.github_app import InstallationTokens
from albatros.settings import ForgeSettings

PAGE = 100
MAX_PAGES = 200
CONTEXT_LENGTH = 240
_SIGNATURE = "X-Hub-Signature-256"
_NO_COMMIT = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY)
"""No such ref: in a repo that is there, in one that is empty, and for a name that is no commit."""
_NOT_BUILT = {
    "ping": "the webhook works",
    "create": "a new branch or tag is built by the push that comes with it",
    "delete": "a deleted branch or tag is told by the push that comes with it",
    "release": "a release builds nothing; its tag is built by the push that comes with it",
}
_ACTIONS = {
    "opened": PullAction.OPENED,
    "synchronize": PullAction.NEW_HEAD,
    "reopened": PullAction.REOPENED,
    "closed": PullAction.CLOSED,
    "labeled": PullAction.LABELLED,
    "unlabeled": PullAction.LABELLED,
}


class GithubForge:
    """github.com, or one GitHub Enterprise Server."""

    reads_disk = False

    def __init__(self, settings: ForgeSettings) -> None:
        self.name = settings.name
        self._url = settings.url.rstrip("/")
        self._secret = settings.webhook_secret.get_secret_value()
        self._clone_token = settings.cloning_token
        self._api = api_client(settings)
        # A submodule is cloned with the same credential, and such a token reads one repo.
        limited = settings.app_id and not settings.submodules
        self._app_tokens = InstallationTokens(settings, self._api) if limited else None

    def close(self) -> None:
        """Close the connections to the API."""
        self._api.close()

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        said = headers.get(_SIGNATURE.lower(), "")
        if said and not said.startswith("sha256="):
            raise UnauthorizedError(f"{_SIGNATURE} does not begin with sha256=: this is no webhook of GitHub")
        payload.check_repo_signature(self._secret, said.removeprefix("sha256="), body, _SIGNATURE)

    def parse(self, headers: Mapping[str, str], body: bytes) -> Inbound:
        delivery = payload.required_header(headers, "X-GitHub-Delivery", payload.MAX_ID)
        event = payload.required_header(headers, "X-GitHub-Event", payload.MAX_EVENT)
        data = payload.read_object(body)
        if event not in {"push", "pull_request", "issue_comment"}:
            repo = payload.read_repo(payload.child(data, "repository")) if "repository" in data else None
            return Inbound(delivery, event, repo, ignored=_NOT_BUILT.get(event, f"a {event} event builds nothing"))
        repo = payload.read_repo(payload.child(data, "repository"))
        if event == "pull_request":
            return pulls.read_event(delivery, event, repo, data, _ACTIONS)
        if event == "issue_comment":
            on_pull = isinstance(payload.child(data, "issue").get("pull_request"), dict)
            return pulls.read_comment(delivery, event, repo, data, on_pull=on_pull)
        ref = payload.required_text(data, "ref")
        if not ref.startswith((BRANCH_PREFIX, TAG_PREFIX)):
            return Inbound(delivery, event, repo, ignored=f"{one_line(ref, 80)} is neither a branch nor a tag")
        return Inbound(delivery, event, repo, (payload.read_push(data, ref, "name"),))

    def describe(self, owner: str, name: str) -> RepoInfo:
        return described(self.name, f"{owner}/{name}", self._api.get(repo_path(owner, name)))

    def repos(self) -> Iterable[RepoInfo]:
        return ()

    def heads(self, owner: str, name: str) -> Mapping[str, str]:
        path = repo_path(owner, name)
        return heads_of(self._pages(f"{path}/branches?"), self._pages(f"{path}/tags?"))

    def head(self, owner: str, name: str, ref: str) -> Head | None:
        number = pull_number(ref)
        if number is not None:
            return pulls.head_of(self.pull(owner, name, number))
        short = quote(ref.removeprefix("refs/"), safe="/")
        found = payload.as_object(self._api.get(f"{repo_path(owner, name)}/commits/{short}", _NO_COMMIT))
        digest, said = commit_of(found), payload.child(found, "commit")
        if digest is None:
            return None
        author = payload.text(payload.child(found, "author"), "login")
        author = author or payload.text(payload.child(said, "author"), "name")
        return Head(digest, author, payload.text(said, "message"), payload.asks(said))

    def permission(self, owner: str, name: str, login: str, subject: str = "") -> Permission:
        found = self._api.get(f"{repo_path(owner, name)}/collaborators/{quote(login, safe='')}/permission")
        answer = payload.as_object(found)
        if subject and str(payload.child(answer, "user").get("id")) != subject:
            return Permission.NONE
        said = payload.text(answer, "permission")
        return Permission(said) if said in list(Permission) else Permission.NONE

    def pull(self, owner: str, name: str, number: int) -> Pull | None:
        found = self._api.get(f"{repo_path(owner, name)}/pulls/{number}")
        return pulls.answered(self.name, found) if found is not None else None

    def open_pulls(self, owner: str, name: str) -> Iterable[Pull]:
        for item in self._pages(f"{repo_path(owner, name)}/pulls?state=open&"):
            yield pulls.answered(self.name, item)

    def clone_source(self, owner: str, name: str, *, credential: bool = True) -> CloneSource:
        url = f"{self._url}/{quote(owner, safe='')}/{quote(name, safe='')}.git"
        if not credential:
            return CloneSource(url)
        token = self._app_tokens.of(owner, name) if self._app_tokens is not None else None
        if token is not None:
            return CloneSource(url, token.username, token.password)
        return CloneSource(url, "x-access-token", self._clone_token) if self._clone_token else CloneSource(url)

    def post_status(self, owner: str, name: str, status: CommitStatus) -> None:
        body = {
            "state": status_word(status.state),
            "context": context_of(status.context),
            "description": status.description,
            "target_url": status.target_url,
        }
        self._api.post(f"{repo_path(owner, name)}/statuses/{quote(status.commit, safe='')}", body)

    def _pages(self, path: str) -> Iterable[Mapping[str, object]]:
        for page in range(1, MAX_PAGES + 1):
            items = self._api.get(f"{path}per_page={PAGE}&page={page}")
            if not isinstance(items, list):
                return
            yield from (item for item in items if isinstance(item, dict))
            if len(items) < PAGE:
                return
        raise ForgeError(f"{self.name}: {path} has more than {MAX_PAGES} pages; delete some branches or tags")


def context_of(context: str) -> str:
    """A context that no other of ours becomes when its case is ignored."""
    if context == context.lower():
        return context
    mark = hashlib.sha256(context.encode("utf-8", "replace")).hexdigest()[:6]
    return f"{context[:CONTEXT_LENGTH]} [{mark}]"
