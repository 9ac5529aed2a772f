"""A repo on a real Gitea with a webhook, set up and read back through Gitea's own API."""

from pathlib import Path
from typing import cast

from tests.services.gitea_server import ADMIN, GiteaServer
from tests.support.work_tree import Project, Status


class GiteaRepo(Project):
    """A new repo of the administrator, whose pushes are told to `webhook`."""

    def __init__(
        self, server: GiteaServer, name: str, work: Path, webhook: str, secret: str, *, private: bool = False
    ) -> None:
        super().__init__(f"{ADMIN}/{name}", work, server.clone_url(ADMIN, name))
        self._server = server
        server.api("POST", "/user/repos", {"name": name, "default_branch": "main", "private": private})
        config = {"url": webhook, "content_type": "json", "secret": secret}
        hook = {"type": "gitea", "config": config, "events": ["push"], "active": True}
        server.api("POST", f"/repos/{self.full_name}/hooks", hook)

    def statuses(self, commit: str) -> list[Status]:
        """The newest status of each context, as Gitea shows them beside the commit."""
        answer = self._server.api("GET", f"/repos/{self.full_name}/commits/{commit}/status?limit=50")
        listed = cast("dict[str, list[dict[str, str]]]", answer)["statuses"] or []
        return [Status(one["context"], one["status"], one["description"], one["target_url"]) for one in listed]
