"""Publish: push one Image to one Registry and move its tags, each at most to where the newest Build of its ref is.

Only the holder of a Publication pushes it; the database asks before each tag whether it may still move, and remembers
afterwards where it went. Killed anywhere, the push is done again: everything that is there already is skipped.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from albatros.db import events, queue
from albatros.db.models import Publication, TagHead
from albatros.db.session import Database, now
from albatros.db.signals import Signals, Topic
from albatros.domain.references import parse_digest
from albatros.domain.states import PublicationState, Reason
from albatros.errors import (
    AlbatrosError,
    DatabaseUnavailableError,
    ForbiddenError,
    NotFoundError,
    RegistryUnavailableError,
    StoreError,
)
from albatros.flows import progress, report
from albatros.images.model import Image
from albatros.images.publish import Observer, PublishReport, publish
from albatros.log import get_logger
from albatros.registries.base import Registry
from albatros.settings import LimitSettings
from albatros.store.base import BlobStore

log = get_logger(__name__)
LEASE = timedelta(minutes=2)
FIRST_RETRY_SECONDS = 5
LONGEST_RETRY_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Push:
    """Publications of one Image at one Registry that are pushed together, one for each tag."""

    publications: tuple[Publication, ...]

    @property
    def ids(self) -> list[int]:
        return [publication.id for publication in self.publications]


class Publisher:
    """Pushes due Publications, one group at a time, through registries opened by name."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        signals: Signals,
        registries: Mapping[str, Callable[[], Registry]],
        limits: LimitSettings,
        holder: str,
    ) -> None:
        self._database = database
        self._store = store
        self._signals = signals
        self._registries = registries
        self._limits = limits
        self.holder = holder

    def claim(self) -> Push | None:
        """Hold what is due; renew with `renew` while `push` runs."""
        try:
            with self._database.write() as session:
                publications = tuple(queue.claim_publications(session, self.holder, LEASE))
                for publication in publications:
                    _emit(session, publication)
        except IntegrityError:
            # Another server began to push one of these tags between our look and our claim.
            return None
        return Push(publications) if publications else None

    def renew(self, push: Push) -> bool:
        """Hold the Publications for longer; False when another server took one."""
        with self._database.write() as session:
            return queue.renew(session, Publication, push.ids, self.holder, LEASE)

    def push(self, push: Push, observe: Observer) -> None:
        """Push a claimed group and commit its end: published, superseded, failed, or due again later."""
        first = push.publications[0]
        try:
            done = self._push(push, observe)
        except (RegistryUnavailableError, StoreError, DatabaseUnavailableError) as error:
            log.warning("a push is tried later", image=first.image_id, registry=first.registry_name, error=error.detail)
            end = partial(self._try_later, error.detail)
        except (AlbatrosError, OSError) as error:
            log.error(
                "an image cannot be published", image=first.image_id, registry=first.registry_name, error=str(error)
            )
            end = partial(_fail, str(error))
        else:
            end = partial(_finish, done)
        self._end(push, end)

    def _push(self, push: Push, observe: Observer) -> PublishReport:
        first = push.publications[0]
        open_registry = self._registries.get(first.registry_name)
        if open_registry is None:
            raise NotFoundError(
                f"registry {first.registry_name!r} is no longer configured; add it again and rerun the build"
            )
        image = Image.load(self._store, parse_digest(first.image.digest))
        by_tag = {publication.tag: publication for publication in push.publications}
        registry = open_registry()
        try:
            return publish(
                image,
                self._store,
                registry,
                first.name,
                list(by_tag),
                gate=lambda tag: self._may_move(by_tag[tag]),
                observe=observe,
            )
        finally:
            registry.close()

    def _may_move(self, publication: Publication) -> bool:
        """Whether the tag is still this Build's to move, asked just before it moves."""
        with self._database.read() as session:
            row = session.get_one(Publication, publication.id)
            if row.state is not PublicationState.PUSHING or row.holder != self.holder:
                raise RegistryUnavailableError(f"{publication.name}:{publication.tag} was taken over by another server")
            return not _is_older(session, row)

    def _end(self, push: Push, end: Callable[[Session, Publication], None]) -> None:
        with self._database.write() as session:
            for publication in push.publications:
                row = session.get(Publication, publication.id)
                if row is None or row.state is not PublicationState.PUSHING or row.holder != self.holder:
                    log.warning("a publication moved on while it was pushed", publication=publication.id)
                    continue
                end(session, row)
                row.holder, row.lease_until = None, None
                _emit(session, row)
                report.request_publication_status(session, row)
            build = session.get_one(Publication, push.ids[0]).image.build
            progress.settle_publications(session, build)
        self._signals.notify(Topic.PUBLISHER, Topic.REPORTER, Topic.WATCHERS)

    def _try_later(self, why: str, session: Session, row: Publication) -> None:
        if row.tries >= self._limits.publication_attempts:
            _fail(f"given up after {row.tries} tries: {why}", session, row)
            return
        longest = min(FIRST_RETRY_SECONDS * 2 ** (row.tries - 1), LONGEST_RETRY_SECONDS)
        # Jitter spreads the load of many publications after a registry's outage; nothing secret hangs on it.
        delay = timedelta(seconds=longest * random.uniform(0.5, 1.0))  # noqa: S311
        row.state, row.message, row.next_try_at = PublicationState.PENDING, why, now() + delay


def _is_older(session: Session, row: Publication) -> bool:
    head = session.get(TagHead, (row.registry_name, row.name, row.tag))
    build = row.image.build
    if head is None:
        return False
    if head.repo_id != build.repo_id:
        raise ForbiddenError(
            f"{row.name}:{row.tag} on {row.registry_name} belongs to another repo; give this image another name"
        )
    return head.ref == build.ref and head.sequence > build.sequence


def _finish(done: PublishReport, session: Session, row: Publication) -> None:
    row.bytes_sent, row.bytes_skipped = done.bytes_sent, done.bytes_skipped
    row.ended_at, row.message = now(), ""
    if row.tag in done.tags_superseded:
        row.state, row.reason = PublicationState.SUPERSEDED, Reason.SUPERSEDED
        row.message = "pushed by digest only: a newer commit of the ref holds the tag"
        return
    row.state = PublicationState.PUBLISHED
    build = row.image.build
    head = session.get(TagHead, (row.registry_name, row.name, row.tag)) or TagHead(
        registry_name=row.registry_name, name=row.name, tag=row.tag, repo_id=build.repo_id
    )
    head.ref, head.sequence, head.digest, head.updated_at = build.ref, build.sequence, row.image.digest, now()
    session.add(head)


def _fail(message: str, _session: Session, row: Publication) -> None:
    row.state, row.reason, row.message = (
        PublicationState.FAILED,
        Reason.PUBLICATION_FAILED,
        message[: progress.MAX_MESSAGE],
    )
    row.ended_at = now()


def _emit(session: Session, row: Publication) -> None:
    events.emit(
        session,
        row.image.build,
        f"publication.{row.state}",
        publication=row.id,
        registry=row.registry_name,
        name=row.name,
        tag=row.tag,
        digest=row.image.digest,
        message=row.message[:500],
    )


def recover_pushes(database: Database, dead_holder: str | None) -> int:
    """Make abandoned pushes due again: those whose lease ran out, or that a dead process held; returns how many."""
    with database.write() as session:
        rows = queue.abandoned_publications(session, dead_holder)
        for row in rows:
            row.state, row.holder, row.lease_until, row.next_try_at = PublicationState.PENDING, None, None, now()
    return len(rows)
