"""Images that scripts ask for: from files that their runner uploaded to an Image with its Publication.

Whoever asks is as hostile as the repo: its names, tags and refs are held to the registry's settings, and the files are
read as those of a flake's Images are. A request is a row first; killed anywhere, the work is done again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from albatros.db import blobs, image_requests, queue
from albatros.db.models import Build, Image, ImageRequest, RefHead, TagHead
from albatros.db.session import Database, now
from albatros.db.signals import Signals, Topic
from albatros.domain.platforms import PlatformHints
from albatros.domain.publishing import Destination, asked_destination
from albatros.domain.references import Blob, ImageReference, RegistryUrl, digest_of, parse_digest
from albatros.domain.states import BuildState, JobKind, PublicationState, is_end
from albatros.domain.tags import branch_tag, default_tags
from albatros.domain.text import plain
from albatros.errors import (
    AlbatrosError,
    BadInputError,
    ConflictError,
    DatabaseUnavailableError,
    ForbiddenError,
    ImageError,
    NotFoundError,
    StoreError,
)
from albatros.flows import progress
from albatros.flows.attempts import claimed
from albatros.flows.images import add_image, add_publications, options_of, origin_of, remembered, rule_of
from albatros.flows.making import LEASE, Maker
from albatros.images.assemble import assemble
from albatros.images.base import Source
from albatros.log import get_logger
from albatros.settings import RegistrySettings, Settings

log = get_logger(__name__)
RETRY_AFTER = timedelta(seconds=5)
MAX_REQUESTS = 100
WAITING, FAILED = "waiting", "failed"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a script wants published: files by name, at a registry by its name or address."""

    registry: str
    name: str
    tag: str
    parts: tuple[tuple[str, Blob], ...]

    def key(self) -> str:
        """The same for the same wish."""
        parts = sorted((file, blob.digest) for file, blob in self.parts)
        return digest_of(json.dumps([self.registry, self.name, self.tag, parts]).encode())


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far a request is: `waiting`, `published`, `superseded` or `failed`, and what can be pulled."""

    state: str
    message: str
    reference: str = ""
    digest: str = ""


def ask(database: Database, settings: Settings, signals: Signals, token: str, nonce: str, asked: Asked) -> int:
    """Keep a script's request; its id, the same when it is asked again.

    Raises ForbiddenError for what the registry's settings do not allow, NotFoundError, BadInputError, ConflictError,
    and what `claimed` raises.
    """
    with database.write() as session:
        job = claimed(session, token, nonce, lock=True).job
        if job.kind is not JobKind.SCRIPT:
            raise ForbiddenError("only a script asks for images; those of a flake are published when all is built")
        item = _registry(settings, asked.registry)
        destination = asked_destination(asked.name, asked.tag, origin_of(job.build), rule_of(item))
        _refuse_others_tag(session, job.build, destination)
        wanted = [blob.digest for _, blob in asked.parts]
        missing = set(wanted) - blobs.known(session, job.build.repo_id, wanted)
        if missing:
            raise BadInputError(f"{min(missing)} was not uploaded; upload every file before the image is asked for")
        known = image_requests.find(session, job.id, asked.key())
        if known is not None:
            return known.id
        if image_requests.count(session, job.id) >= MAX_REQUESTS:
            raise ConflictError(f"a script asks for at most {MAX_REQUESTS} images")
        values: dict[str, object] = {
            "registry_name": item.name,
            "name": destination.name,
            "asked_name": asked.name,
            "tag": asked.tag,
            "required": destination.required,
            "parts": [{"file": file, "digest": str(blob.digest)} for file, blob in asked.parts],
            "message": "",
        }
        request_id = image_requests.put(session, job.id, asked.key(), values).id
    signals.notify(Topic.PUBLISHER)
    return request_id


def outcome(database: Database, settings: Settings, token: str, nonce: str, request_id: int) -> Outcome:
    """How far a request of this runner's own Job is. Raises NotFoundError, and what `claimed` raises."""
    with database.read() as session:
        job_id = claimed(session, token, nonce).job_id
        row = session.get(ImageRequest, request_id)
        if row is None or row.job_id != job_id:
            raise NotFoundError(f"this script asked for no image {request_id}")
        if row.ended_at is None:
            return Outcome(WAITING, row.message or "the image is being made")
        publication = image_requests.publication_of(session, row)
        if row.image_id is None or publication is None:
            return Outcome(FAILED, row.message or "another push of the same name and tag took its place")
        image = session.get_one(Image, row.image_id)
    if not is_end(publication.state):
        return Outcome(WAITING, publication.message or f"{publication.name}:{publication.tag} is being pushed")
    if publication.state is PublicationState.FAILED:
        return Outcome(FAILED, publication.message)
    published = publication.state is PublicationState.PUBLISHED
    url = RegistryUrl.parse(_registry(settings, row.registry_name).url)
    reference = ImageReference(url, row.name, row.tag if published else image.digest)
    return Outcome(
        publication.state.value, publication.message, reference.pinned(image.digest if published else ""), image.digest
    )


def _registry(settings: Settings, wanted: str) -> RegistrySettings:
    """The registry of a name or an address. Raises NotFoundError."""
    for item in settings.registries:
        if wanted in {item.name, item.url, item.url.partition("?")[0]}:
            return item
    names = ", ".join(item.name for item in settings.registries) or "none"
    raise NotFoundError(f"no registry {wanted[:80]!r} is configured here; there are: {names}")


def _refuse_others_tag(session: Session, build: Build, destination: Destination) -> None:
    """Raise ForbiddenError for a tag of the script's choice that belongs to another branch or tag of the repo."""
    (tag,) = destination.tags
    if tag in default_tags(build.ref, build.commit, build.repo.default_branch, build.trigger):
        return
    head = session.get(TagHead, (destination.registry, destination.name, tag))
    owner = head.ref if head is not None and head.ref != build.ref else None
    if owner is None:
        others = select(RefHead.ref).where(RefHead.repo_id == build.repo_id, RefHead.ref != build.ref)
        owner = next((ref for ref in session.scalars(others) if branch_tag(ref) == tag), None)
    if owner is not None:
        raise ForbiddenError(f"the tag {tag} of {destination.name} belongs to {owner}; {build.ref} takes another")


class ScriptImages(Maker[ImageRequest]):
    """Makes the images that scripts asked for, one request at a time."""

    def _claim_due(self, session: Session) -> ImageRequest | None:
        return image_requests.claim(session, self.holder, LEASE)

    def make(self, request: ImageRequest) -> None:
        """Make the image of a claimed request and the row of its Publication, or write down why that cannot be."""
        try:
            self._make(request)
        except (StoreError, DatabaseUnavailableError, OSError) as error:
            log.error("an image cannot be made now and is tried again", request=request.id, error=str(error))
            self._postpone(request, f"waiting to be made: {error}")
        except AlbatrosError as error:
            self._fail(request, error.detail)
        except Exception:
            # Whatever else its bytes led to, they would lead to it again.
            log.exception("an image cannot be made", request=request.id)
            self._fail(request, "the image cannot be made; the server's log says why")
        self._signals.notify(Topic.PUBLISHER, Topic.WATCHERS)

    def _make(self, request: ImageRequest) -> None:
        build = request.job.build
        cache, memory = remembered(self._database, build)
        sources = [self._source(request, part["file"], part["digest"]) for part in request.parts]
        image = assemble(sources, self._store, cache, options_of(self._settings, build), memory)
        proofs = self._proofs.make(build, request.asked_name, image, {})
        name = f"{request.asked_name}:{request.tag}"
        destination = Destination(request.registry_name, request.name, (request.tag,), request.required)
        with self._database.write() as session:
            row = self._held(session, request)
            if row is None:
                return
            found = image_requests.images_named(session, build.id, name)
            if found is not None and found.digest != image.digest:
                # An earlier try at the script made another one under this name: the newest counts.
                if image_requests.is_pushing(session, found):
                    image_requests.postpone(row, "an earlier image of this name is being pushed", now() + RETRY_AFTER)
                    return
                session.execute(delete(Image).where(Image.id == found.id))
                found = None
            kept = found or add_image(session, row.job.build, name, image, proofs)
            image_requests.end(row, "", kept)
            session.flush()
            if image_requests.publication_of(session, row) is None:
                add_publications(session, kept, [destination])

    def _source(self, request: ImageRequest, file: str, digest: str) -> Source:
        known = parse_digest(digest)
        size = self._store.size(known)
        if size is None:
            raise ImageError(f"{file} is not here any more; push it again")
        return Source(
            label=file,
            open=lambda: self._store.open(known),
            size=size,
            hints=PlatformHints(file_name=file),
            entrypoint=f"/bin/{request.asked_name.rpartition('/')[2]}",
            digest=known,
        )

    def _held(self, session: Session, request: ImageRequest) -> ImageRequest | None:
        """The request's row, held with its Build, while this claim has it and the Build still runs."""
        build = queue.lock_build(session, request.job.build_id)
        row = image_requests.held(session, request.id, request.holder)
        if row is not None and (build is None or build.state is not BuildState.RUNNING):
            image_requests.end(row, "its build ended before the image was made")
            return None
        return row

    def _postpone(self, request: ImageRequest, message: str) -> None:
        with self._database.write() as session:
            row = self._held(session, request)
            if row is not None:
                image_requests.postpone(row, plain(message, progress.MAX_MESSAGE), now() + RETRY_AFTER)

    def _fail(self, request: ImageRequest, message: str) -> None:
        with self._database.write() as session:
            row = self._held(session, request)
            if row is not None:
                image_requests.end(row, plain(message, progress.MAX_MESSAGE))


def check_parts(parts: Sequence[tuple[str, Blob]]) -> tuple[tuple[str, Blob], ...]:
    """Files of a request as they are. Raises BadInputError."""
    names = [file for file, _ in parts]
    if not parts or len(set(names)) < len(names):
        raise BadInputError("parts: at least one file, each name once")
    if any(not 0 < len(file) <= 255 or not file.isprintable() for file in names):
        raise BadInputError("parts: `file` is a name of at most 255 printable characters")
    return tuple(parts)
