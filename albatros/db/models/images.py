"""What comes out: blobs, Artifacts, Images, and their Publications."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from albatros.db.models.base import Base, BigId, LongText, ShortText, enum_column
from albatros.db.models.builds import Build, Job
from albatros.domain.states import PublicationState, Reason


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
    closure_digest: Mapped[str | None] = mapped_column(String(80), index=True)
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


class ImageProof(Base):
    """A manifest that refers to an Image's index or manifests and is published with it: a bill of materials, say."""

    __tablename__ = "image_proofs"

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[str] = mapped_column(String(80), primary_key=True)


class ImageRequest(Base):
    """An image that a script asked to have published, until it is a Publication or cannot be one."""

    __tablename__ = "image_requests"
    __table_args__ = (
        UniqueConstraint("job_id", "key"),
        Index(
            "ix_image_requests_due",
            "id",
            postgresql_where=text("ended_at IS NULL"),
            sqlite_where=text("ended_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    key: Mapped[str] = mapped_column(String(80))
    """A digest of what was asked: asked twice, it is one request."""
    registry_name: Mapped[str] = mapped_column("registry", ShortText)
    name: Mapped[str] = mapped_column(ShortText)
    """The image's name relative to the registry's URL."""
    asked_name: Mapped[str] = mapped_column(ShortText)
    tag: Mapped[str] = mapped_column(String(128))
    required: Mapped[bool]
    parts: Mapped[list[dict[str, str]]] = mapped_column(JSON)
    """Files in the store, one for each platform or several: `file`, its name, and `digest`."""
    message: Mapped[str] = mapped_column(LongText, default="")
    image_id: Mapped[int | None] = mapped_column(ForeignKey("images.id", ondelete="SET NULL"), index=True)
    holder: Mapped[str | None] = mapped_column(String(64))
    """The server that makes the image."""
    lease_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]

    job: Mapped[Job] = relationship(lazy="joined", innerjoin=True)


class CachedLayer(Base):
    """What a layer's uncompressed bytes became under one codec, known per Repo."""

    __tablename__ = "cached_layers"

    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id"), primary_key=True)
    diff_id: Mapped[str] = mapped_column(String(80), primary_key=True)
    codec: Mapped[str] = mapped_column(String(64), primary_key=True)
    digest: Mapped[str] = mapped_column(String(80), index=True)
    size: Mapped[int] = mapped_column(BigInteger)


class ReadSource(Base):
    """What a source's bytes were read as, known per Repo; goes with the blob of the source."""

    __tablename__ = "read_sources"

    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id"), primary_key=True)
    digest: Mapped[str] = mapped_column(String(80), primary_key=True, index=True)
    how: Mapped[str] = mapped_column(String(80), primary_key=True)
    """A digest of everything beside the bytes that decided."""
    parts: Mapped[str] = mapped_column(LongText)
    blobs: Mapped[list[str]] = mapped_column(JSON)
    """Digests of the layers that it became."""


_PUSHING = text("state = 'pushing'")


class Publication(Base):
    """One Image at one Registry under one tag. At most one push of a (registry, name, tag) is under way."""

    __tablename__ = "publications"
    __table_args__ = (
        UniqueConstraint("image_id", "registry", "tag"),
        Index(
            "uq_publications_pushing",
            "registry",
            "name",
            "tag",
            unique=True,
            postgresql_where=_PUSHING,
            sqlite_where=_PUSHING,
        ),
        Index("ix_publications_due", "state", "next_try_at"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"))
    registry_name: Mapped[str] = mapped_column("registry", ShortText)
    name: Mapped[str] = mapped_column(ShortText)
    """The image's name relative to the registry's URL."""
    tag: Mapped[str] = mapped_column(String(128))
    required: Mapped[bool]
    state: Mapped[PublicationState] = mapped_column(enum_column(PublicationState))
    reason: Mapped[Reason | None] = mapped_column(enum_column(Reason))
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

    registry_name: Mapped[str] = mapped_column("registry", ShortText, primary_key=True)
    name: Mapped[str] = mapped_column(ShortText, primary_key=True)
    tag: Mapped[str] = mapped_column(String(128), primary_key=True)
    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id"))
    ref: Mapped[str] = mapped_column(String(1024))
    flavor: Mapped[str] = mapped_column(ShortText, default="")
    sequence: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(80))
    updated_at: Mapped[datetime]
