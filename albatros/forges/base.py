"""What every forge can do, and the values it speaks in. A forge's base URL comes from the settings, never from a payload."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from albatros.domain.states import BuildState, Trigger

ZERO_COMMIT = "0" * 40


@dataclass(frozen=True, slots=True)
class RepoInfo:
    """A git project as its forge describes it."""

    owner: str
    name: str
    private: bool
    default_branch: str

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True, slots=True)
class HeadMoved:
    """A ref that points elsewhere now; `after` is None when it was deleted, `before` when it is new or not known."""

    ref: str
    before: str | None
    after: str | None
    trigger: Trigger
    author: str = ""
    title: str = ""
    trusted: bool = True


@dataclass(frozen=True, slots=True)
class Inbound:
    """A webhook, verified and read. Without `moves`, `ignored` says why there is nothing to build."""

    delivery_id: str
    event: str
    repo: RepoInfo | None
    moves: tuple[HeadMoved, ...] = ()
    ignored: str = ""


@dataclass(frozen=True, slots=True)
class CloneSource:
    """Where a runner clones from, with a credential that reaches no further than it must."""

    url: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """What a commit shows under one context."""

    commit: str
    context: str
    state: BuildState
    description: str
    target_url: str


class Forge(Protocol):
    """One configured forge. Methods that go over the network raise ForgeError or ForgeUnavailableError."""

    @property
    def name(self) -> str:
        """Its name in the settings and in /webhooks/NAME."""
        ...

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        """Check the signature over the raw body in constant time; raise UnauthorizedError. Header names are lower case."""
        ...

    def parse(self, headers: Mapping[str, str], body: bytes) -> Inbound:
        """Read a verified webhook; raise BadInputError for what cannot be read."""
        ...

    def describe(self, owner: str, name: str) -> RepoInfo:
        """Ask the forge about a repo; raise NotFoundError when it has none of that name."""
        ...

    def repos(self) -> Iterable[RepoInfo]:
        """Repos that the forge itself can list without being asked for one by name; may be none."""
        ...

    def heads(self, owner: str, name: str) -> Mapping[str, str]:
        """Every branch and tag with the commit it points to."""
        ...

    def clone_source(self, owner: str, name: str) -> CloneSource:
        """The address and credential for a runner."""
        ...

    def post_status(self, owner: str, name: str, status: CommitStatus) -> None:
        """Make the commit show this status under its context, whatever it showed before."""
        ...
