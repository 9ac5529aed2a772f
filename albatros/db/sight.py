"""Which Repos a list may show, as a condition on a select."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, false, or_, true

from albatros.db.models import Repo
from albatros.domain.refs import RepoFilter


@dataclass(frozen=True, slots=True)
class Sight:
    """The public ones, those of one's own, or both; without some."""

    public: bool
    own: RepoFilter | None
    """Private ones too; None: nothing beyond the public ones."""
    without: frozenset[int] = frozenset()
    """Ids of Repos that turned out to be hidden."""

    def condition(self) -> ColumnElement[bool]:
        """What a select over `Repo` is narrowed by."""
        seen: list[ColumnElement[bool]] = [Repo.private.is_(False)] if self.public else []
        if self.own is not None:
            columns = ((Repo.forge, self.own.forge), (Repo.owner, self.own.owner), (Repo.name, self.own.name))
            seen.append(and_(true(), *(column == value for column, value in columns if value)))
        return and_(or_(false(), *seen), Repo.id.not_in(self.without) if self.without else true())


ALL = Sight(public=False, own=RepoFilter())
