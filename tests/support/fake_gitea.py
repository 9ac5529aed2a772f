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
            r"/api/v1/repos/([^/]+/[^/]+)(?:/(branches|tags|statuses|collaborators|pulls)(?:/(.+))?)?", path
        )
        repo = self.repos.get(matched[1]) if matched else None
        if matched is None or repo is None:
            return 404, {"message": "The target couldn't be found."}
        kind, item = matched[2], unquote(matched[3] or "")
        if kind is None:
            branch = repo.default_branch
            return 200, {"full_name": matched[1], "private": repo.private, "default_branch": branch}
        if kind == "statuses":
            return self._post_status(repo, item, body) if method == "POST" else (405, None)
        if kind == "collaborators":
            login = item.removesuffix("/permission")
            return (200, {"permission": repo.people[login]}) if login in repo.people else (404, {"message": "no user"})
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


def _item(kind: str, name: str, commit: str) -> dict[str, object]:
    if kind == "tags":
        return {"name": name, "message": "", "id": "f" * 40, "commit": {"sha": commit, "url": ""}}
    return {"name": name, "commit": {"id": commit, "message": "a title\n\nmore", "author": {"name": "alba"}}}


@contextmanager
def fake_gitea() -> Iterator[FakeGitea]:
    """Serve a fake on a free loopback port."""
    with serve(FakeGitea()) as state:
        yield state
