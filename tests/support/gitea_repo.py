"""A repo on a real Gitea with a webhook, set up and read back through Gitea's own API."""

from pathlib import Path
from typing import cast

from tests.services.gitea_server import ADMIN, GiteaServer
from tests.support.runner import git
from tests.support.work_tree import Project, Status

EVENTS = [
    "push",
    "create",
    "delete",
    "release",
    "pull_request",
    "pull_request_sync",
    "pull_request_label",
    "issue_comment",
]
EVENTS += ["pull_request_comment"]


class GiteaRepo(Project):
    """A new repo of the administrator, whose pushes are told to `webhook`; an empty one is left to the test."""

    def __init__(
        self, server: GiteaServer, name: str, work: Path, webhook: str, secret: str, *, private: bool = False
    ) -> None:
        super().__init__(f"{ADMIN}/{name}", work, server.clone_url(ADMIN, name))
        self._server = server
        server.api("POST", "/user/repos", {"name": name, "default_branch": "main", "private": private})
        if not webhook:
            return
        config = {"url": webhook, "content_type": "json", "secret": secret}
        hook = {"type": "gitea", "config": config, "events": EVENTS, "active": True}
        made = server.api("POST", f"/repos/{self.full_name}/hooks", hook)
        self.hook = int(cast("dict[str, int]", made)["id"])

    def statuses(self, commit: str) -> list[Status]:
        """The newest status of each context, as Gitea shows them beside the commit."""
        answer = self._server.api("GET", f"/repos/{self.full_name}/commits/{commit}/status?limit=50")
        listed = cast("dict[str, list[dict[str, str]]]", answer)["statuses"] or []
        return [Status(one["context"], one["status"], one["description"], one["target_url"]) for one in listed]

    def ask_for_a_pull(self, branch: str) -> int:
        """Open a pull request from a pushed branch of its own; its number."""
        body: dict[str, object] = {"head": branch, "base": "main", "title": "a change"}
        made = self._server.api("POST", f"/repos/{self.full_name}/pulls", body)
        return int(cast("dict[str, int]", made)["number"])

    def comment(self, number: int, text: str, token: str = "") -> int:
        """Comment on a pull request, as the administrator or with somebody's token; the comment's id."""
        path = f"/repos/{self.full_name}/issues/{number}/comments"
        made = self._server.api("POST", path, {"body": text}, f"token {token}" if token else "")
        return int(cast("dict[str, int]", made)["id"])

    def edit_comment(self, comment: int, text: str) -> None:
        """Change what a comment says."""
        self._server.api("PATCH", f"/repos/{self.full_name}/issues/comments/{comment}", {"body": text})


class Fork(Project):
    """Somebody's fork of a repo, and pull requests from it."""

    def __init__(self, server: GiteaServer, origin: GiteaRepo, login: str, token: str, work: Path) -> None:
        name = origin.full_name.partition("/")[2]
        super().__init__(f"{login}/{name}", work, f"http://{login}:{token}@{server.host}/{login}/{name}.git")
        self._server, self._origin, self._login, self._authorization = server, origin, login, f"token {token}"
        server.api("POST", f"/repos/{origin.full_name}/forks", {}, self._authorization)
        git(work, "pull", "--quiet", self._remote, "main")

    def ask_for_a_pull(self, branch: str) -> int:
        """Open a pull request from a pushed branch; its number."""
        body: dict[str, object] = {"head": f"{self._login}:{branch}", "base": "main", "title": "a change"}
        made = self._server.api("POST", f"/repos/{self._origin.full_name}/pulls", body, self._authorization)
        return int(cast("dict[str, int]", made)["number"])
