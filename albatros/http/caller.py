"""A caller, and the rows that they may see: every endpoint that shows or changes something of a Repo finds it here.

What is found is told from what there is not by nobody who may not see it. A forge is asked between transactions, never
within one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.orm import Session

from albatros.db import pages, queries
from albatros.db.models import Artifact, Build, Image, Job, Repo
from albatros.db.sight import Sight
from albatros.domain.access import Scope, Who
from albatros.errors import ForgeError, OverloadedError
from albatros.flows.access import NamedRepo, Unseen

if TYPE_CHECKING:
    from albatros.http.deps import AppContext

MAX_ROUNDS = 50
"""Times that a list is read again without the Repos that turned out to be hidden."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and what they may do."""

    context: AppContext
    who: Who

    @property
    def name(self) -> str:
        """Who calls, for messages and the log."""
        return self.who.name

    def may(self, repo: NamedRepo, needed: Scope = Scope.READ) -> bool:
        """True when they may do this in a Repo. Raises ForgeUnavailableError."""
        return self.context.roles.may(self.who, repo, needed)

    def offers(self, repo: NamedRepo, needed: Scope = Scope.READ) -> bool:
        """The same where there is nobody to tell of a forge that is away: what it cannot vouch for is left out."""
        try:
            return self.may(repo, needed)
        except ForgeError:
            return False

    def check(self, repo: NamedRepo | None, what: str, needed: Scope = Scope.READ) -> None:
        """Raise NotFoundError for what is not there or hidden, ForbiddenError for what they may only see."""
        self.context.roles.check(self.who, repo, needed, what)

    def confirm(self, repo: NamedRepo) -> None:
        """Have the forge say at this moment that they may push to a Repo. Raises ForbiddenError, ForgeError."""
        self.context.roles.confirm(self.who, repo)

    def build(self, build_id: int, needed: Scope = Scope.READ) -> Build:
        """A Build with its Repo. Raises NotFoundError or ForbiddenError."""
        return self._found(pages.find_build, build_id, "build", lambda row: row.repo, needed)

    def job(self, job_id: int, needed: Scope = Scope.READ) -> Job:
        """A Job with its Build and Repo. Raises NotFoundError or ForbiddenError."""
        return self._found(pages.find_job, job_id, "job", lambda row: row.build.repo, needed)

    def image(self, image_id: int, needed: Scope = Scope.READ) -> Image:
        """An Image. Raises NotFoundError or ForbiddenError."""
        return self._found(queries.find_image, image_id, "image", lambda row: row.build.repo, needed)

    def artifact(self, artifact_id: int, needed: Scope = Scope.READ) -> Artifact:
        """An Artifact. Raises NotFoundError or ForbiddenError."""
        return self._found(queries.find_artifact, artifact_id, "artifact", lambda row: row.job.build.repo, needed)

    def repo(self, forge: str, owner: str, name: str, needed: Scope = Scope.READ) -> Repo:
        """A Repo by its name on its forge. Raises NotFoundError or ForbiddenError."""
        with self.context.database.read() as session:
            found = pages.find_repo(session, forge, owner, name)
        # The forge is asked about a repo without a row as well: an answer that comes at once would tell them apart.
        what = f"repo {forge}/{owner}/{name}"
        self.check(found or Unseen(forge, owner, name), what, needed)
        self.check(found, what, needed)
        return _there(found)

    def listed(self, fetch: Callable[[Session, Sight], Sequence[T]], repo_of: Callable[[T], Repo]) -> Sequence[T]:
        """The rows that `fetch` finds, of Repos that the caller may see.

        Where some are hidden it is fetched again without them, so that a page is full. Raises OverloadedError when that
        does not end; what was learned is kept, so the next call comes further.
        """
        sight = self.context.roles.sight(self.who)
        for _ in range(MAX_ROUNDS):
            with self.context.database.read() as session:
                rows = fetch(session, sight)
            repos = list({repo.id: repo for repo in map(repo_of, rows)}.values())
            seen = self.context.roles.may_see(self.who, repos)
            hidden = {repo.id for repo, visible in zip(repos, seen, strict=True) if not visible}
            if not hidden:
                return rows
            sight = replace(sight, without=sight.without | hidden)
        raise OverloadedError("too many repos had to be asked about at once; repeat the call, it goes on from there")

    def _found(
        self,
        find: Callable[[Session, int], T | None],
        row_id: int,
        kind: str,
        repo_of: Callable[[T], Repo],
        needed: Scope,
    ) -> T:
        with self.context.database.read() as session:
            row = find(session, row_id)
        self.check(repo_of(row) if row is not None else None, f"{kind} {row_id}", needed)
        return _there(row)


def _there(row: T | None) -> T:
    """What was checked to be there."""
    if row is None:
        raise LookupError("a row that was checked to be there is None")
    return row
