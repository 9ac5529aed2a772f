"""What the server tells and counts: commit statuses, events, people, API tokens, secrets, counters."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from albatros.db.models.base import Base, BigId, LongText, ShortText, enum_column
from albatros.db.models.inbox import Repo
from albatros.domain.states import BuildState


class StatusReport(Base):
    """What a commit should show on its forge under one context; delivered once `sent` is `version`."""

    __tablename__ = "status_reports"
    __table_args__ = (
        UniqueConstraint("repo_id", "commit", "context"),
        CheckConstraint("sent <= version", name="sent_is_known"),
        Index(
            "ix_status_reports_due",
            "next_try_at",
            postgresql_where=text("sent < version"),
            sqlite_where=text("sent < version"),
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id"))
    commit: Mapped[str] = mapped_column(String(64))
    context: Mapped[str] = mapped_column(ShortText)
    build_id: Mapped[int] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), index=True)
    state: Mapped[BuildState] = mapped_column(enum_column(BuildState))
    description: Mapped[str] = mapped_column(ShortText)
    target_path: Mapped[str] = mapped_column(ShortText)
    version: Mapped[int] = mapped_column(default=1)
    sent: Mapped[int] = mapped_column(default=0)
    tries: Mapped[int] = mapped_column(default=0)
    error: Mapped[str] = mapped_column(LongText, default="")
    next_try_at: Mapped[datetime]
    holder: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None]

    repo: Mapped[Repo] = relationship(lazy="joined", innerjoin=True)


class Event(Base):
    """Something that happened, for whoever watches; the id is the SSE event id."""

    __tablename__ = "events"
    # A watcher resumes after the last id it saw, so an id must never be given out twice.
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    kind: Mapped[str] = mapped_column(String(64))
    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id"))
    build_id: Mapped[int] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"), index=True)
    data: Mapped[dict[str, object]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(index=True)


class Person(Base):
    """Somebody who logged in with a forge. They are known by the forge's own id: names change hands."""

    __tablename__ = "people"
    __table_args__ = (UniqueConstraint("forge", "subject"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    forge: Mapped[str] = mapped_column(ShortText)
    subject: Mapped[str] = mapped_column(ShortText)
    login: Mapped[str] = mapped_column(ShortText, index=True)
    """Their name on the forge at their last login; empty when somebody else has logged in under it since."""
    sessions: Mapped[int] = mapped_column(default=1)
    """Cookies of an earlier number are over: every logout counts it up."""
    created_at: Mapped[datetime]
    logged_in_at: Mapped[datetime]


class Operator(Base):
    """Who first logged in under a name while the configuration said that it is an operator's; later ones are others."""

    __tablename__ = "operators"

    forge: Mapped[str] = mapped_column(ShortText, primary_key=True)
    login: Mapped[str] = mapped_column(ShortText, primary_key=True)
    """With its case folded."""
    subject: Mapped[str] = mapped_column(ShortText)
    created_at: Mapped[datetime]


_OF_SERVER = text("person_id IS NULL")


class Token(Base):
    """An API token, stored as the SHA-256 of its 256 random bits."""

    __tablename__ = "tokens"
    __table_args__ = (
        Index("uq_tokens_name", "name", unique=True, postgresql_where=_OF_SERVER, sqlite_where=_OF_SERVER),
        Index("uq_tokens_person_id_name", "person_id", "name", unique=True),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(ShortText)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    scope: Mapped[str] = mapped_column(String(16))
    bound: Mapped[str] = mapped_column(String(640), default="")
    """`FORGE[/OWNER[/NAME]]` that it is for; empty: not narrowed."""
    person_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"))
    """Who made it: it never reaches further than they do at the moment; None: it was made on the server's machine."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]

    person: Mapped[Person | None] = relationship(lazy="joined")


class Secret(Base):
    """A value that Builds of a repo, an owner or the whole server may be given, encrypted by `db/keyring.py`."""

    __tablename__ = "secrets"
    __table_args__ = (UniqueConstraint("forge", "owner", "repo", "name"), Index(None, "key_id"))

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    forge: Mapped[str] = mapped_column(ShortText)
    """With `owner` and `repo`: whose it is. Empty ones mean all of them, and no row of a repo need be there yet."""
    owner: Mapped[str] = mapped_column(ShortText)
    repo: Mapped[str] = mapped_column(ShortText)
    name: Mapped[str] = mapped_column(ShortText)
    refs: Mapped[list[str]] = mapped_column(JSON)
    """Globs of refs whose Builds are given it; empty: all."""
    key_id: Mapped[str] = mapped_column(String(16))
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class KnownKey(Base):
    """What tells a thing that every server on this database has from another one: a key, never the key itself."""

    __tablename__ = "known_keys"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Of the file in the directory of keys; `store` for the blob store, whose identity is its fingerprint."""
    fingerprint: Mapped[str] = mapped_column(String(64))


class Counter(Base):
    """A named count that survives restarts, such as refused deliveries."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(ShortText, primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger, default=0)
