"""Publish: push one Image to one Registry and move its tags, each at most to where the newest Build of its ref is.

Only the holder of a Publication pushes it; the database asks before each tag whether it may still move, and remembers
afterwards where it went. Killed anywhere, the push is done again: everything that is there already is skipped.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from albatros.db import queue
from albatros.db.models import Build, ImageProof, Publication, TagHead
from albatros.db.session import Database, now
from albatros.db.signals import Signals, Topic
from albatros.domain.references import parse_digest
from albatros.domain.states import BuildState, PublicationState, Reason
from albatros.errors import (
    AlbatrosError,
    ConflictError,
    DatabaseUnavailableError,
    ForbiddenError,
    NotFoundError,
    RegistryUnavailableError,
    StoreError,
)
from albatros.flows import progress, report
from albatros.flows.proofs import claims_of
from albatros.images.model import Image
from albatros.images.publish import Observer, PublishReport, publish
from albatros.images.referrers import Proof, load_artifact
from albatros.images.signing import identity, sign_image
from albatros.log import get_logger
from albatros.registries.base import Registry
from albatros.settings import LimitSettings
from albatros.store.base import BlobStore

if TYPE_CHECKING:
    from albatros.images.keys import SigningKey

log = get_logger(__name__)
LEASE = timedelta(minutes=2)
FIRST_RETRY_SECONDS = 5
LONGEST_RETRY_SECONDS = 600
RETRY_DOUBLINGS = 10
MOUNT_SOURCES = 2
_STOPPED = (BuildState.CANCELLED, BuildState.SUPERSEDED)


@dataclass(frozen=True, slots=True)
class Push:
    """Publications of one Image at one Registry that are pushed together, one for each tag, under one claim."""

    publications: tuple[Publication, ...]

    @property
    def first(self) -> Publication:
        """One of them: image, registry and name are the same in all."""
        return self.publications[0]

    @property
    def holder(self) -> str:
        """The claim's name."""
        return self.first.holder or ""

    def holds(self, row: Publication) -> bool:
        """Whether a row as it is now still belongs to this claim."""
        return row.state is PublicationState.PUSHING and row.holder == self.holder


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
        key: SigningKey | None = None,
    ) -> None:
        self._database = database
        self._store = store
        self._signals = signals
        self._registries = registries
        self._limits = limits
        self._key = key
        self.holder = holder

    def claim(self, busy: Collection[str] = ()) -> Push | None:
        """Hold what is due at a registry that is not `busy`, pushes that nobody renewed included.

        Renew with `renew` while `push` runs.
        """
        try:
            with self._database.write() as session:
                _release_abandoned(session, None)
                publications = tuple(queue.claim_publications(session, self.holder, LEASE, busy))
                for publication in publications:
                    progress.emit_publication(session, publication)
        except IntegrityError:
            # Another server began to push one of these tags between our look and our claim.
            return None
        if not publications:
            return None
        self._signals.notify(Topic.WATCHERS)
        return Push(publications)

    def renew(self, push: Push) -> bool:
        """Hold the Publications for longer; False when another claim took one."""
        with self._database.write() as session:
            ids = [publication.id for publication in push.publications]
            return queue.renew(session, Publication, ids, push.holder, LEASE)

    def push(self, push: Push, observe: Observer) -> None:
        """Push a claimed group and commit its end: published, superseded, failed, or due again later."""
        where = {"image": push.first.image_id, "registry": push.first.registry_name}
        try:
            done = self._push(push, observe)
        except (RegistryUnavailableError, StoreError, DatabaseUnavailableError, OSError) as error:
            log.warning("a push is tried later", error=str(error), **where)
            end = partial(self._try_later, str(error))
        except AlbatrosError as error:
            log.error("an image cannot be published", error=error.detail, **where)
            end = partial(_fail, error.detail)
        except Exception:
            log.exception("a push met a fault of the server and is tried later", **where)
            end = partial(self._try_later, "the server met a fault of its own; its log says which")
        else:
            end = partial(_finish, done, push.first.id)
        self._end(push, end)

    def _push(self, push: Push, observe: Observer) -> PublishReport:
        first = push.first
        open_registry = self._registries.get(first.registry_name)
        if open_registry is None:
            raise NotFoundError(
                f"registry {first.registry_name!r} is no longer configured; add it again and rerun the build"
            )
        with self._database.read() as session:
            _refuse_foreign_name(session, first)
            own_names = _own_names(session, first)
            kept = session.scalars(select(ImageProof.digest).where(ImageProof.image_id == first.image_id)).all()
        image = Image.load(self._store, parse_digest(first.image.digest))
        by_tag = {publication.tag: publication for publication in push.publications}
        proofs: list[Proof] = [load_artifact(self._store, parse_digest(digest)) for digest in sorted(kept)]
        registry = open_registry()
        try:
            if self._key is not None:
                claims = claims_of(first.image.build, image, identity(registry.address, first.name))
                proofs += sign_image(image, self._key, claims)
            return publish(
                image,
                self._store,
                registry,
                first.name,
                list(by_tag),
                proofs=proofs,
                mount_from=own_names,
                gate=lambda tag: self._may_move(push, by_tag[tag]),
                observe=observe,
            )
        finally:
            registry.close()

    def _may_move(self, push: Push, publication: Publication) -> bool:
        """Asked just before the tag moves: whether it is still this Build's to move; if so, that is remembered.

        It is written down first: killed between the move and its row, an older Build still finds the newer one here.
        """
        with self._database.write() as session:
            row = session.get(Publication, publication.id, with_for_update={"of": Publication})
            if row is None or not push.holds(row):
                raise RegistryUnavailableError(f"{publication.name}:{publication.tag} was taken over by another server")
            build = row.image.build
            if build.state in _STOPPED:
                raise ConflictError(f"build {build.id} was stopped ({build.state}) before the tag was moved")
            _refuse_foreign_name(session, row)
            key = (row.registry_name, row.name, row.tag)
            head = session.get(TagHead, key, with_for_update=True)
            if head is not None and _is_newer(session, head, build):
                return False
            head = head or TagHead(registry_name=row.registry_name, name=row.name, tag=row.tag, repo_id=build.repo_id)
            head.ref, head.flavor, head.sequence = build.ref, build.flavor, build.sequence
            head.digest, head.updated_at = row.image.digest, now()
            session.add(head)
            return True

    def _end(self, push: Push, end: Callable[[Session, Publication], None]) -> None:
        with self._database.write() as session:
            build = queue.lock_build(session, push.first.image.build_id)
            for publication in push.publications:
                row = session.get(Publication, publication.id, with_for_update={"of": Publication})
                if row is None or not push.holds(row):
                    log.warning("a publication moved on while it was pushed", publication=publication.id)
                    continue
                end(session, row)
                report.request_publication_status(session, row)
            if build is not None:
                progress.settle_publications(session, build)
        self._signals.notify(Topic.PUBLISHER, Topic.REPORTER, Topic.WATCHERS)

    def _try_later(self, why: str, session: Session, row: Publication) -> None:
        if row.tries >= self._limits.publication_attempts:
            _fail(f"given up after {row.tries} tries: {why}", session, row)
            return
        longest = min(FIRST_RETRY_SECONDS * 2 ** min(row.tries - 1, RETRY_DOUBLINGS), LONGEST_RETRY_SECONDS)
        # Jitter spreads the load of many publications after a registry's outage; nothing secret hangs on it.
        row.next_try_at = now() + timedelta(seconds=longest * random.uniform(0.5, 1.0))  # noqa: S311
        progress.move_publication(session, row, PublicationState.PENDING, None, why)


def _refuse_foreign_name(session: Session, row: Publication) -> None:
    """Raise ForbiddenError for a name under which another Repo has published."""
    owned = select(TagHead.repo_id).where(TagHead.registry_name == row.registry_name, TagHead.name == row.name)
    if session.scalar(owned.where(TagHead.repo_id != row.image.build.repo_id).limit(1)) is not None:
        raise ForbiddenError(
            f"{row.name} on {row.registry_name} belongs to another repo; give this image another name, "
            "or tell the repos apart in `names` of the registry"
        )


def _own_names(session: Session, row: Publication) -> list[str]:
    """A few other names of the same Repo at this registry, the newest first: its blobs may be mounted from there."""
    names = select(TagHead.name).where(
        TagHead.registry_name == row.registry_name,
        TagHead.repo_id == row.image.build.repo_id,
        TagHead.name != row.name,
    )
    newest = names.group_by(TagHead.name).order_by(func.max(TagHead.updated_at).desc(), TagHead.name)
    return list(session.scalars(newest.limit(MOUNT_SOURCES)))


def _is_newer(session: Session, head: TagHead, build: Build) -> bool:
    """Whether the tag was last moved for a newer Build: of the same head by its sequence, of another by its number."""
    if (head.ref, head.flavor) == (build.ref, build.flavor):
        return head.sequence > build.sequence
    of_head = select(func.max(Build.id)).where(Build.repo_id == head.repo_id, Build.ref == head.ref)
    other = session.scalar(of_head.where(Build.flavor == head.flavor, Build.sequence == head.sequence))
    return other is not None and other > build.id


def _finish(done: PublishReport, first_id: int, session: Session, row: Publication) -> None:
    """One push brings the blobs for all of its tags: what was sent counts for the first of them alone."""
    sent = done.bytes_sent if row.id == first_id else 0
    row.bytes_sent, row.bytes_skipped = sent, done.bytes_sent + done.bytes_skipped - sent
    if row.tag in done.tags_superseded:
        message = "pushed by digest only: a newer build holds the tag"
        progress.move_publication(session, row, PublicationState.SUPERSEDED, Reason.SUPERSEDED, message)
    else:
        progress.move_publication(session, row, PublicationState.PUBLISHED)


def _fail(message: str, session: Session, row: Publication) -> None:
    progress.move_publication(session, row, PublicationState.FAILED, Reason.PUBLICATION_FAILED, message)


def _release_abandoned(session: Session, dead_holder: str | None) -> int:
    rows = queue.abandoned_publications(session, dead_holder)
    for row in rows:
        row.next_try_at = now()
        progress.move_publication(session, row, PublicationState.PENDING, None, "its publisher was lost")
    return len(rows)


def recover_pushes(database: Database, dead_holder: str | None) -> int:
    """Make abandoned pushes due again: those whose lease ran out, or that a dead process held; returns how many."""
    with database.write() as session:
        return _release_abandoned(session, dead_holder)
