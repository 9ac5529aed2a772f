"""The REST API as Python calls: what the command line speaks, and any other program may."""

from albatros.client.client import Client
from albatros.client.types import (
    Artifact,
    Attempt,
    Build,
    BuildDetail,
    Image,
    Job,
    JobDetail,
    Publication,
    Repo,
    Secret,
)

__all__ = [
    "Artifact",
    "Attempt",
    "Build",
    "BuildDetail",
    "Client",
    "Image",
    "Job",
    "JobDetail",
    "Publication",
    "Repo",
    "Secret",
]
