"""A small server that answers the calls of GitHub's API that Albatros makes, from GitHub's REST documentation.

It is a GitHub Enterprise Server: the API is below /api/v3. Version 2022-11-28 of the API; ETags and conditional
requests as in "Best practices for using the REST API".
"""

import base64
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import unquote

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from tests.support.fake_forge import FakeForge, FakeRepo, Query, page_of, serve

_KINDS = "branches|tags|statuses|commits|collaborators|pulls|hooks"
_MOST_HOOKS = 20
Json = Mapping[str, object]


@dataclass
class FakeGithub(FakeForge):
    """A GitHub's state."""

    etags = True
    app: str = ""
    """The id of a GitHub App that is installed for `installed`; its JWTs are signed with the key of `app_key`."""
    app_key: RSAPublicKey | None = None
    installed: tuple[str, ...] = ()
    given: list[Json] = field(default_factory=list)
    """The installation tokens that were asked for."""

    def authorized(self, headers: Mapping[str, str]) -> bool:
        assert headers.get("x-github-api-version") == "2022-11-28"
        said = headers.get("authorization", "").removeprefix("Bearer ")
        return said == self.token or (self.app_key is not None and _is_of_app(said, self.app, self.app_key))

    def route(self, method: str, path: str, query: Query, body: object) -> tuple[int, object]:
        if path.endswith(("/installation", "/access_tokens")):
            return self._installation(path, body)
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
        if kind in {"collaborators", "commits"}:
            asked = kind == "commits"
            return self._commit(repo, item) if asked else repo.collaborator(item.removesuffix("/permission"))
        if kind == "pulls" and item:
            found = repo.pulls.get(int(item))
            return (200, found) if found is not None else (404, {"message": "Not Found"})
        if kind == "pulls":
            listed = [pull for pull in repo.pulls.values() if pull["state"] == query["state"][0]]
        else:
            refs = repo.branches if kind == "branches" else repo.tags
            listed = [{"name": name, "commit": {"sha": commit}} for name, commit in sorted(refs.items())]
        return 200, page_of(listed, query, "per_page", 100)

    def _installation(self, path: str, body: object) -> tuple[int, object]:
        """GitHub Apps: the installation of a repo, whose number is 9, and a token for some of its repos."""
        if path.endswith("/installation"):
            installed = path.removeprefix("/api/v3/repos/").removesuffix("/installation") in self.installed
            return (200, {"id": 9, "app_id": self.app}) if installed else (404, {"message": "Not Found"})
        assert path == "/api/v3/app/installations/9/access_tokens"
        assert isinstance(body, dict)
        self.given.append(body)
        return 201, {"token": f"ghs_{len(self.given)}ofTests", "expires_at": "2026-11-24T12:00:00Z", **body}

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


def _is_of_app(jwt: str, app: str, key: RSAPublicKey) -> bool:
    """Whether a JWT is what GitHub takes: RS256, of this App, issued in the past, and over within ten minutes."""
    parts = jwt.split(".")
    if len(parts) != 3:
        return False
    header, claims, signature = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts)
    key.verify(signature, ".".join(parts[:2]).encode(), PKCS1v15(), SHA256())
    said, now = json.loads(claims), time.time()
    assert json.loads(header) == {"alg": "RS256", "typ": "JWT"}
    return bool(said["iss"] == app and said["iat"] <= now < said["exp"] <= now + 600)


def _invalid(why: str) -> tuple[int, object]:
    return 422, {"message": "Validation Failed", "errors": [{"resource": "Hook", "code": "custom", "message": why}]}


@contextmanager
def fake_github() -> Iterator[FakeGithub]:
    """Serve a fake on a free loopback port."""
    with serve(FakeGithub()) as state:
        yield state
