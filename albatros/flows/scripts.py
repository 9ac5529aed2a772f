"""Scripts: which repos' own program, `.albatros`, runs, and what it is told.

It runs outside Nix's sandbox, so the operator names the repos that may, and what nobody trusted has pushed never does.
"""

from __future__ import annotations

from collections.abc import Mapping

from albatros.db.models import Build
from albatros.domain.refs import BRANCH_PREFIX, TAG_PREFIX, matches_any
from albatros.forges.base import CloneSource
from albatros.settings import ForgeSettings

NAME = ".albatros"
UNISOLATED = (
    f"{NAME} would run here as the user of every runner, and could read what belongs to other repos; "
    "set executor.allow_unisolated_scripts if all that is built here may"
)


def why_not(build: Build, forges: Mapping[str, ForgeSettings]) -> str:
    """Why the script of a Build does not run; empty when it does."""
    repo = build.repo
    if not build.trusted:
        return f"{NAME} runs only for commits of people who may push"
    if build.merge_into is not None:
        return f"{NAME} does not run for a merge result, which publishes nothing"
    forge = forges.get(repo.forge)
    if forge is None or not matches_any(repo.full_name, forge.scripts):
        return f"{NAME} of {repo.full_name} may not run here: an operator lists the repo in `scripts` of its forge"
    return ""


def order(build: Build, source: CloneSource, secrets: Mapping[str, str]) -> dict[str, object]:
    """What the runner tells the script."""
    ref = build.ref
    return {
        "repo_url": source.url,
        "branch": ref.removeprefix(BRANCH_PREFIX) if ref.startswith(BRANCH_PREFIX) else "",
        "tag": ref.removeprefix(TAG_PREFIX) if ref.startswith(TAG_PREFIX) else "",
        "flavor": build.flavor,
        "secrets": dict(secrets),
    }
