"""The bodies of the REST API. Field names are part of the contract: add to them, never change them.

Times are UTC in ISO 8601; sizes are bytes; ids are numbers that mean nothing else.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Generic, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from albatros.domain.access import Scope
from albatros.domain.states import AttemptState, BuildState, JobKind, JobState, PublicationState, Reason, Trigger
from albatros.forges.base import HookState

Item = TypeVar("Item")
Time = Annotated[datetime, AfterValidator(lambda value: value.replace(tzinfo=UTC))]
"""The database keeps UTC without saying so."""


class _Out(BaseModel):
    model_config = ConfigDict(from_attributes=True, frozen=True)


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(_Out, Generic[Item]):
    """Some items, and where the others are."""

    items: list[Item]
    next: str | None = Field(description="the cursor of the page after this one; null on the last page")


class RepoName(_Out):
    """Which git project it is."""

    forge: str
    owner: str
    name: str


class BuildSummary(_Out):
    """One commit to be built."""

    id: int
    number: int = Field(description="counts the builds of its repo")
    repo: RepoName
    ref: str
    commit: str
    flavor: str
    trigger: Trigger
    trusted: bool
    author: str
    title: str
    state: BuildState
    reason: Reason | None
    message: str
    rerun_of: int | None
    pull: int | None = Field(description="the pull request that it is for")
    from_fork: bool
    head_label: str = Field(description="the pull request's head for people")
    merge_into: str | None = Field(
        description="the branch, as a whole ref, that the commit is merged into before it is built; null: it is not"
    )
    base_commit: str | None = Field(description="the commit of that branch; null where none is known or needed")
    approved_by: str = Field(description="who let it run, where somebody had to")
    created_at: Time
    started_at: Time | None
    ended_at: Time | None


class RepoOut(RepoName):
    """One git project on a configured forge."""

    private: bool
    default_branch: str
    allowed: bool = Field(description="it may build here: added by an operator, or covered by its forge's settings")
    created_at: Time
    newest_build: BuildSummary | None


class HookOut(_Out):
    """A repo's webhook to this server."""

    state: HookState
    text: str = Field(description="what differs, what was done, or what is to be done by hand")


class JoinedOut(RepoOut):
    """A repo that was added, and what became of its webhook."""

    hook: HookOut


class JobSummary(_Out):
    """One derivation of a build on one system, or its evaluation."""

    id: int
    build_id: int
    kind: JobKind
    name: str
    attributes: list[str]
    system: str
    drv_path: str | None
    state: JobState
    reason: Reason | None
    message: str
    created_at: Time
    started_at: Time | None
    ended_at: Time | None


class PlacementEventOut(_Out):
    """One thing that happened to an attempt, in its executor's words."""

    at: str
    kind: str
    message: str


class PlacementOut(_Out):
    """Where an executor has an attempt, in its own words."""

    job: str
    allocation: str
    node: str
    state: str
    waits: str = Field(description="why it has no place yet")
    description: str
    url: str = Field(description="the executor's own page about it")
    events: list[PlacementEventOut]


class AttemptOut(_Out):
    """One try at a job."""

    id: str
    number: int
    state: AttemptState
    reason: Reason | None
    message: str
    executor: str
    host: str
    allocation: str = Field(description="what Nomad calls the run that claimed it; empty on other executors")
    placement: PlacementOut | None = Field(None, description="what a cluster said last of where it is")
    nix_version: str
    log_bytes: int
    created_at: Time
    claimed_at: Time | None
    ended_at: Time | None


class ArtifactOut(_Out):
    """An output kept for download."""

    id: int
    job_id: int
    output: str
    path: str = Field(description="inside the output; empty for the output itself")
    file_name: str
    kind: str
    digest: str
    size: int
    executable: bool
    store_path: str
    nar_hash: str
    created_at: Time


class JobDetail(JobSummary):
    """A job with its tries, what it needs and what it made."""

    build: BuildSummary
    needs: list[int]
    attempts: list[AttemptOut]
    artifacts: list[ArtifactOut]


class EdgeOut(_Out):
    """`job` waits for `needs`."""

    job: int
    needs: int


class PublicationOut(_Out):
    """One image at one registry under one tag."""

    id: int
    registry: str
    name: str
    tag: str
    required: bool
    state: PublicationState
    reason: Reason | None
    message: str
    tries: int
    next_try_at: Time | None = Field(description="null when it has ended")
    bytes_sent: int
    bytes_skipped: int
    created_at: Time
    ended_at: Time | None


class ImageOut(_Out):
    """The container form of a build: one OCI index."""

    id: int
    build_id: int
    name: str
    digest: str
    size: int
    platforms: list[str]
    created_at: Time
    publications: list[PublicationOut]


class StatusOut(_Out):
    """What the commit shows on its forge under one context."""

    context: str
    state: BuildState
    description: str
    delivered: bool = Field(description="the forge shows this state")
    tries: int
    error: str


class BuildDetail(BuildSummary):
    """A build with everything that belongs to it."""

    jobs: list[JobSummary]
    edges: list[EdgeOut]
    images: list[ImageOut]
    artifacts: list[ArtifactOut]
    statuses: list[StatusOut]
    truncated: bool = Field(description="a list was cut: the build has more of something than one answer holds")


class RegistryOut(_Out):
    """A configured registry; its credentials are told to nobody."""

    name: str
    url: str = Field(description="without user, password and query")
    public: bool
    required: bool
    names: list[str]
    repos: list[str]
    refs: list[str]


class DeliveryOut(_Out):
    """One inbound webhook, or one head that was found by comparing."""

    id: int
    forge: str
    delivery_id: str
    event: str
    repo: RepoName | None
    reason: str = Field(description="why it made no build; empty when it made one")
    builds: list[int]
    received_at: Time


class TriggerIn(_In):
    """What to build."""

    ref: str = Field(min_length=1, max_length=1024, description="a branch, a tag, a whole ref or a full commit id")
    flavor: str = Field("", max_length=32, description="the flavor to build it in; empty is the plain one")


class TokenIn(_In):
    """A token to be made."""

    name: str = Field(min_length=1, max_length=100, description="what it is for; yours alone")
    scope: Scope = Field(Scope.READ, description="what it may do at most")
    days: int = Field(90, ge=1, le=366, description="how long it lives")
    bound: str = Field("", max_length=400, description="FORGE[/OWNER[/NAME]] that it is for; empty: every repo")


class TokenOut(_Out):
    """A token without its secret."""

    id: int
    name: str
    scope: Scope
    bound: str = Field(description="FORGE[/OWNER[/NAME]] that it is for; empty: every repo")
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None = Field(description="to the minute")


class MadeTokenOut(TokenOut):
    """A token, this once with its secret."""

    token: str


class AddRepoIn(_In):
    """Which repo may build: its forge, owner and name, or its address."""

    forge: str = Field("", max_length=63)
    owner: str = Field("", max_length=255)
    name: str = Field("", max_length=100)
    url: str = Field("", max_length=1024, description="on a configured forge, with or without .git")

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        named = (self.forge, self.owner, self.name)
        if bool(self.url) == any(named) or (any(named) and not all(named)):
            raise ValueError("give either forge, owner and name, or url")
        return self


class SecretIn(_In):
    """A secret to keep. Its value is told to nobody but the Jobs that may have it."""

    place: str = Field(max_length=450, description="whose it is: FORGE/OWNER/REPO, FORGE/OWNER or server")
    name: str = Field(
        max_length=300,
        description="the host that it is a token for (github.com), or a variable of scripts (DEPLOY_KEY)",
    )
    value: SecretStr = Field(max_length=64 << 10, description="a token as the host gave it; GitLab's begin with PAT:")
    refs: list[Annotated[str, Field(max_length=1024)]] = Field(
        [], max_length=20, description="globs of refs whose builds are given it; empty: all"
    )


class SecretOut(_Out):
    """A secret without its value."""

    place: str
    name: str
    refs: list[str]
    created_at: Time
    updated_at: Time


class Health(_Out):
    """The process answers."""

    status: str
    version: str


class Readiness(_Out):
    """What the server needs, each `ok` or `unavailable`; the log says why."""

    database: str
    store: str


class ProblemOut(_Out):
    """An RFC 9457 problem."""

    type: str
    title: str
    status: int
    detail: str
