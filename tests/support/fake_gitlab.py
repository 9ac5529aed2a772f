"""A small server that answers the calls of GitLab's API that Albatros makes, from the REST documentation of GitLab 18.

A commit status that is open is not told its state again, and never goes back from running to pending: GitLab answers
400 "Cannot transition status" then. One that has ended is followed by a new one.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

from tests.support.fake_forge import FakeForge, FakeRepo, Query, page_of, serve

_RANK = {"pending": 0, "running": 1}
_MOST_HOOKS = 100
_KEY_BYTES = 32
_SECRETS = "token", "signing_token"
_LEVELS = {"guest": 10, "reporter": 20, "developer": 30, "maintainer": 40, "owner": 50}


@dataclass
class FakeGitlab(FakeForge):
    """A GitLab's state; the people of a repo are named by their role."""

    etags = True
    blocked: set[str] = field(default_factory=set)
    knows_signing_tokens: bool = True

    def authorized(self, headers: Mapping[str, str]) -> bool:
        return headers.get("private-token") == self.token

    def route(self, method: str, path: str, query: Query, body: object) -> tuple[int, object]:
        if path == "/api/v4/users":
            login = query["username"][0]
            known = login in self._logins()
            return 200, [{"id": self._logins().index(login) + 1, "username": login}] if known else []
        matched = re.fullmatch(r"/api/v4/projects/([^/]+)(?:/(.+))?", path)
        name = unquote(matched[1]) if matched else ""
        repo = self.repos.get(name)
        if matched is None or repo is None:
            return 404, {"message": "404 Project Not Found"}
        if matched[2] is None:
            visibility = "private" if repo.private else "public"
            return 200, {"path_with_namespace": name, "visibility": visibility, "default_branch": repo.default_branch}
        return self._inside(repo, method, matched[2], query, body)

    def _logins(self) -> list[str]:
        return sorted({login for repo in self.repos.values() for login in repo.people})

    def _inside(self, repo: FakeRepo, method: str, path: str, query: Query, body: object) -> tuple[int, object]:
        first, _, rest = path.partition("/")
        if first in {"hooks", "deploy_tokens"}:
            answer = self._hooks if first == "hooks" else _deploy_tokens
            return answer(repo, method, rest, query, body) if repo.administered else (403, {"message": "403 Forbidden"})
        if first == "statuses" and method == "POST":
            return self._post_status(repo, rest, body)
        if first == "members":
            return self._member(repo, int(rest.removeprefix("all/")))
        if first == "merge_requests" and rest:
            found = repo.pulls.get(int(rest))
            return (200, found) if found is not None else (404, {"message": "404 Not found"})
        if first == "merge_requests":
            listed = [one for one in repo.pulls.values() if one["state"] == query["state"][0]]
            return 200, page_of(listed, query, "per_page", 100)
        kind, _, item = rest.partition("/")
        if kind == "commits":
            shown = repo.statuses.get((item.removesuffix("/statuses"), query["name"][0]))
            return 200, [shown] if shown else []
        refs = repo.branches if kind == "branches" else repo.tags
        if item:
            short = unquote(item)
            return (200, _ref(short, refs[short])) if short in refs else (404, {"message": "404 Not Found"})
        return 200, page_of([_ref(short, refs[short]) for short in sorted(refs)], query, "per_page", 100)

    def _member(self, repo: FakeRepo, number: int) -> tuple[int, object]:
        login = self._logins()[number - 1]
        if login not in repo.people or repo.people[login] not in _LEVELS:
            return 404, {"message": "404 Not found"}
        state = "blocked" if login in self.blocked else "active"
        return 200, {"username": login, "state": state, "access_level": _LEVELS[repo.people[login]]}

    def _hooks(self, repo: FakeRepo, method: str, item: str, query: Query, body: object) -> tuple[int, object]:
        """The API of webhooks ("Project webhooks"): for maintainers, and as many of an address as one likes."""
        number, _, test = item.partition("/")
        if number and int(number) not in repo.hooks:
            return 404, {"message": "404 Not found"}
        if method == "GET":
            return 200, page_of(list(repo.hooks.values()), query, "per_page", 100)
        if method == "DELETE":
            del repo.hooks[int(number)]
            return 204, None
        if test == "test/push_events":
            if not repo.branches:
                return 422, {"message": "Ensure the project has at least one commit."}
            repo.rung.append(int(number))
            repo.ring(int(number))
            return 201, {"message": "201 Created"}
        assert isinstance(body, dict)
        return self._make_hook(repo, body)

    def _make_hook(self, repo: FakeRepo, body: Mapping[str, object]) -> tuple[int, object]:
        if not str(body["url"]).startswith(("http://", "https://")):
            return 422, {"error": "Invalid url given"}
        if len(repo.hooks) >= _MOST_HOOKS:
            return 422, {"message": {"base": [f"Maximum number of project hooks ({_MOST_HOOKS}) exceeded"]}}
        signing = str(body.get("signing_token", ""))
        if signing and len(base64.b64decode(signing.removeprefix("whsec_"), validate=True)) != _KEY_BYTES:
            return 422, {"message": {"signing_token": ["must be whsec_ and the base64 of 32 bytes"]}}
        repo.made_hooks += 1
        secret = body.get("signing_token") if self.knows_signing_tokens else None
        repo.hook_secrets[repo.made_hooks] = str(secret or body.get("token", ""))
        defaults = {"alert_status": "executable", "disabled_until": None, "push_events_branch_filter": None}
        shown = {key: value for key, value in body.items() if key not in _SECRETS}
        told = {f"{key}_present": bool(body.get(key)) for key in _SECRETS} if self.knows_signing_tokens else {}
        repo.hooks[repo.made_hooks] = {"id": repo.made_hooks, **defaults, **shown, **told}
        return 201, repo.hooks[repo.made_hooks]

    def _post_status(self, repo: FakeRepo, commit: str, body: object) -> tuple[int, object]:
        assert isinstance(body, dict)
        if commit not in repo.commits:
            return 404, {"message": "404 Commit Not Found"}
        if body["state"] not in {"pending", "running", "success", "failed", "canceled", "skipped"}:
            return 400, {"error": "state does not have a valid value"}
        key = commit, str(body["name"])
        before = str(repo.statuses.get(key, {}).get("status", ""))
        if before in _RANK and body["state"] in _RANK and _RANK[str(body["state"])] <= _RANK[before]:
            return 400, {"message": f"Cannot transition status via :enqueue from :{before}"}
        repo.statuses[key] = {**body, "status": body["state"]}
        return 201, repo.statuses[key]


def _deploy_tokens(repo: FakeRepo, method: str, item: str, query: Query, body: object) -> tuple[int, object]:
    """The API of deploy tokens, for maintainers; a token is shown once, when it is made."""
    if method == "GET":
        return 200, page_of(list(repo.deploy_tokens.values()), query, "per_page", 100)
    if method == "DELETE":
        return (
            (204, None) if repo.deploy_tokens.pop(int(item), None) else (404, {"message": "404 Deploy Token Not Found"})
        )
    assert isinstance(body, dict)
    if set(body["scopes"]) - {"read_repository", "read_registry"} or not body["scopes"]:
        return 400, {"error": "scopes does not have a valid value"}
    number = max(repo.deploy_tokens, default=0) + 1
    shown = {"id": number, "name": body["name"], "username": f"gitlab+deploy-token-{number}", "scopes": body["scopes"]}
    repo.deploy_tokens[number] = {**shown, "expires_at": body["expires_at"], "revoked": False, "expired": False}
    return 201, {**repo.deploy_tokens[number], "token": f"gldt-{number}-of-tests"}


def _ref(name: str, commit: str) -> dict[str, object]:
    return {"name": name, "commit": {"id": commit, "title": "a title", "author_name": "alba"}}


@contextmanager
def fake_gitlab() -> Iterator[FakeGitlab]:
    """Serve a fake on a free loopback port."""
    with serve(FakeGitlab()) as state:
        yield state
