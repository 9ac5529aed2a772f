"""Follows the demo's Build by its events, and says what each one means."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from albatros.db import logs
from albatros.db.models import Attempt, Build, Event, Image, Job, Publication
from albatros.db.session import Database
from albatros.db.signals import Signals, Topic
from albatros.domain.states import BuildState, JobKind, JobState, PublicationState, is_end
from albatros.errors import AlbatrosError
from albatros.store.base import BlobStore

BUILDING = b"building /nix/store/"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the Build ended."""

    build_id: int
    state: BuildState
    message: str
    image: str
    digest: str
    tags: tuple[str, ...]
    bytes_sent: int
    bytes_skipped: int


class Watcher:
    """Tells the story of one Build."""

    def __init__(self, database: Database, store: BlobStore, signals: Signals, say: Callable[[str], None]) -> None:
        self._database = database
        self._store = store
        self._signals = signals
        self._say = say
        self._last_event = 0

    def follow(self, commit: str, timeout: float) -> Outcome:
        """Say each event of the newest Build of `commit` until it ends. Raises AlbatrosError after `timeout` s."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            seen = self._signals.seen(Topic.WATCHERS)
            with self._database.read() as session:
                build = session.scalars(select(Build).where(Build.commit == commit).order_by(Build.id.desc())).first()
                if build is not None:
                    self._tell_news(session, build)
                    if is_end(build.state):
                        return _outcome(session, build)
            self._signals.wait(Topic.WATCHERS, seen, 0.5)
        raise AlbatrosError(
            f"the build of {commit[:12]} did not end within {timeout:.0f} s; look at its page with --keep"
        )

    def _tell_news(self, session: Session, build: Build) -> None:
        statement = select(Event).where(Event.build_id == build.id, Event.id > self._last_event).order_by(Event.id)
        for event in session.scalars(statement):
            self._last_event = event.id
            text = self._sentence(session, build, event)
            if text:
                self._say(text)

    def _sentence(self, session: Session, build: Build, event: Event) -> str:
        kind, _, state = event.kind.partition(".")
        if kind == "build":
            return f"build      {build.number} of {build.commit[:12]} is {state}"
        if kind == "job":
            return self._job_sentence(session, session.get_one(Job, event.data["job"]), JobState(state))
        if kind == "publication" and state != PublicationState.PUSHING:
            row = session.get_one(Publication, event.data["publication"])
            return f"publish    {row.name}:{row.tag} → {row.registry_name}: {state} {row.message}".rstrip()
        return ""

    def _job_sentence(self, session: Session, job: Job, state: JobState) -> str:
        what = "evaluate" if job.kind is JobKind.EVALUATION else "build"
        name = "the flake" if job.kind is JobKind.EVALUATION else ", ".join(job.attributes)
        if state is JobState.RUNNING:
            return f"{what:10} {name} …"
        if state is not JobState.SUCCEEDED:
            return f"{what:10} {name}: {state} {job.message}"
        seconds = _seconds(job.started_at, job.ended_at)
        return f"{what:10} {name}: done in {seconds:.2f} s{self._how(session, job)}"

    def _how(self, session: Session, job: Job) -> str:
        if job.kind is JobKind.EVALUATION:
            return ""
        attempt = session.scalars(
            select(Attempt).where(Attempt.job_id == job.id).order_by(Attempt.number.desc())
        ).first()
        if attempt is None:
            return ""
        text = b"".join(logs.stream(self._database, self._store, attempt.id))
        rebuilt = any(line.startswith(BUILDING) for line in text.splitlines())
        return "" if rebuilt else " (unchanged: it was in the Nix store, nothing was rebuilt)"


def _seconds(start: datetime | None, end: datetime | None) -> float:
    return ((end or datetime.now(UTC).replace(tzinfo=None)) - start).total_seconds() if start else 0.0


def _outcome(session: Session, build: Build) -> Outcome:
    image = session.scalars(select(Image).where(Image.build_id == build.id)).first()
    rows = session.scalars(
        select(Publication).join(Image).where(Image.build_id == build.id).order_by(Publication.id)
    ).all()
    return Outcome(
        build_id=build.id,
        state=build.state,
        message=build.message,
        image=rows[0].name if rows else "",
        digest=image.digest if image is not None else "",
        tags=tuple(row.tag for row in rows if row.state is PublicationState.PUBLISHED),
        bytes_sent=sum(row.bytes_sent for row in rows),
        bytes_skipped=min((row.bytes_skipped for row in rows), default=0),
    )
