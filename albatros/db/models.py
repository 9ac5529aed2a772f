"""The tables. Invariants are constraints here: what must be unique or consistent is refused by the database itself."""

from __future__ import annotations

import warnings
from datetime import datetime
from enum import StrEnum

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Enum,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.exc import SAWarning
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from albatros.domain.states import AttemptState, BuildState, JobKind, JobState, PublicationState, Reason, Trigger

# A column named `registry` hides the class's own `registry`, which nothing here reads.
warnings.filterwarnings("ignore", message="Attribute name 'registry' should be left reserved", category=SAWarning)

BigId = BigInteger().with_variant(Integer, "sqlite")
ShortText = String(255)
LongText = Text


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def _enum(kind: type[StrEnum]) -> Enum:
    """A string column that holds an enum's values; new members need no migration of a database type."""
    return Enum(kind, native_enum=False, length=32, values_callable=lambda members: [m.value for m in members])


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
    __table_args__ = (UniqueConstraint("forge", "delivery_id"), Index(None, "received_at"))

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    forge: Mapped[str] = mapped_column(ShortText)
    delivery_id: Mapped[str] = mapped_column(ShortText)
    event: Mapped[str] = mapped_column(ShortText)
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    repo_id: Mapped[int | None] = mapped_column(ForeignKey("repos.id"))
    reason: Mapped[str] = mapped_column(LongText, default="")
    """Why it made no Build; empty when it made one."""
    received_at: Mapped[datetime]


class RefHead(Base):
    """The newest commit known of (repo, ref, flavor). Its sequence only grows; a Build is made when the commit moves."""

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


class Build(Base):
    """One commit to be built."""

    __tablename__ = "builds"
    __table_args__ = (
        UniqueConstraint("repo_id", "number"),
        Index(None, "repo_id", "ref", "id"),
        Index(None, "repo_id", "commit"),
        Index("ix_builds_open", "state", postgresql_where=text("ended_at IS NULL"), sqlite_where=text("ended_at IS NULL")),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id"))
    number: Mapped[int]
    ref: Mapped[str] = mapped_column(String(1024))
    commit: Mapped[str] = mapped_column(String(64))
    flavor: Mapped[str] = mapped_column(ShortText, default="")
    sequence: Mapped[int] = mapped_column(BigInteger)
    """Its place among the Builds of its ref: a tag only ever moves to a higher one."""
    trigger: Mapped[Trigger] = mapped_column(_enum(Trigger))
    trusted: Mapped[bool]
    author: Mapped[str] = mapped_column(ShortText, default="")
    title: Mapped[str] = mapped_column(ShortText, default="")
    state: Mapped[BuildState] = mapped_column(_enum(BuildState))
    reason: Mapped[Reason | None] = mapped_column(_enum(Reason))
    message: Mapped[str] = mapped_column(LongText, default="")
    commit_time: Mapped[int | None] = mapped_column(BigInteger)
    """Unix seconds, as evaluation reported it: `created` of its images."""
    config: Mapped[str | None] = mapped_column(LongText)
    """The `.albatros.toml` in force, as text."""
    delivery_id: Mapped[int | None] = mapped_column(ForeignKey("deliveries.id"), index=True)
    rerun_of: Mapped[int | None] = mapped_column(ForeignKey("builds.id"))
    assembled: Mapped[bool] = mapped_column(default=False)
    """Its Images and Publications are rows."""
    not_before: Mapped[datetime | None]
    """The publisher leaves it alone until then, after a try at assembling that may be repeated."""
    holder: Mapped[str | None] = mapped_column(String(64))
    """The server that assembles its images."""
    lease_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]

    repo: Mapped[Repo] = relationship(lazy="joined", innerjoin=True)


class Job(Base):
    """One derivation of a Build on one system, or its evaluation. One derivation has one Job, whatever attributes name it."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("build_id", "key"),
        Index("ix_jobs_open", "state", "id", postgresql_where=text("ended_at IS NULL"), sqlite_where=text("ended_at IS NULL")),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    build_id: Mapped[int] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"))
    kind: Mapped[JobKind] = mapped_column(_enum(JobKind))
    key: Mapped[str] = mapped_column(String(1024))
    """The drvPath; `evaluation`; or `attribute:NAME` for one that does not evaluate."""
    drv_path: Mapped[str | None] = mapped_column(String(1024))
    system: Mapped[str] = mapped_column(ShortText)
    """The derivation's own system, which places it; empty for an evaluation, which runs anywhere."""
    name: Mapped[str] = mapped_column(ShortText)
    attributes: Mapped[list[str]] = mapped_column(JSON)
    state: Mapped[JobState] = mapped_column(_enum(JobState))
    reason: Mapped[Reason | None] = mapped_column(_enum(Reason))
    message: Mapped[str] = mapped_column(LongText, default="")
    not_before: Mapped[datetime | None]
    """The next Attempt waits until then, after an infrastructure failure."""
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]

    build: Mapped[Build] = relationship(lazy="joined", innerjoin=True)


class JobEdge(Base):
    """`job` needs `needs`: it waits until that one succeeded."""

    __tablename__ = "job_edges"

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    needs_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, index=True)


_OPEN_ATTEMPT = text("state IN ('submitting', 'submitted', 'claimed')")


class Attempt(Base):
    """One try at a Job. At most one is open for a Job, and a closed one never opens again."""

    __tablename__ = "attempts"
    __table_args__ = (
        UniqueConstraint("job_id", "number"),
        Index("uq_attempts_open", "job_id", unique=True, postgresql_where=_OPEN_ATTEMPT, sqlite_where=_OPEN_ATTEMPT),
        Index("ix_attempts_state", "state", postgresql_where=_OPEN_ATTEMPT, sqlite_where=_OPEN_ATTEMPT),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    """A UUID: the executor's idempotency token."""
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]
    state: Mapped[AttemptState] = mapped_column(_enum(AttemptState))
    reason: Mapped[Reason | None] = mapped_column(_enum(Reason))
    message: Mapped[str] = mapped_column(LongText, default="")
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    nonce: Mapped[str | None] = mapped_column(String(64))
    """Of the runner that claimed it: only that one is heard."""
    executor: Mapped[str] = mapped_column(ShortText)
    executor_ref: Mapped[str] = mapped_column(ShortText, default="")
    host: Mapped[str] = mapped_column(ShortText, default="")
    lease_until: Mapped[datetime | None]
    stop: Mapped[str | None] = mapped_column(String(32))
    """What the next heartbeat is told: cancelled, superseded or handback."""
    nix_version: Mapped[str] = mapped_column(ShortText, default="")
    result: Mapped[dict[str, object] | None] = mapped_column(JSON)
    log_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    uploaded_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    log_digest: Mapped[str | None] = mapped_column(String(80))
    """The sealed log in the store; None while its pieces are rows."""
    created_at: Mapped[datetime]
    claimed_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]

    job: Mapped[Job] = relationship(lazy="joined", innerjoin=True)


class LogPiece(Base):
    """A numbered piece of an Attempt's log, until the log is sealed."""

    __tablename__ = "log_pieces"

    attempt_id: Mapped[str] = mapped_column(ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    offset: Mapped[int] = mapped_column(BigInteger)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class Blob(Base):
    """A blob in the store. The row comes after the bytes; the collector takes the row before the bytes."""

    __tablename__ = "blobs"

    digest: Mapped[str] = mapped_column(String(80), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    touched_at: Mapped[datetime] = mapped_column(index=True)
    """Last time something said that it will use it: the collector leaves young ones alone."""


class RepoBlob(Base):
    """A blob that a Repo may be told exists, since it uploaded or made it itself."""

    __tablename__ = "repo_blobs"

    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id"), primary_key=True)
    digest: Mapped[str] = mapped_column(ForeignKey("blobs.digest", ondelete="CASCADE"), primary_key=True, index=True)


class Artifact(Base):
    """A file of a Job's output, kept for download."""

    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("job_id", "output", "path"), Index(None, "digest"))

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    output: Mapped[str] = mapped_column(ShortText)
    path: Mapped[str] = mapped_column(String(1024))
    kind: Mapped[str] = mapped_column(String(32))
    """What the runner called it; nothing is decided by it without looking at the bytes."""
    digest: Mapped[str] = mapped_column(String(80))
    size: Mapped[int] = mapped_column(BigInteger)
    executable: Mapped[bool]
    store_path: Mapped[str] = mapped_column(String(1024))
    nar_hash: Mapped[str] = mapped_column(ShortText)
    closure_digest: Mapped[str | None] = mapped_column(String(80))
    """A blob: the closure as the runner reported it, JSON."""
    created_at: Mapped[datetime]

    job: Mapped[Job] = relationship(lazy="joined", innerjoin=True)


class Image(Base):
    """The container form of a Build: one OCI index, whose manifests and blobs are in the store."""

    __tablename__ = "images"
    __table_args__ = (UniqueConstraint("build_id", "name"), Index(None, "digest"))

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    build_id: Mapped[int] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(ShortText)
    """As the flake or `.albatros.toml` names it: `hello`."""
    digest: Mapped[str] = mapped_column(String(80))
    size: Mapped[int] = mapped_column(BigInteger)
    platforms: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime]

    build: Mapped[Build] = relationship(lazy="joined", innerjoin=True)


class ImageBlob(Base):
    """A blob that an Image needs: keeps it from the collector."""

    __tablename__ = "image_blobs"

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[str] = mapped_column(String(80), primary_key=True, index=True)


class CachedLayer(Base):
    """What a layer's uncompressed bytes became under one codec, known per Repo."""

    __tablename__ = "cached_layers"

    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id"), primary_key=True)
    diff_id: Mapped[str] = mapped_column(String(80), primary_key=True)
    codec: Mapped[str] = mapped_column(String(64), primary_key=True)
    digest: Mapped[str] = mapped_column(String(80), index=True)
    size: Mapped[int] = mapped_column(BigInteger)


_PUSHING = text("state = 'pushing'")


class Publication(Base):
    """One Image at one Registry under one tag. At most one push of a (registry, name, tag) is under way."""

    __tablename__ = "publications"
    __table_args__ = (
        UniqueConstraint("image_id", "registry", "tag"),
        Index("uq_publications_pushing", "registry", "name", "tag", unique=True, postgresql_where=_PUSHING, sqlite_where=_PUSHING),
        Index("ix_publications_due", "state", "next_try_at"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"))
    registry: Mapped[str] = mapped_column(ShortText)
    name: Mapped[str] = mapped_column(ShortText)
    """The image's name relative to the registry's URL."""
    tag: Mapped[str] = mapped_column(String(128))
    required: Mapped[bool]
    state: Mapped[PublicationState] = mapped_column(_enum(PublicationState))
    reason: Mapped[Reason | None] = mapped_column(_enum(Reason))
    message: Mapped[str] = mapped_column(LongText, default="")
    tries: Mapped[int] = mapped_column(default=0)
    next_try_at: Mapped[datetime]
    holder: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None]
    bytes_sent: Mapped[int] = mapped_column(BigInteger, default=0)
    bytes_skipped: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]

    image: Mapped[Image] = relationship(lazy="joined", innerjoin=True)


class TagHead(Base):
    """For which place of which ref a (registry, name, tag) was last moved: it never goes back."""

    __tablename__ = "tag_heads"

    registry: Mapped[str] = mapped_column(ShortText, primary_key=True)
    name: Mapped[str] = mapped_column(ShortText, primary_key=True)
    tag: Mapped[str] = mapped_column(String(128), primary_key=True)
    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id"))
    ref: Mapped[str] = mapped_column(String(1024))
    sequence: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(80))
    updated_at: Mapped[datetime]


class StatusReport(Base):
    """The state a commit should show on its forge under one context; delivered when `sent` has caught up with `version`."""

    __tablename__ = "status_reports"
    __table_args__ = (
        UniqueConstraint("repo_id", "commit", "context"),
        CheckConstraint("sent <= version", name="sent_is_known"),
        Index("ix_status_reports_due", "next_try_at", postgresql_where=text("sent < version"), sqlite_where=text("sent < version")),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id"))
    commit: Mapped[str] = mapped_column(String(64))
    context: Mapped[str] = mapped_column(ShortText)
    build_id: Mapped[int] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"))
    state: Mapped[BuildState] = mapped_column(_enum(BuildState))
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


class Token(Base):
    """An API token, stored as the SHA-256 of its 256 random bits."""

    __tablename__ = "tokens"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(ShortText, unique=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    scope: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class Counter(Base):
    """A named count that survives restarts, such as refused deliveries."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(ShortText, primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger, default=0)
