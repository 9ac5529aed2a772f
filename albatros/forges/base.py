"""What every forge can do. A forge's base URL comes from the settings and the repo's name, never from a payload."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from albatros.domain.inbound import Head, Inbound, Pull, RepoInfo
from albatros.domain.states import BuildState


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
    ref: str = ""
    """What was built of it, for forges that keep statuses by ref; empty where it is no ref."""


class Permission(StrEnum):
    """What a person may do with a repo on its forge; each holds the ones before it."""

    NONE = "none"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def covers(self, needed: Permission) -> bool:
        """True when this permission reaches as far as `needed`."""
        order = list(Permission)
        return order.index(self) >= order.index(needed)


class Permissions(Protocol):
    """A forge that knows people."""

    def permission(self, owner: str, name: str, login: str, subject: str = "") -> Permission:
        """What a person may do with a repo now; NONE when either is not there. Raises as the methods of a Forge do.

        `subject` is the forge's own id of them, where it is known: somebody else who got their login since has NONE.
        """
        ...


class HookState(StrEnum):
    """How a repo's webhook to this server stands."""

    READY = "ready"
    """It is there and tells everything; whether its secret is right cannot be read back from most forges."""
    DIFFERS = "differs"
    """It is there, and something of it keeps pushes from arriving."""
    MISSING = "missing"
    """Nothing at the forge points here."""


@dataclass(frozen=True, slots=True)
class Hook:
    """How a repo's webhook stands, and in a sentence what differs or what was done about it."""

    state: HookState
    text: str


class Hooks(Protocol):
    """A forge whose webhooks can be managed. `url` is this server's webhook address for the forge.

    Methods raise ForgeError, with what to do by hand, or ForgeUnavailableError.
    """

    def look(self, owner: str, name: str, url: str) -> Hook:
        """How the webhook stands."""
        ...

    def ensure(self, owner: str, name: str, url: str) -> Hook:
        """Make the webhook, or make it what it has to be, with the secret of the settings; READY, and what was done."""
        ...

    def remove(self, owner: str, name: str, url: str) -> Hook:
        """Take away every webhook that points here; MISSING, and what was done."""
        ...

    def ring(self, owner: str, name: str, url: str) -> bool:
        """Have the forge send a delivery now; False where it cannot be asked for one."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """Who logged in: `subject` is the forge's own id of them, which stays when their name changes."""

    subject: str
    login: str


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """What belongs to one login (RFC 6749, RFC 7636, OpenID Connect Core): each is made anew, and hard to guess."""

    redirect_uri: str
    state: str
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)


class Login(Protocol):
    """A forge that people log in with."""

    @property
    def issuer(self) -> str:
        """How it names itself in what it answers (RFC 9207, `iss`)."""
        ...

    def address(self, attempt: LoginAttempt) -> str:
        """Where the browser is sent, to ask the person there."""
        ...

    def identify(self, attempt: LoginAttempt, code: str) -> Identity:
        """Who came back with this code. Raises UnauthorizedError, ForgeError or ForgeUnavailableError."""
        ...


class Forge(Protocol):
    """One configured forge. Methods that go over the network raise ForgeError or ForgeUnavailableError."""

    @property
    def name(self) -> str:
        """Its name in the settings and in /webhooks/NAME."""
        ...

    @property
    def reads_disk(self) -> bool:
        """Its repositories lie on this machine, and `parse` looks at them."""
        ...

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        """Check the signature over the raw body in constant time; raise UnauthorizedError. Header names are lower."""
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
        """Every branch and tag with the commit it points to, without the heads of pull requests."""
        ...

    def head(self, owner: str, name: str, ref: str) -> Head | None:
        """The commit that a branch, tag or open pull request's head points to; None when the repo has no such ref."""
        ...

    def clone_source(self, owner: str, name: str, *, credential: bool = True) -> CloneSource:
        """The address for a runner, and if it is to have one, a credential that reaches no further than it must."""
        ...

    def post_status(self, owner: str, name: str, status: CommitStatus) -> None:
        """Make the commit show this status under its context, whatever it showed before."""
        ...


class Pulls(Protocol):
    """Pull requests as the forge has them now. Raises as the methods of a Forge do."""

    def pull(self, owner: str, name: str, number: int) -> Pull | None:
        """One pull request, open or closed; None when the repo has none of that number."""
        ...

    def open_pulls(self, owner: str, name: str) -> Iterable[Pull]:
        """Every open pull request."""
        ...


class ForgeAdapter(Forge, Permissions, Pulls, Protocol):
    """All that one configured forge can do."""


_WORDS = {
    BuildState.WAITING_APPROVAL: "pending",
    BuildState.QUEUED: "pending",
    BuildState.EVALUATING: "pending",
    BuildState.RUNNING: "pending",
    BuildState.PUBLISHING: "pending",
    BuildState.SUCCEEDED: "success",
    BuildState.FAILED: "failure",
    BuildState.ERRORED: "error",
    BuildState.CANCELLED: "error",
    BuildState.SUPERSEDED: "error",
    # Not `skipped`: a check that a merge requires must not hold it up (gitea#36895), and older versions lack the word.
    BuildState.SKIPPED: "success",
}


def status_word(state: BuildState) -> str:
    """The word of Gitea's and GitHub's commit-status API for a state (Gitea: `CommitStatusState`)."""
    return _WORDS[state]
