"""A small server that answers the calls of Gitea's API that Albatros makes, as Gitea 1.26 answers them."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import unquote

from tests.support.fake_forge import FakeForge, FakeRepo, Query, page_of, serve

__all__ = ["FakeGitea", "FakeRepo", "fake_gitea"]


class FakeGitea(FakeForge):
    """A Gitea's state."""

    def authorized(self, headers: Mapping[str, str]) -> bool:
        return headers.get("authorization") == f"token {self.token}"

    def route(self, method: str, path: str, query: Query, body: object) -> tuple[int, object]:
        matched = re.fullmatch(
            r"/api/v1/repos/([^/]+/[^/]+)(?:/(branches|tags|statuses|collaborators|pulls|hooks)(?:/(.+))?)?", path
        )
        repo = self.repos.get(matched[1]) if matched else None
        if matched is None or repo is None:
            return 404, {"message": "The target couldn't be found."}
        kind, item = matched[2], unquote(matched[3] or "")
        if kind is None:
            branch = repo.default_branch
            return 200, {"full_name": matched[1], "private": repo.private, "default_branch": branch}
        if kind in {"hooks", "statuses"}:
            return _hooks(repo, method, item, query, body) if kind == "hooks" else self._post_status(repo, item, body)
        if kind == "collaborators":
            return repo.collaborator(item.removesuffix("/permission"))
        if kind == "pulls" and item:
            number = int(item)
            return (200, repo.pulls[number]) if number in repo.pulls else (404, {"message": "not found"})
        if kind == "pulls":
            return 200, page_of([p for p in repo.pulls.values() if p["state"] == query["state"][0]], query, "limit", 50)
        found = repo.branches if kind == "branches" else repo.tags
        listed = [_item(kind, name, commit) for name, commit in sorted(found.items())]
        if item:
            return (200, _item(kind, item, found[item])) if item in found else (404, {"message": "not found"})
        return 200, page_of(listed, query, "limit", 50)

    def _post_status(self, repo: FakeRepo, commit: str, body: object) -> tuple[int, object]:
        if commit not in repo.commits:
            return 404, {"message": f"object does not exist [id: {commit}]"}
        assert isinstance(body, dict)
        if body["state"] not in {"pending", "success", "error", "failure", "warning", "skipped"}:
            return 422, {"message": "invalid state"}
        repo.statuses[commit, str(body["context"])] = body
        return 201, {**body, "status": body["state"]}


def _hooks(repo: FakeRepo, method: str, item: str, query: Query, body: object) -> tuple[int, object]:
    """Gitea shows a hook without its secret, and `pull_request` with all that it stands for."""
    if method == "GET" and not item:
        start = (int(query["page"][0]) - 1) * int(query["limit"][0])
        return 200, list(repo.hooks.values())[start : start + int(query["limit"][0])]
    if method == "POST" and not item:
        assert isinstance(body, dict)
        repo.made_hooks += 1
        config = {key: value for key, value in body["config"].items() if key != "secret"}
        events = [*body["events"], *(["pull_request_comment"] if "pull_request" in body["events"] else [])]
        shown = {"id": repo.made_hooks, "active": body["active"], "events": events, "config": config}
        repo.hooks[repo.made_hooks] = {**shown, "type": body["type"], "branch_filter": "*"}
        return 201, repo.hooks[repo.made_hooks]
    number, _, test = item.partition("/")
    if int(number) not in repo.hooks:
        return 404, {"message": "The target couldn't be found."}
    if method == "DELETE":
        del repo.hooks[int(number)]
    elif test == "tests":
        repo.rung.append(int(number))
    return 204, None


def _item(kind: str, name: str, commit: str) -> dict[str, object]:
    if kind == "tags":
        return {"name": name, "message": "", "id": "f" * 40, "commit": {"sha": commit, "url": ""}}
    return {"name": name, "commit": {"id": commit, "message": "a title\n\nmore", "author": {"name": "alba"}}}


@contextmanager
def fake_gitea() -> Iterator[FakeGitea]:
    """Serve a fake on a free loopback port."""
    with serve(FakeGitea()) as state:
        yield state
