"""Which Repos may build, and by what: those that an operator added, and those that their forge's settings cover."""

from __future__ import annotations

from albatros.db.models import Repo
from albatros.domain.assigning import Assignment
from albatros.domain.refs import check_full_name, matches_any
from albatros.errors import ForbiddenError
from albatros.settings import ForgeKind, Settings


def globs_of(settings: Settings, forge: str) -> tuple[str, ...]:
    """The globs of repos that a forge's settings let build."""
    return next((configured.repos for configured in settings.forges if configured.name == forge), ())


def check_repo(settings: Settings, forge: str, full_name: str) -> tuple[str, str]:
    """Split `owner/name` of a repo on a forge; only a GitLab has groups inside of groups. Raises BadInputError."""
    kinds = {configured.name: configured.kind for configured in settings.forges}
    return check_full_name(full_name, nested=kinds.get(forge) is ForgeKind.GITLAB)


def merging(settings: Settings) -> frozenset[str]:
    """The forges whose pull requests' merge results are built where a repo does not say."""
    return frozenset(configured.name for configured in settings.forges if configured.merges)


def assignments_of(settings: Settings) -> tuple[Assignment, ...]:
    """The builders of the operator's own, with what each is for."""
    return tuple(Assignment(one.name, one.forge, one.repos, one.refs) for one in settings.builders)


def is_allowed(settings: Settings, repo: Repo) -> bool:
    """True when an operator added the repo, or its forge's settings cover it."""
    return repo.allowed or matches_any(repo.full_name, globs_of(settings, repo.forge))


def check_allowed(settings: Settings, repo: Repo) -> None:
    """Raise ForbiddenError for a Repo that may not build."""
    if not is_allowed(settings, repo):
        raise ForbiddenError(f"{repo.full_name} may not build here: add it with `albatros repo add`")
