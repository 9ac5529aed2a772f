"""A small server that answers the calls of GitHub's API that Albatros makes, from GitHub's REST documentation.

It is a GitHub Enterprise Server: the API is below /api/v3. Version 2022-11-28 of the API; ETags and conditional
requests as in "Best practices for using the REST API".
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import unquote

from tests.support.fake_forge import FakeForge, FakeRepo, Query, page_of, serve

_KINDS = "branches|tags|statuses|commits|collaborators|pulls"


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


@contextmanager
def fake_github() -> Iterator[FakeGithub]:
    """Serve a fake on a free loopback port."""
    with serve(FakeGithub()) as state:
        yield state
