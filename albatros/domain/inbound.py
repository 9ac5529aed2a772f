"""What a forge tells: repos, heads that moved, pull requests, and a webhook once it is verified and read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from albatros.domain.refs import is_commit
from albatros.domain.states import Trigger


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
class Head:
    """The commit that a branch or tag points to, peeled, with what people wrote about it."""

    commit: str
    author: str = ""
    title: str = ""
    skip: bool = False
    """The commit's message asks for no build."""


@dataclass(frozen=True, slots=True)
class Pull:
    """A pull request (on GitLab: merge request) of a repo, as its forge has it."""

    number: int
    ref: str
    """Where the repo itself keeps the head: `refs/pull/7/head`."""
    commit: str
    """The newest commit of the head."""
    branch: str
    """The head's branch in its own repo; empty when it has none."""
    label: str
    """The head for people: `alice/hello:feature`."""
    from_fork: bool
    """The head lives in another repo, or that is not known."""
    author: str
    title: str
    base_ref: str
    """The branch it asks to be merged into, as a whole ref."""
    base_commit: str | None = None
    """That branch's commit."""
    open: bool = True


class PullAction(StrEnum):
    """What happened to a pull request."""

    OPENED = "opened"
    NEW_HEAD = "new head"
    REOPENED = "reopened"
    CLOSED = "closed"
    LABELLED = "labelled"


@dataclass(frozen=True, slots=True)
class PullEvent:
    """Something that `sender`, a login, did to a pull request."""

    action: PullAction
    sender: str
    pull: Pull
    now: Pull | None = None
    """As the forge has it when it is asked; None when that was not, or could not be."""
    head_ref: str = ""
    """Where the repo keeps its head: one of its own branches, or the pull request's ref."""


class Command(StrEnum):
    """What a comment on a pull request may ask for."""

    APPROVE = "approve"
    RERUN = "rerun"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class CommentCommand:
    """A command in a new comment on a pull request; `author` is the login of who wrote it."""

    command: Command
    comment: str
    """The comment's id on its forge: a command is obeyed once, however often its webhook is sent."""
    author: str
    pull: int
    commit: str = ""
    """What /approve names, in full."""


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
    pull: Pull | None = None
    needs_approval: bool = False
    skip: bool = False
    """The message of the newest commit asks for no build."""
    paths: tuple[str, ...] | None = None
    """What changed since `before`; None when that is not known."""


@dataclass(frozen=True, slots=True)
class Inbound:
    """A webhook, verified and read.

    What a `pull` or a `command` leads to depends on what its forge answers. Without them and without `moves`, `ignored`
    says why there is nothing to build.
    """

    delivery_id: str
    event: str
    repo: RepoInfo | None
    moves: tuple[HeadMoved, ...] = ()
    ignored: str = ""
    pull: PullEvent | None = None
    command: CommentCommand | None = None
    flavor: str = ""
    """What the webhook's address asks to have built of the commit; each flavor has heads of its own."""

    def of_flavor(self, flavor: str) -> Inbound:
        """The same for a flavor: a forge may give what it sends to several addresses one id."""
        return replace(self, flavor=flavor, delivery_id=f"{self.delivery_id}?flavor={flavor}") if flavor else self


def read_command(text: str) -> tuple[Command, str] | None:
    """The command that a comment's first line is, with the commit that it names: `/rerun`, `/approve FULL_SHA`."""
    words = text[:1000].strip().split("\n", 1)[0].split()
    match words:
        case ["/rerun"]:
            return Command.RERUN, ""
        case ["/cancel"]:
            return Command.CANCEL, ""
        case ["/approve", commit] if is_commit(commit.lower()):
            return Command.APPROVE, commit.lower()
        case _:
            return None
