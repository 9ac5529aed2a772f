"""Who may do what with which Repo: the one place that decides, for pages, API, badges, events, logs and files.

A person has the permission that the forge gives them at the moment. It is asked for with the server's own token,
kept for a short time, and asked again; while the forge is away an answer counts a little longer, and then nothing does.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from albatros.db.sight import Sight
from albatros.domain.access import Person, Scope, Who
from albatros.domain.refs import RepoFilter
from albatros.errors import ForbiddenError, ForgeError, ForgeUnavailableError, NotFoundError
from albatros.forges.base import Permission, Permissions
from albatros.log import get_logger

log = get_logger(__name__)
FRESH_SECONDS = 120.0
"""After this long the forge is asked again."""
OLD_SECONDS = 600.0
"""How old an answer may be that counts while the forge is away."""
NOWHERE = ("-", "-")
"""A repo that is on no forge: none lets anybody have this name."""
MAX_ANSWERS = 20_000
ASKING = 8
"""Questions to forges at once, for one caller's list."""
_SCOPES = {Permission.READ: Scope.READ, Permission.WRITE: Scope.WRITE, Permission.ADMIN: Scope.ADMIN}


class NamedRepo(Protocol):
    """What decides about a Repo: a row has it, and so has an event."""

    @property
    def forge(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def private(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Unseen:
    """A repo that has no row: taken for a private one."""

    forge: str
    owner: str
    name: str
    private: bool = True


@dataclass(frozen=True, slots=True)
class _Answer:
    permission: Permission
    at: float


class Roles:
    """What callers may do, for several threads."""

    def __init__(
        self, forges: Mapping[str, Permissions], *, public: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`public`: the server shows public Repos to everybody."""
        self._forges = forges
        self._public = public
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: OrderedDict[tuple[str, ...], _Answer] = OrderedDict()

    def may(self, who: Who, repo: NamedRepo, needed: Scope) -> bool:
        """True when `who` may do in `repo` what `needed` says. Raises ForgeUnavailableError when nobody can tell."""
        if self._public and not repo.private and needed is Scope.READ:
            return True
        if not who.holds(needed) or not who.bound.covers(repo.forge, repo.owner, repo.name):
            return False
        if who.person is None or who.operator:
            return True
        if who.person.forge != repo.forge:
            return False
        if not repo.private and needed is Scope.READ:
            # Whoever has an account on a forge sees its public repos there.
            return True
        granted = _SCOPES.get(self.permission(who.person, repo.owner, repo.name))
        return granted is not None and granted.covers(needed)

    def check(self, who: Who, repo: NamedRepo | None, needed: Scope, what: str) -> None:
        """Raise NotFoundError for what there is not or `who` may not see, ForbiddenError for what they may only see.

        `what` names the thing, as in `build 7`; both are told in the same words, and while their forge is away both
        raise ForgeUnavailableError.
        """
        seen = self._sees(who, repo)
        if repo is None or not seen:
            raise NotFoundError(f"there is no {what}, or it is not for you to see")
        if not self.may(who, repo, needed):
            raise ForbiddenError(
                f"{who.name or 'nobody'} may see {what} and not change it: "
                f"that needs {needed} on {repo.owner}/{repo.name}"
            )

    def _sees(self, who: Who, repo: NamedRepo | None) -> bool:
        """Whether `who` may see what there is. Raises ForgeUnavailableError for nothing that they may not know of."""
        try:
            if repo is not None and self.may(who, repo, Scope.READ):
                return True
        except ForgeUnavailableError as error:
            log.info("what a forge was not there to open is hidden", problem=error.detail)
        if who.person is not None and who.of_forge:
            # The answer must not depend on what there is, so this is asked of what never is.
            self._permission(who.person, *NOWHERE, FRESH_SECONDS, FRESH_SECONDS)
        return False

    def confirm(self, who: Who, repo: NamedRepo) -> None:
        """Raise ForbiddenError unless the forge of a person says now that they may push to `repo`."""
        if who.person is None or who.operator:
            return
        if not self.permission(who.person, repo.owner, repo.name, now=True).covers(Permission.WRITE):
            raise ForbiddenError(f"{who.name} may not push to {repo.owner}/{repo.name}, says {who.person.forge}")

    def sight(self, who: Who) -> Sight:
        """What a list shows `who` at most; the Repos of a person are to be asked about one by one besides."""
        if who.scope is None:
            return Sight(public=True, own=None)
        if who.person is not None and not who.operator:
            bound = who.bound
            own = RepoFilter(who.person.forge, bound.owner, bound.name)
            return Sight(public=self._public, own=own if bound.forge in {"", who.person.forge} else None)
        return Sight(public=self._public, own=who.bound)

    def may_see(self, who: Who, repos: Sequence[NamedRepo]) -> list[bool]:
        """For each Repo, whether `who` may see it; several questions to a forge are asked at once."""
        if not who.of_forge or len(repos) < 2:
            return [self.may(who, repo, Scope.READ) for repo in repos]
        with ThreadPoolExecutor(min(ASKING, len(repos)), "asking") as pool:
            return list(pool.map(lambda repo: self.may(who, repo, Scope.READ), repos))

    def permission(self, person: Person, owner: str, name: str, *, now: bool = False) -> Permission:
        """What the forge lets a person do with a repo; `now` asks at this moment. Raises ForgeUnavailableError."""
        return self._permission(person, owner, name, *((0.0, 0.0) if now else (FRESH_SECONDS, OLD_SECONDS)))

    def _permission(self, person: Person, owner: str, name: str, fresh: float, old: float) -> Permission:
        """An answer younger than `fresh` seconds, or than `old` while the forge is away."""
        key = (person.forge, person.subject, person.login.casefold(), owner, name)
        with self._lock:
            kept = self._answers.get(key)
        age = self._clock() - kept.at if kept is not None else 0.0
        if kept is not None and age < fresh:
            return kept.permission
        try:
            permission = self._ask(person, owner, name)
        except ForgeUnavailableError as error:
            if kept is not None and age < old:
                return kept.permission
            log.warning(
                "a forge cannot be asked what a person may do",
                forge=person.forge, repo=f"{owner}/{name}", person=person.login, error=error.detail,
            )  # fmt: skip
            # Without the repo's name and what the forge said of it: they may not be allowed to know of it.
            raise ForgeUnavailableError(
                f"{person.forge} cannot be asked what {person.login} may do there; come back when it answers"
            ) from None
        with self._lock:
            self._answers[key] = _Answer(permission, self._clock())
            self._answers.move_to_end(key)
            while len(self._answers) > MAX_ANSWERS:
                self._answers.popitem(last=False)
        return permission

    def _ask(self, person: Person, owner: str, name: str) -> Permission:
        forge = self._forges.get(person.forge)
        if forge is None:
            return Permission.NONE
        try:
            return forge.permission(owner, name, person.login, person.subject)
        except ForgeUnavailableError:
            raise
        except ForgeError as error:
            log.warning(
                "a forge does not say what a person may do, so they may do nothing",
                forge=person.forge, repo=f"{owner}/{name}", person=person.login, error=error.detail,
            )  # fmt: skip
            return Permission.NONE
