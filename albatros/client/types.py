"""What the API answers, as it comes over the wire: the same fields as in `http/schemas.py`, which a test compares.

Times are ISO 8601 in UTC; sizes are bytes; states and reasons are the words of `domain/states.py`.
"""

from __future__ import annotations

from typing import TypedDict


class RepoName(TypedDict):
    """Which git project it is."""

    forge: str
    owner: str
    name: str


class Build(TypedDict):
    """One commit to be built."""

    id: int
    number: int
    repo: RepoName
    ref: str
    commit: str
    flavor: str
    trigger: str
    trusted: bool
    author: str
    title: str
    state: str
    reason: str | None
    message: str
    rerun_of: int | None
    pull: int | None
    from_fork: bool
    head_label: str
    merge_into: str | None
    base_commit: str | None
    approved_by: str
    created_at: str
    started_at: str | None
    ended_at: str | None


class Repo(RepoName):
    """One git project with its newest build."""

    private: bool
    default_branch: str
    allowed: bool
    created_at: str
    newest_build: Build | None


class Hook(TypedDict):
    """A repo's webhook to the server."""

    state: str
    text: str


class Joined(Repo):
    """A repo that was added."""

    hook: Hook


class Job(TypedDict):
    """One derivation of a build on one system, or its evaluation."""

    id: int
    build_id: int
    kind: str
    name: str
    attributes: list[str]
    system: str
    drv_path: str | None
    state: str
    reason: str | None
    message: str
    created_at: str
    started_at: str | None
    ended_at: str | None


class PlacementEvent(TypedDict):
    """Something that an executor did with an attempt."""

    at: str
    kind: str
    message: str


class Placement(TypedDict):
    """Where an executor has an attempt, in its own words."""

    job: str
    allocation: str
    node: str
    state: str
    waits: str
    description: str
    url: str
    events: list[PlacementEvent]


class Attempt(TypedDict):
    """One try at a job."""

    id: str
    number: int
    state: str
    reason: str | None
    message: str
    executor: str
    host: str
    allocation: str
    placement: Placement | None
    nix_version: str
    log_bytes: int
    created_at: str
    claimed_at: str | None
    ended_at: str | None


class Artifact(TypedDict):
    """An output kept for download."""

    id: int
    job_id: int
    output: str
    path: str
    file_name: str
    kind: str
    digest: str
    size: int
    executable: bool
    store_path: str
    nar_hash: str
    created_at: str


class JobDetail(Job):
    """A job with its tries, what it needs and what it made."""

    build: Build
    needs: list[int]
    attempts: list[Attempt]
    artifacts: list[Artifact]


class Edge(TypedDict):
    """`job` waits for `needs`."""

    job: int
    needs: int


class Publication(TypedDict):
    """One image at one registry under one tag."""

    id: int
    registry: str
    name: str
    tag: str
    required: bool
    state: str
    reason: str | None
    message: str
    tries: int
    next_try_at: str | None
    bytes_sent: int
    bytes_skipped: int
    created_at: str
    ended_at: str | None


class Image(TypedDict):
    """The container form of a build: one OCI index."""

    id: int
    build_id: int
    name: str
    digest: str
    size: int
    platforms: list[str]
    created_at: str
    publications: list[Publication]


class Status(TypedDict):
    """What the commit shows on its forge under one context."""

    context: str
    state: str
    description: str
    delivered: bool
    tries: int
    error: str


class BuildDetail(Build):
    """A build with everything that belongs to it."""

    jobs: list[Job]
    edges: list[Edge]
    images: list[Image]
    artifacts: list[Artifact]
    statuses: list[Status]
    truncated: bool


class Secret(TypedDict):
    """A secret without its value."""

    place: str
    name: str
    refs: list[str]
    created_at: str
    updated_at: str
