"""Joining: a repo's forge is asked about it and given the webhook, and then it may build. Leaving undoes both.

The forge is asked first and everything is written in one transaction after it, so each may be repeated at any time.
"""

from __future__ import annotations

from dataclasses import dataclass

from albatros.db.inbox import upsert_repo
from albatros.db.models import Repo
from albatros.db.session import Database
from albatros.domain.refs import matches_any
from albatros.errors import BadInputError, ForgeError, ForgeUnavailableError, NotFoundError
from albatros.flows.allowed import check_repo, globs_of
from albatros.forges.base import Forge, Hook, Hooks, HookState
from albatros.settings import Settings


@dataclass(frozen=True, slots=True)
class Joined:
    """A repo that may build, and what became of its webhook: MISSING where it has to be made by hand."""

    repo: Repo
    hook: Hook


def webhook_url(settings: Settings, forge: str) -> str:
    """Where a forge posts to."""
    return f"{settings.base_url}/webhooks/{forge}"


def read_address(settings: Settings, address: str) -> tuple[str, str, str]:
    """Forge, owner and name of a repo's address, or of `FORGE/OWNER/NAME`. Raises BadInputError."""
    for forge in settings.forges:
        for base in (f"{forge.url.rstrip('/')}/", f"{forge.name}/"):
            if address.startswith(base):
                full_name = address.removeprefix(base).rstrip("/").removesuffix(".git")
                return forge.name, *check_repo(settings, forge.name, full_name)
    raise BadInputError("this address is on no forge that is configured here; give FORGE/OWNER/NAME")


def is_listed(settings: Settings, forge: str, full_name: str) -> bool:
    """True when the forge's own settings let the repo build, whether or not it was added."""
    return matches_any(full_name, globs_of(settings, forge))


def join(
    settings: Settings,
    database: Database,
    forge: Forge,
    hooks: Hooks | None,
    full_name: tuple[str, str],
    *,
    allow: bool,
) -> Joined:
    """Make or repair a repo's webhook; `allow` lets it build where its forge's settings do not.

    Raises NotFoundError, ForgeError or ForgeUnavailableError, and has then written nothing.
    """
    info = forge.describe(*full_name)
    hook = _ensure(settings, forge.name, hooks, info.owner, info.name)
    with database.write() as session:
        repo = upsert_repo(session, forge.name, info)
        repo.allowed = repo.allowed or allow
    return Joined(repo, hook)


def leave(settings: Settings, database: Database, hooks: Hooks | None, repo: Repo) -> Hook:
    """Take a repo's webhook away, and let it build no more; what it built stays.

    Raises ForgeError or ForgeUnavailableError, and has then written nothing.
    """
    url = webhook_url(settings, repo.forge)
    if hooks is None:
        hook = Hook(HookState.MISSING, f"delete the webhook by hand: {url}")
    else:
        try:
            hook = hooks.remove(repo.owner, repo.name, url)
        except NotFoundError:
            hook = Hook(HookState.MISSING, f"{repo.forge} has no repo {repo.full_name} any more")
    with database.write() as session:
        session.get_one(Repo, repo.id).allowed = False
    if is_listed(settings, repo.forge, repo.full_name):
        return Hook(hook.state, f"{hook.text}; its heads are still looked at, since forges.repos covers it")
    return hook


def look(settings: Settings, hooks: Hooks | None, repo: Repo) -> Hook:
    """How a repo's webhook stands. Raises ForgeError or ForgeUnavailableError."""
    if hooks is None:
        return Hook(HookState.MISSING, _by_hand(settings, repo.forge))
    try:
        return hooks.look(repo.owner, repo.name, webhook_url(settings, repo.forge))
    except NotFoundError as error:
        return Hook(HookState.MISSING, error.detail)


def _ensure(settings: Settings, forge: str, hooks: Hooks | None, owner: str, name: str) -> Hook:
    if hooks is None:
        return Hook(HookState.MISSING, _by_hand(settings, forge))
    try:
        return hooks.ensure(owner, name, webhook_url(settings, forge))
    except ForgeUnavailableError:
        raise
    except ForgeError as error:
        return Hook(HookState.MISSING, f"{error.detail}. Or {_by_hand(settings, forge)}")


def _by_hand(settings: Settings, forge: str) -> str:
    return (
        f"create the webhook by hand: {webhook_url(settings, forge)}, application/json, "
        f"with the webhook_secret of [[forges]] {forge}"
    )
