"""What `albatros image push` does: one image out of all sources, then every destination on its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from albatros.cli import DONE, FAILED
from albatros.cli.image_sources import parse_sources
from albatros.cli.image_target import open_target, shown_reference
from albatros.cli.image_there import open_everywhere
from albatros.cli.output import note, print_json
from albatros.cli.progress import Progress, WatchedBlobs, watched
from albatros.domain import docker_hub
from albatros.domain.references import ImageReference, RegistryUrl, check_name, split_tag
from albatros.errors import AlbatrosError, UsageError
from albatros.images.assemble import ANNOTATIONS, DEFAULT_MAX_SIZE, AssembleOptions, assemble
from albatros.images.base import BlobSource, Source
from albatros.images.layers import Compression
from albatros.images.memory import LayerMemory, memory_directory
from albatros.images.model import Image, created_of
from albatros.images.publish import dry_run, publish
from albatros.images.referrers import Proof
from albatros.images.spool import Spool

if TYPE_CHECKING:
    from albatros.images.keys import SigningKey

_DEFAULT_TAG = "latest"


@dataclass(frozen=True, slots=True)
class PushRequest:
    """The command's arguments, checked; `tags` by name."""

    sources: Sequence[Source]
    tags: dict[str, list[str]]
    destinations: Sequence[RegistryUrl]
    mount_from: Sequence[str]
    options: AssembleOptions
    key: SigningKey | None
    sbom: bool
    dry_run: bool
    as_json: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended at one destination; sizes in bytes."""

    destination: str
    references: tuple[ImageReference, ...] = ()
    bytes_sent: int = 0
    bytes_skipped: int = 0
    error: str = ""


def parse_request(options: argparse.Namespace) -> PushRequest:
    """Check the arguments. Raises UsageError."""
    tags: dict[str, list[str]] = {}
    for text in options.tag:
        name, tag = split_tag(text)
        tags.setdefault(name, []).append(tag or _DEFAULT_TAG)
    given = options.to or options.sources[-1:]
    sources = options.sources if options.to else options.sources[:-1]
    if not sources:
        raise UsageError("say what to publish and where: SOURCE… --to DEST…, or SOURCE… DEST")
    destinations = list(dict.fromkeys(RegistryUrl.parse(text) for text in given))
    for url in destinations:
        if url.host == docker_hub.HOST:
            for name in tags:
                docker_hub.full_name(url.prefix, name)
    entrypoint = options.entrypoint or f"/bin/{next(iter(tags)).rpartition('/')[2]}"
    return PushRequest(
        sources=parse_sources(sources, entrypoint),
        tags=tags,
        destinations=destinations,
        mount_from=[check_name(name) for name in options.mount_from],
        options=AssembleOptions(
            annotations=dict(_annotation(text) for text in options.annotation),
            created=options.created,
            compression=Compression(options.compression),
            max_size=options.max_size or DEFAULT_MAX_SIZE,
        ),
        key=_signing_key(options.sign_key),
        sbom=options.sbom,
        dry_run=options.dry_run,
        as_json=options.json,
    )


def run(request: PushRequest) -> int:
    """Assemble and publish; the exit code."""
    with Spool() as spool, open_everywhere(request.destinations, list(request.tags)) as there:
        blobs = LayerMemory(memory_directory(), spool, there.find)
        progress = Progress()
        sources = [watched(source, progress) for source in request.sources]
        image = assemble(sources, blobs, blobs, request.options, blobs)
        made = _Made(image, blobs, progress, _sboms(image, blobs, request))
        made.progress.say(f"{image.digest}: {', '.join(map(str, image.platforms))}")
        with ThreadPoolExecutor(len(request.destinations)) as pool:
            outcomes = list(pool.map(lambda url: _push_to(url, made, request), request.destinations))
    if request.as_json:
        print_json(_as_json(image, outcomes, request))
    elif not request.dry_run:
        for reference in (reference for outcome in outcomes for reference in outcome.references):
            print(reference.pinned(image.digest), flush=True)
    return FAILED if any(outcome.error for outcome in outcomes) else DONE


@dataclass(frozen=True, slots=True)
class _Made:
    """What every destination gets."""

    image: Image
    blobs: BlobSource
    progress: Progress
    sboms: Sequence[Proof]


def _sboms(image: Image, blobs: BlobSource, request: PushRequest) -> Sequence[Proof]:
    if not request.sbom:
        return ()
    from albatros.images.components import from_layers
    from albatros.images.sbom import make_sboms

    most = request.options.max_size
    components = {manifest.platform: from_layers(blobs, manifest, most) for manifest in image.manifests}
    for platform in (platform for platform, found in components.items() if not found):
        note(f"{platform}: no bill of materials: its layers have no Nix store paths and no Go build information")
    return make_sboms(image, next(iter(request.tags)), created_of(image), components)


def _signing_key(path: str | None) -> SigningKey | None:
    if path is None:
        return None
    from albatros.cli.image_keys import read_signing_key

    return read_signing_key(path)


def _proofs(made: _Made, address: str, name: str, request: PushRequest) -> Sequence[Proof]:
    if request.key is None:
        return made.sboms
    from albatros.images.signing import Claims, identity, sign_image

    given = request.options.annotations
    claims = Claims(identity(address, name), given.get("source", ""), given.get("revision", ""))
    return [*made.sboms, *sign_image(made.image, request.key, claims)]


def _push_to(url: RegistryUrl, made: _Made, request: PushRequest) -> Outcome:
    """One destination from beginning to end; its failure is its own."""
    try:
        outcome = _push_names(url, made, request)
    except AlbatrosError as error:
        outcome = Outcome(str(url), error=error.detail)
    made.progress.say(_ended(outcome, request))
    return outcome


def _ended(outcome: Outcome, request: PushRequest) -> str:
    """Said as soon as it ended: another destination may take much longer."""
    if outcome.error:
        return f"{outcome.destination}: {outcome.error}"
    if request.dry_run:
        return f"{outcome.destination}: would send {outcome.bytes_sent} bytes, {outcome.bytes_skipped} are there"
    return f"{outcome.destination}: sent {outcome.bytes_sent} bytes, {outcome.bytes_skipped} were there"


def _push_names(url: RegistryUrl, made: _Made, request: PushRequest) -> Outcome:
    references: list[ImageReference] = []
    pushed: list[str] = []
    sent = skipped = 0
    with open_target(url) as registry:
        for name, tags in request.tags.items():
            if request.dry_run:
                plan = dry_run(made.image, registry, name)
                sent, skipped = sent + plan.bytes_to_send, skipped + plan.bytes_there
            else:
                report = publish(
                    made.image,
                    WatchedBlobs(made.blobs, made.progress, str(url)),
                    registry,
                    name,
                    tags,
                    mount_from=[*request.mount_from, *pushed],
                    proofs=_proofs(made, registry.address, name, request),
                    observe=lambda event: made.progress.event(str(url), event),
                )
                sent, skipped = sent + report.bytes_sent, skipped + report.bytes_skipped
            pushed.append(name)
            references += [shown_reference(url, name, tag) for tag in tags]
    return Outcome(str(url), tuple(references), sent, skipped)


def _annotation(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or key not in ANNOTATIONS:
        raise UsageError(f"--annotation {text!r}: write KEY=VALUE, with KEY one of {', '.join(ANNOTATIONS)}")
    return key, value


def _as_json(image: Image, outcomes: Sequence[Outcome], request: PushRequest) -> dict[str, object]:
    return {
        "digest": image.digest,
        "platforms": [str(platform) for platform in image.platforms],
        "dry_run": request.dry_run,
        "destinations": [
            {
                "destination": outcome.destination,
                "references": [str(reference) for reference in outcome.references],
                "bytes_sent": outcome.bytes_sent,
                "bytes_skipped": outcome.bytes_skipped,
                "error": outcome.error or None,
            }
            for outcome in outcomes
        ],
    }
