"""A small server that answers the calls of GitHub's API that Albatros makes, from GitHub's REST documentation.

It is a GitHub Enterprise Server: the API is below /api/v3. Version 2022-11-28 of the API; ETags and conditional
requests as in "Best practices for using the REST API".
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast
from urllib.parse import unquote

from tests.support.fake_forge import FakeForge, FakeRepo, Query, page_of, serve

_KINDS = "branches|tags|statuses|commits|collaborators|pulls|hooks"
_MOST_HOOKS = 20
Json = Mapping[str, object]


class FakeGithub(FakeForge):
    """A GitHub's state."""

    etags = True

    def authorized(self, headers: Mapping[str, str]) -> bool:
        assert headers.get("x-github-api-version") == "2022-11-28"
        return headers.get("authorization") == f"Bearer {self.token}"

    def route(self, method: str, path: str, query: Query, body: object) -> tuple[int, object]:
        matched = re.fullmatch(rf"/api/v3/repos/([^/]+/[^/]+)(?:/({_KINDS})(?:/(.+))?)?", path)
        repo = self.repos.get(matched[1]) if matched else None
        if matched is None or repo is None:
            return 404, {"message": "Not Found"}
        kind, item = matched[2], unquote(matched[3] or "")
        if kind is None:
            branch = repo.default_branch
            return 200, {"full_name": matched[1], "private": repo.private, "default_branch": branch}
        if kind == "statuses":
            return self._post_status(repo, item, body) if method == "POST" else (404, None)
        if kind == "hooks":
            return _hooks(repo, method, item, query, body)
        if kind == "collaborators":
            return repo.collaborator(item.removesuffix("/permission"))
        if kind == "commits":
            return self._commit(repo, item)
        if kind == "pulls" and item:
            found = repo.pulls.get(int(item))
            return (200, found) if found is not None else (404, {"message": "Not Found"})
        if kind == "pulls":
            listed = [pull for pull in repo.pulls.values() if pull["state"] == query["state"][0]]
        else:
            refs = repo.branches if kind == "branches" else repo.tags
            listed = [{"name": name, "commit": {"sha": commit}} for name, commit in sorted(refs.items())]
        return 200, page_of(listed, query, "per_page", 100)

    def _commit(self, repo: FakeRepo, item: str) -> tuple[int, object]:
        if not repo.branches:
            return 409, {"message": "Git Repository is empty."}
        kind, _, short = item.partition("/")
        commit = (repo.branches if kind == "heads" else repo.tags).get(short)
        if commit is None:
            return 422, {"message": f"No commit found for SHA: {item}"}
        message = {"message": "a title\n\nmore", "author": {"name": "Alba A."}}
        return 200, {"sha": commit, "commit": message, "author": {"login": "alba"}}

    def _post_status(self, repo: FakeRepo, commit: str, body: object) -> tuple[int, object]:
        assert isinstance(body, dict)
        if commit not in repo.commits:
            return 422, {"message": f"No commit found for SHA: {commit}"}
        if body["state"] not in {"error", "failure", "pending", "success"} or len(str(body["description"])) > 140:
            return 422, {"message": "Validation Failed"}
        repo.statuses[commit, str(body["context"]).lower()] = body
        return 201, body


def _hooks(repo: FakeRepo, method: str, item: str, query: Query, body: object) -> tuple[int, object]:
    """The API of webhooks ("Repository webhooks"): hidden from who is no administrator, one of an address."""
    number, _, ping = item.partition("/")
    if not repo.administered or (number and int(number) not in repo.hooks):
        return 404, {"message": "Not Found"}
    if method == "GET":
        return 200, page_of(list(repo.hooks.values()), query, "per_page", 100)
    if method == "DELETE":
        del repo.hooks[int(number)]
        return 204, None
    if ping == "pings":
        repo.rung.append(int(number))
        repo.ring(int(number))
        return 204, None
    assert isinstance(body, dict)
    config: dict[str, object] = {"content_type": "form", "insecure_ssl": "0", **body["config"]}
    if method == "POST":
        if any(cast("Json", hook["config"])["url"] == config["url"] for hook in repo.hooks.values()):
            return _invalid("Hook already exists on this repository")
        for event in body["events"]:
            if sum(event in cast("list[str]", hook["events"]) for hook in repo.hooks.values()) >= _MOST_HOOKS:
                return _invalid(f'The "{event}" event cannot have more than {_MOST_HOOKS} hooks')
        repo.made_hooks += 1
        number = str(repo.made_hooks)
    repo.hook_secrets[int(number)] = str(config.get("secret", ""))
    shown = {**config, **({"secret": "********"} if config.get("secret") else {})}
    hook = {"active": body["active"], "events": body["events"], "config": shown}
    repo.hooks[int(number)] = {"type": "Repository", "id": int(number), "name": "web", **hook}
    return (201 if method == "POST" else 200), repo.hooks[int(number)]


def _invalid(why: str) -> tuple[int, object]:
    return 422, {"message": "Validation Failed", "errors": [{"resource": "Hook", "code": "custom", "message": why}]}


@contextmanager
def fake_github() -> Iterator[FakeGithub]:
    """Serve a fake on a free loopback port."""
    with serve(FakeGithub()) as state:
        yield state
