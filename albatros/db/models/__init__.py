"""The tables. Invariants are constraints here: what must be unique or consistent is refused by the database itself."""

from albatros.db.models.base import Base
from albatros.db.models.builds import Attempt, Build, BuilderRun, Job, JobEdge, LogPiece
from albatros.db.models.images import (
    Artifact,
    Blob,
    CachedLayer,
    Image,
    ImageBlob,
    ImageProof,
    ImageRequest,
    Publication,
    ReadSource,
    RepoBlob,
    TagHead,
)
from albatros.db.models.inbox import Delivery, PullRequest, RefHead, Repo, Schedule
from albatros.db.models.server import Counter, Event, KnownKey, Operator, Person, Secret, StatusReport, Token

__all__ = [
    "Artifact",
    "Attempt",
    "Base",
    "Blob",
    "Build",
    "BuilderRun",
    "CachedLayer",
    "Counter",
    "Delivery",
    "Event",
    "Image",
    "ImageBlob",
    "ImageProof",
    "ImageRequest",
    "Job",
    "JobEdge",
    "KnownKey",
    "LogPiece",
    "Operator",
    "Person",
    "Publication",
    "PullRequest",
    "ReadSource",
    "RefHead",
    "Repo",
    "RepoBlob",
    "Schedule",
    "Secret",
    "StatusReport",
    "TagHead",
    "Token",
]
