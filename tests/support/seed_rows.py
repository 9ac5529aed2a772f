"""Rows of a believable Albatros, one call each: what `tests/support/seed.py` tells its story with."""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from albatros.db.models import (
    Artifact,
    Attempt,
    Base,
    Build,
    Image,
    Job,
    JobEdge,
    LogPiece,
    Publication,
    RefHead,
    Repo,
    StatusReport,
)
from albatros.domain.states import (
    AttemptState,
    BuildState,
    JobKind,
    JobState,
    PublicationState,
    Reason,
    Trigger,
    is_end,
)
from tests.support.seed_logs import EVALUATED

PLATFORMS = {
    "x86_64-linux": "linux/amd64",
    "aarch64-linux": "linux/arm64/v8",
    "i686-linux": "linux/386",
    "armv6l-linux": "linux/arm/v6",
}
BUILDER_SYSTEM = "x86_64-linux"
T = TypeVar("T", bound=Base)


@dataclass(frozen=True)
class Push:
    """What a build was made for."""

    repo: Repo
    ref: str
    title: str
    author: str
    minutes_ago: float
    trigger: Trigger = Trigger.PUSH
    trusted: bool = True


class Seeder:
    """Writes rows through one session; times are relative to `clock`."""

    def __init__(self, session: Session, clock: datetime) -> None:
        self._session = session
        self.clock = clock

    def repo(self, owner: str, name: str, *, private: bool = False) -> Repo:
        row = Repo(
            forge="home",
            owner=owner,
            name=name,
            private=private,
            default_branch="main",
            allowed=True,
            created_at=self.clock - timedelta(days=40),
        )
        return self._add(row)

    def build(
        self,
        push: Push,
        state: BuildState,
        *,
        took: float | None = None,
        reason: Reason | None = None,
        message: str = "",
    ) -> Build:
        """A Build received `push.minutes_ago`; `took` seconds from its start to its end."""
        created = self.clock - timedelta(minutes=push.minutes_ago)
        started = None if state is BuildState.QUEUED else created + timedelta(seconds=0.4)
        row = Build(
            repo_id=push.repo.id,
            number=push.repo.next_number,
            ref=push.ref,
            commit=hashlib.sha1(f"{push.repo.full_name}{push.repo.next_number}".encode()).hexdigest(),
            sequence=push.repo.next_number,
            trigger=push.trigger,
            trusted=push.trusted,
            author=push.author,
            title=push.title,
            state=state,
            reason=reason,
            message=message,
            assembled=state in {BuildState.PUBLISHING, BuildState.SUCCEEDED},
            created_at=created,
            started_at=started,
            ended_at=started + timedelta(seconds=took or 1) if started and is_end(state) else None,
        )
        push.repo.next_number += 1
        return self._add(row)

    def evaluation(
        self, build: Build, state: JobState = JobState.SUCCEEDED, message: str = "", log: str = EVALUATED
    ) -> Job:
        job = self._job(build, JobKind.EVALUATION, "evaluation", "", [], state, message)
        if state is not JobState.QUEUED:
            job.ended_at = build.started_at and build.started_at + timedelta(seconds=1.3)
            self.attempt(job, log)
        return job

    def jobs(self, build: Build, name: str, states: Sequence[JobState]) -> list[Job]:
        """A Job for each of the four platforms."""
        made = []
        for system, state in zip(PLATFORMS, states, strict=True):
            attribute = f"packages.{system}.{name}"
            made.append(self._job(build, JobKind.BUILD, name, BUILDER_SYSTEM, [attribute], state))
        return made

    def attempt(self, job: Job, log: str, number: int = 1) -> Attempt:
        """The newest try at a Job, as it stands, with its log as one piece; any before it was lost."""
        states = {JobState.SUCCEEDED: AttemptState.SUCCEEDED, JobState.FAILED: AttemptState.FAILED}
        if number > 1:
            lost = "The runner on tern stopped renewing its lease; the job is tried again."
            self._attempt(job, "", number - 1, AttemptState.LOST, Reason.NODE_LOST, lost)
        return self._attempt(job, log, number, states.get(job.state, AttemptState.CLAIMED), job.reason, job.message)

    def _attempt(
        self, job: Job, log: str, number: int, state: AttemptState, reason: Reason | None, message: str
    ) -> Attempt:
        lost = state is AttemptState.LOST
        begun = (job.started_at or job.created_at) + timedelta(seconds=31 if number > 1 else 0)
        ended = begun + timedelta(seconds=31) if lost else job.ended_at
        data = log.encode()
        row = Attempt(
            id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{job.id}/{number}")),
            job_id=job.id,
            number=number,
            state=state,
            reason=reason,
            message=message,
            token_hash=hashlib.sha256(f"{job.id}/{number}".encode()).hexdigest(),
            executor="local",
            host="tern",
            nix_version="2.8.0",
            log_bytes=len(data),
            created_at=begun,
            claimed_at=begun,
            ended_at=ended,
        )
        self._add(row)
        if data:
            self._add(LogPiece(attempt_id=row.id, seq=0, offset=0, data=data))
        return row

    def image(self, build: Build, name: str) -> Image:
        digest = "sha256:" + hashlib.sha256(f"{name}{build.id}".encode()).hexdigest()
        row = Image(
            build_id=build.id,
            name=name,
            digest=digest,
            size=5_284_913,
            platforms=list(PLATFORMS.values()),
            created_at=build.created_at,
        )
        return self._add(row)

    def publication(
        self,
        image: Image,
        registry: str,
        name: str,
        tag: str,
        state: PublicationState,
        message: str = "",
        tries: int = 1,
    ) -> Publication:
        there = state is PublicationState.PUBLISHED
        row = Publication(
            image_id=image.id,
            registry_name=registry,
            name=name,
            tag=tag,
            required=True,
            state=state,
            message=message,
            tries=tries,
            next_try_at=self.clock + timedelta(seconds=95),
            bytes_sent=1_402_113 if there and tag == "main" else 0,
            bytes_skipped=(image.size - (1_402_113 if tag == "main" else 0)) if there else 0,
            created_at=image.created_at,
            ended_at=image.created_at if there else None,
        )
        return self._add(row)

    def artifact(self, job: Job, name: str) -> None:
        digest = hashlib.sha256(f"{job.id}{name}".encode()).hexdigest()
        self._add(
            Artifact(
                job_id=job.id,
                output="out",
                path=f"bin/{name}",
                kind="binary",
                digest=f"sha256:{digest}",
                size=1_321_228 + job.id * 1031,
                executable=True,
                store_path=f"/nix/store/{digest[:32]}-{name}",
                nar_hash=f"sha256:{digest}",
                created_at=job.created_at,
            )
        )

    def status(self, build: Build) -> None:
        self._add(
            StatusReport(
                repo_id=build.repo_id,
                commit=build.commit,
                context="albatros",
                build_id=build.id,
                state=build.state,
                description=build.message[:100] or str(build.state),
                target_path=f"/builds/{build.id}",
                version=3,
                sent=3,
                next_try_at=self.clock,
            )
        )

    def head(self, repo: Repo, ref: str, commit: str, minutes_ago: float) -> None:
        row = self._session.scalar(select(RefHead).where(RefHead.repo_id == repo.id, RefHead.ref == ref))
        if row is None:
            row = self._add(RefHead(repo_id=repo.id, ref=ref, sequence=0, updated_at=self.clock))
        row.commit, row.sequence = commit, row.sequence + 1
        row.updated_at = self.clock - timedelta(minutes=minutes_ago)

    def edge(self, job: Job, needs: Job) -> None:
        self._add(JobEdge(job_id=job.id, needs_id=needs.id))

    def _job(
        self,
        build: Build,
        kind: JobKind,
        name: str,
        system: str,
        attributes: list[str],
        state: JobState,
        message: str = "",
    ) -> Job:
        drv = None
        if attributes:
            digest = hashlib.sha256(f"{attributes}{build.commit}".encode()).hexdigest()[:32]
            drv = f"/nix/store/{digest}-{name}.drv"
        began = state in {JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED}
        start = (build.started_at or build.created_at) + timedelta(seconds=1.4 if kind is JobKind.BUILD else 0)
        seconds = 4.1 + (int(hashlib.sha256((drv or name).encode()).hexdigest(), 16) % 90) / 10
        row = Job(
            build_id=build.id,
            kind=kind,
            key=drv or "evaluation",
            drv_path=drv,
            system=system,
            name=name,
            attributes=attributes,
            state=state,
            message=message,
            created_at=build.created_at,
            started_at=start if began else None,
            ended_at=(start + timedelta(seconds=seconds) if began else build.ended_at) if is_end(state) else None,
        )
        return self._add(row)

    def _add(self, row: T) -> T:
        self._session.add(row)
        self._session.flush()
        return row
