"""Assemble: from the outputs of a Build to images in the store, with a Publication for each registry and tag.

Nothing is believed: archives are read, platforms and digests computed here. The blobs come first, then one transaction
makes every row; killed before it, the work is done again with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import NoReturn

from sqlalchemy import select
from sqlalchemy.orm import Session

from albatros.db import queue
from albatros.db.models import Artifact, Build, Job
from albatros.db.session import now
from albatros.db.signals import Topic
from albatros.db.sources import RepoSourceMemory
from albatros.domain import repo_config
from albatros.domain.plan import ImagePart, PlannedImage, plan_images
from albatros.domain.platforms import Platform, PlatformHints
from albatros.domain.publishing import Destination, destinations
from albatros.domain.references import Digest, parse_digest
from albatros.domain.states import BuildState, Reason
from albatros.domain.text import plain
from albatros.errors import (
    AlbatrosError,
    DatabaseUnavailableError,
    EvaluationError,
    ImageError,
    StoreError,
    TooLargeError,
)
from albatros.flows import progress
from albatros.flows.images import add_image, add_publications, options_of, origin_of, remembered, rule_of
from albatros.flows.making import LEASE, Maker
from albatros.flows.proofs import BuiltFrom, KeptProofs
from albatros.images.assemble import assemble
from albatros.images.base import Source
from albatros.images.model import Image as OciImage
from albatros.images.readers.detect import is_image_archive
from albatros.log import get_logger

log = get_logger(__name__)
RETRY_AFTER = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class _Part:
    """A file in the store that becomes one platform."""

    plan: ImagePart
    attribute: str
    artifact: Artifact


@dataclass(frozen=True, slots=True)
class _Assembled:
    plan: PlannedImage
    image: OciImage
    proofs: KeptProofs
    destinations: tuple[Destination, ...]


class Assembler(Maker[Build]):
    """Makes the images of Builds, one Build at a time."""

    def _claim_due(self, session: Session) -> Build | None:
        return queue.claim_assembly(session, self.holder, LEASE)

    def assemble(self, build: Build) -> None:
        """Make every image of a claimed Build, and the rows of what is to be published."""
        try:
            assembled = [self._assemble_one(build, image) for image in self._plan(build)]
            _refuse_shared_names(assembled)
        except (StoreError, DatabaseUnavailableError, OSError) as error:
            self._postpone(build, error)
            return
        except (ImageError, EvaluationError, TooLargeError) as error:
            self._fail(build, Reason.BUILD_FAILED, error.detail)
            return
        except Exception as error:
            # Whatever else its bytes led to, they would lead to it again.
            log.exception("a build's images cannot be assembled", build=build.id)
            known = error.detail if isinstance(error, AlbatrosError) else "the server's log says why"
            self._fail(build, Reason.PUBLICATION_FAILED, f"its images cannot be assembled: {known}")
            return
        self._commit(build, assembled)
        self._signals.notify(Topic.PUBLISHER, Topic.REPORTER, Topic.WATCHERS)

    def _plan(self, build: Build) -> tuple[PlannedImage, ...]:
        with self._database.read() as session:
            built = select(Job.id, Job.attributes).where(Job.build_id == build.id, Job.drv_path.is_not(None))
            jobs = [(row.id, row.attributes) for row in session.execute(built.order_by(Job.id))]
            possible = progress.possible_archives(session, build.id)
        config = repo_config.parse(build.config)
        attributes = self._with_archives(build, possible) if config.images is None else frozenset()
        return plan_images(config, build.repo.name, jobs, attributes)

    def _with_archives(self, build: Build, possible: Sequence[tuple[Job, Artifact]]) -> frozenset[str]:
        """The attributes whose output is an image archive, whatever the runner called it."""
        most, memory = self._settings.limits.output_bytes, RepoSourceMemory(self._database, build.repo_id)

        def is_archive(digest: Digest) -> bool:
            return is_image_archive(self._store, digest, most, was_read=memory.knows(digest))

        return frozenset(
            attribute
            for job, artifact in possible
            if is_archive(parse_digest(artifact.digest))
            for attribute in job.attributes
        )

    def _assemble_one(self, build: Build, plan: PlannedImage) -> _Assembled:
        parts = self._parts(plan)
        cache, memory = remembered(self._database, build)
        made: dict[Platform, BuiltFrom] = {}
        by_label = {part.attribute: BuiltFrom(part.attribute, part.artifact) for part in parts}
        options = replace(
            options_of(self._settings, build), made=lambda label, platform: made.update({platform: by_label[label]})
        )
        image = assemble([self._source(part) for part in parts], self._store, cache, options, memory)
        missing = set(plan.config.platforms) - set(image.platforms)
        if missing:
            names = ", ".join(map(str, sorted(missing)))
            raise ImageError(f"image {plan.config.name} has no {names}, which .albatros.toml asks for")
        rules = [rule_of(item) for item in self._settings.registries]
        # They would name a commit that it was not made of, and go nowhere.
        is_merge = build.merge_into is not None
        proofs = KeptProofs((), ()) if is_merge else self._proofs.make(build, plan.config.name, image, made)
        return _Assembled(plan, image, proofs, destinations(plan, origin_of(build), rules))

    def _parts(self, plan: PlannedImage) -> list[_Part]:
        with self._database.read() as session:
            return [self._part(session, plan, part) for part in plan.parts]

    def _part(self, session: Session, plan: PlannedImage, part: ImagePart) -> _Part:
        attribute = f"packages.{part.attribute_system}.{plan.config.output}"
        artifact = session.scalars(
            select(Artifact).where(
                Artifact.job_id == part.job_id, Artifact.output == "out", Artifact.path == (part.binary or "")
            )
        ).first()
        if artifact is None:
            what = f"no file {part.binary!r}" if part.binary else "no output that was kept"
            raise ImageError(
                f"image {plan.config.name}: {attribute} has {what}; check [images.{plan.config.name}] in .albatros.toml"
            )
        if artifact.kind == "directory-tar":
            raise ImageError(
                f"image {plan.config.name}: {attribute} is a directory, not an image archive; "
                f"name the program in it with `binary` in [images.{plan.config.name}] of .albatros.toml"
            )
        return _Part(part, attribute, artifact)

    def _source(self, part: _Part) -> Source:
        digest = parse_digest(part.artifact.digest)
        return Source(
            label=part.attribute,
            open=lambda: self._store.open(digest),
            size=part.artifact.size,
            hints=PlatformHints(system=part.plan.attribute_system),
            entrypoint=f"/{part.plan.binary}" if part.plan.binary else "/bin/app",
            digest=digest,
        )

    def _commit(self, build: Build, assembled: Sequence[_Assembled]) -> None:
        with self._database.write() as session:
            row = self._held(session, build)
            if row is None or row.assembled:
                log.info("a build moved on while its images were assembled", build=build.id)
                return
            row.assembled, row.holder, row.lease_until, row.message = True, None, None, ""
            for item in assembled:
                image = add_image(session, row, item.plan.config.name, item.image, item.proofs)
                add_publications(session, image, item.destinations)
            progress.settle_publications(session, row)

    def _held(self, session: Session, build: Build) -> Build | None:
        """The Build's row, held for this transaction, while this claim has it and it still publishes."""
        row = queue.lock_build(session, build.id)
        mine = row is not None and row.state is BuildState.PUBLISHING and row.holder == build.holder
        return row if mine else None

    def _fail(self, build: Build, reason: Reason, message: str) -> None:
        with self._database.write() as session:
            row = self._held(session, build)
            if row is not None:
                progress.move_build(session, row, BuildState.FAILED, reason, message)
        self._signals.notify(Topic.REPORTER, Topic.WATCHERS)

    def _postpone(self, build: Build, error: Exception) -> None:
        """The store's fault is not the commit's: say so on the Build, and try again until it works."""
        log.error(
            "images cannot be assembled now", build=build.id, error=str(error), next_try_seconds=RETRY_AFTER.seconds
        )
        with self._database.write() as session:
            row = self._held(session, build)
            if row is not None:
                row.message = plain(f"waiting to assemble its images: {error}", progress.MAX_MESSAGE)
                row.holder, row.lease_until, row.not_before = None, None, now() + RETRY_AFTER


def _refuse_shared_names(assembled: Sequence[_Assembled]) -> None:
    taken: dict[tuple[str, str], str] = {}
    for item in assembled:
        for destination in item.destinations:
            other = taken.setdefault((destination.registry, destination.name), item.plan.config.name)
            if other != item.plan.config.name:
                _refuse(destination, other, item.plan.config.name)


def _refuse(destination: Destination, one: str, other: str) -> NoReturn:
    raise ImageError(
        f"images {one} and {other} would both be {destination.name} on {destination.registry}; "
        "give one a `name` in .albatros.toml"
    )
