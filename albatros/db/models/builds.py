"""What is built: Builds, their Jobs with the edges between them, Attempts at them, and their logs."""

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
from sqlalchemy.orm import Mapped, mapped_column, relationship

from albatros.db.models.base import Base, BigId, LongText, ShortText, enum_column
from albatros.db.models.inbox import Repo
from albatros.domain.states import AttemptState, BuildState, JobKind, JobState, Reason, Trigger

_NEW_MERGE = text("merge_into IS NOT NULL AND rerun_of IS NULL")


class Build(Base):
    """One commit to be built, or its merge with another."""

    __tablename__ = "builds"
    __table_args__ = (
        UniqueConstraint("repo_id", "number"),
        Index(None, "repo_id", "ref", "id"),
        Index(None, "repo_id", "commit"),
        Index(
            "ix_builds_pull",
            "repo_id",
            "pull",
            postgresql_where=text("pull IS NOT NULL"),
            sqlite_where=text("pull IS NOT NULL"),
        ),
        Index(
            "uq_builds_merge",
            "repo_id",
            "ref",
            "sequence",
            unique=True,
            postgresql_where=_NEW_MERGE,
            sqlite_where=_NEW_MERGE,
        ),
        Index(
            "ix_builds_open_ref",
            "repo_id",
            "ref",
            "sequence",
            postgresql_where=text("ended_at IS NULL"),
            sqlite_where=text("ended_at IS NULL"),
        ),
        Index(
            "ix_builds_open", "state", postgresql_where=text("ended_at IS NULL"), sqlite_where=text("ended_at IS NULL")
        ),
        Index(
            "ix_builds_strangers",
            "id",
            postgresql_where=text("ended_at IS NULL AND NOT trusted"),
            sqlite_where=text("ended_at IS NULL AND trusted = 0"),
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id"))
    number: Mapped[int]
    ref: Mapped[str] = mapped_column(String(1024))
    commit: Mapped[str] = mapped_column(String(64))
    flavor: Mapped[str] = mapped_column(ShortText, default="")
    sequence: Mapped[int] = mapped_column(BigInteger)
    """Its place among the Builds of its ref: a tag only ever moves to a higher one."""
    trigger: Mapped[Trigger] = mapped_column(enum_column(Trigger))
    trusted: Mapped[bool]
    """Whoever made the commit may push to the Repo; without it: no secret, no credential, no publication."""
    pull: Mapped[int | None]
    """The number of the pull request that it is for."""
    from_fork: Mapped[bool] = mapped_column(default=False)
    head_label: Mapped[str] = mapped_column(ShortText, default="")
    """The pull request's head for people: `alice/hello:feature`."""
    base_commit: Mapped[str | None] = mapped_column(String(64))
    """Whose `.albatros.toml` holds when the Build itself is not trusted; and what `commit` is merged with."""
    merge_into: Mapped[str | None] = mapped_column(String(1024))
    """The branch, as a whole ref, that `base_commit` is of, for a merge result; None for `commit` alone."""
    needs_approval: Mapped[bool] = mapped_column(default=False)
    """It runs only once a person who may push to the Repo has approved its commit."""
    approved_by: Mapped[str] = mapped_column(ShortText, default="")
    """Who did."""
    author: Mapped[str] = mapped_column(ShortText, default="")
    title: Mapped[str] = mapped_column(ShortText, default="")
    state: Mapped[BuildState] = mapped_column(enum_column(BuildState))
    reason: Mapped[Reason | None] = mapped_column(enum_column(Reason))
    message: Mapped[str] = mapped_column(LongText, default="")
    commit_time: Mapped[int | None] = mapped_column(BigInteger)
    """Unix seconds, as evaluation reported it: `created` of its images."""
    config: Mapped[str | None] = mapped_column(LongText)
    """The `.albatros.toml` in force, as text."""
    changed_paths: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """What its push changed; None when that is not known."""
    delivery_id: Mapped[int | None] = mapped_column(ForeignKey("deliveries.id"), index=True)
    rerun_of: Mapped[int | None] = mapped_column(ForeignKey("builds.id"), index=True)
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
    """One derivation of a Build on one system, whatever attributes name it; or the evaluation."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("build_id", "key"),
        Index(
            "ix_jobs_open",
            "state",
            "id",
            postgresql_where=text("ended_at IS NULL"),
            sqlite_where=text("ended_at IS NULL"),
        ),
        Index(
            "ix_jobs_placed",
            "state",
            "kind",
            "system",
            "build_id",
            "id",
            postgresql_where=text("ended_at IS NULL"),
            sqlite_where=text("ended_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    build_id: Mapped[int] = mapped_column(ForeignKey("builds.id", ondelete="CASCADE"))
    kind: Mapped[JobKind] = mapped_column(enum_column(JobKind))
    key: Mapped[str] = mapped_column(String(1024))
    """The drvPath; `evaluation`; or `attribute:NAME` for one that does not evaluate."""
    drv_path: Mapped[str | None] = mapped_column(String(1024))
    system: Mapped[str] = mapped_column(ShortText)
    """The derivation's own system, which places it; empty for an evaluation, which runs anywhere."""
    name: Mapped[str] = mapped_column(ShortText)
    attributes: Mapped[list[str]] = mapped_column(JSON)
    state: Mapped[JobState] = mapped_column(enum_column(JobState))
    reason: Mapped[Reason | None] = mapped_column(enum_column(Reason))
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
        Index(
            "ix_attempts_open",
            "state",
            "executor",
            postgresql_where=text("ended_at IS NULL"),
            sqlite_where=text("ended_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    """A UUID: the executor's idempotency token."""
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    number: Mapped[int]
    state: Mapped[AttemptState] = mapped_column(enum_column(AttemptState))
    reason: Mapped[Reason | None] = mapped_column(enum_column(Reason))
    message: Mapped[str] = mapped_column(LongText, default="")
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    nonce: Mapped[str | None] = mapped_column(String(64))
    """Of the runner that claimed it: only that one is heard."""
    executor: Mapped[str] = mapped_column(ShortText)
    executor_ref: Mapped[str] = mapped_column(ShortText, default="")
    host: Mapped[str] = mapped_column(ShortText, default="")
    allocation: Mapped[str] = mapped_column(String(64), default="")
    """Where its runner says it runs, in the executor's words; empty beside the server."""
    placement: Mapped[dict[str, object] | None] = mapped_column(JSON(none_as_null=True))
    """What its executor said last of where it is, for people."""
    lease_until: Mapped[datetime | None]
    stop: Mapped[str | None] = mapped_column(String(32))
    """What the next heartbeat is told: cancelled, superseded or handback."""
    nix_version: Mapped[str] = mapped_column(ShortText, default="")
    result: Mapped[dict[str, object] | None] = mapped_column(JSON)
    log_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    uploaded_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    log_digest: Mapped[str | None] = mapped_column(String(80), index=True)
    """The sealed log in the store; None while its pieces are rows."""
    created_at: Mapped[datetime]
    claimed_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]

    job: Mapped[Job] = relationship(lazy="joined", innerjoin=True)


class BuilderRun(Base):
    """How far an Attempt of a builder is followed, and by which server: the engine alone tells of it."""

    __tablename__ = "builder_runs"

    attempt_id: Mapped[str] = mapped_column(ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True)
    holder: Mapped[str | None] = mapped_column(String(64))
    """The server that follows it."""
    lease_until: Mapped[datetime | None]
    revision: Mapped[int] = mapped_column(default=0)
    """Goes up with each piece of log, so that none is kept twice."""
    allocation: Mapped[str] = mapped_column(ShortText, default="")
    """Where its log was read last."""
    streams: Mapped[dict[str, object]] = mapped_column(JSON)
    """How far each output of its program was read."""
    heard_at: Mapped[datetime | None]
    """When it last said something."""

    attempt: Mapped[Attempt] = relationship(lazy="joined", innerjoin=True)


class LogPiece(Base):
    """A numbered piece of an Attempt's log, until the log is sealed."""

    __tablename__ = "log_pieces"

    attempt_id: Mapped[str] = mapped_column(ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    offset: Mapped[int] = mapped_column(BigInteger)
    data: Mapped[bytes] = mapped_column(LargeBinary)
