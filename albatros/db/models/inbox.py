"""What comes in: Repos, Deliveries, and the newest commit of each ref."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from albatros.db.models.base import Base, BigId, LongText, ShortText


class Repo(Base):
    """One git project on a configured forge."""

    __tablename__ = "repos"
    __table_args__ = (UniqueConstraint("forge", "owner", "name"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    forge: Mapped[str] = mapped_column(ShortText)
    owner: Mapped[str] = mapped_column(ShortText)
    name: Mapped[str] = mapped_column(ShortText)
    private: Mapped[bool]
    default_branch: Mapped[str] = mapped_column(ShortText)
    allowed: Mapped[bool] = mapped_column(default=False)
    """Added by an operator with `albatros repo add`; the forge's own `repos` globs allow more."""
    heads_known: Mapped[bool] = mapped_column(default=False)
    """Its heads were compared with the forge's once: an unknown ref is a new one, not one from before Albatros."""
    next_number: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"


class Delivery(Base):
    """One inbound webhook (or one head found by the reconciler), kept as received."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("forge", "delivery_id"),
        Index(None, "received_at"),
        Index(
            "uq_deliveries_comment",
            "repo_id",
            "comment",
            unique=True,
            postgresql_where=text("comment IS NOT NULL"),
            sqlite_where=text("comment IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    forge: Mapped[str] = mapped_column(ShortText)
    delivery_id: Mapped[str] = mapped_column(ShortText)
    event: Mapped[str] = mapped_column(ShortText)
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    repo_id: Mapped[int | None] = mapped_column(ForeignKey("repos.id"))
    comment: Mapped[str | None] = mapped_column(String(64))
    """The id of the comment whose command it brought: one that is sent again is not obeyed again."""
    reason: Mapped[str] = mapped_column(LongText, default="")
    """Why it made no Build; empty when it made one."""
    received_at: Mapped[datetime]


class Schedule(Base):
    """A repo's timetable, as its newest evaluated Build of the default branch had it."""

    __tablename__ = "schedules"

    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id"), primary_key=True)
    ref: Mapped[str] = mapped_column(String(1024))
    """The default branch, with the place of the Build that it was read from: an older one changes nothing."""
    sequence: Mapped[int] = mapped_column(BigInteger)
    crons: Mapped[list[str]] = mapped_column(JSON)
    next_at: Mapped[datetime | None] = mapped_column(index=True)


class PullRequest(Base):
    """A pull request whose merge result may be built. A Build is made when a head or base moves away from the built."""

    __tablename__ = "pulls"
    __table_args__ = (
        UniqueConstraint("repo_id", "number"),
        Index(None, "repo_id", "head_ref"),
        Index(None, "repo_id", "base_ref"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id"))
    number: Mapped[int]
    ref: Mapped[str] = mapped_column(String(1024))
    """What the Builds of its merge results are of: `refs/pull/7/merge`."""
    head_ref: Mapped[str] = mapped_column(String(1024))
    """Whose RefHead has its head: a branch of the Repo, or `refs/pull/7/head`."""
    base_ref: Mapped[str] = mapped_column(String(1024))
    """Whose RefHead has its base."""
    label: Mapped[str] = mapped_column(ShortText)
    from_fork: Mapped[bool]
    author: Mapped[str] = mapped_column(ShortText)
    title: Mapped[str] = mapped_column(ShortText)
    open: Mapped[bool]
    built_head: Mapped[str | None] = mapped_column(String(64))
    """With `built_base`: the commits that the newest Build merges."""
    built_base: Mapped[str | None] = mapped_column(String(64))
    sequence: Mapped[int] = mapped_column(BigInteger, default=0)
    """Of the newest Build; only grows."""


class RefHead(Base):
    """The newest commit known of (repo, ref, flavor). Its sequence only grows; a Build is made when it moves."""

    __tablename__ = "ref_heads"
    __table_args__ = (UniqueConstraint("repo_id", "ref", "flavor"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id"))
    ref: Mapped[str] = mapped_column(String(1024))
    flavor: Mapped[str] = mapped_column(ShortText, default="")
    commit: Mapped[str | None] = mapped_column(String(64))
    """None: the ref was deleted."""
    sequence: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime]
