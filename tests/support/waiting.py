"""A Build that somebody has to approve."""

from sqlalchemy import select

from albatros.db.builds import NewBuild, create_build
from albatros.db.models import Repo
from albatros.domain.inbound import Pull
from albatros.domain.states import Trigger
from tests.support.api import Api
from tests.support.forges import MemoryForge

HEAD = "0123456789abcdef0123456789abcdef01234567"


def waiting_build(api: Api, forge: MemoryForge) -> int:
    """A Build of pull request 7 of alba/hello, out of a fork, that waits for approval."""
    api.forges["home"] = forge
    forge.pulls[7] = Pull(7, "refs/pull/7/head", HEAD, "x", "eve/hello:x", True, "eve", "t", "refs/heads/main")
    with api.context.database.write() as session:
        repo_id = session.scalars(select(Repo.id).where(Repo.name == "hello")).first() or 0
        new = NewBuild(
            "refs/pull/7/head",
            HEAD,
            1,
            Trigger.PULL_REQUEST,
            trusted=False,
            pull=7,
            from_fork=True,
            head_label="eve/hello:x",
            needs_approval=True,
        )
        return create_build(session, repo_id, new)
