"""What a forge tells: repos, heads that moved, and a webhook once it is verified and read."""

from __future__ import annotations

from dataclasses import dataclass

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
