"""What `albatros image inspect` and `albatros image verify` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from albatros.cli import DONE
from albatros.cli.image_target import open_target, parse_reference
from albatros.cli.output import print_json, size
from albatros.domain.references import Digest, ImageReference
from albatros.domain.referrers import Referrer
from albatros.domain.text import plain
from albatros.errors import UsageError
from albatros.images.bundle import PREDICATE_ANNOTATION, UNSIGNED_PREDICATE_ANNOTATION
from albatros.images.keys import PublicKey
from albatros.images.model import Image, annotations_of
from albatros.images.referrers import list_referrers, subjects
from albatros.images.signing import Claims, identity, read_signatures
from albatros.images.trust import Expected, check_signature
from albatros.images.verify import VerifiedPlatform, read_published, verify_platform
from albatros.registries.base import Registry

MAX_SHOWN = 500


@dataclass(frozen=True, slots=True, order=True)
class Attestation:
    """Something that refers to a manifest: its type, and its digest where it has one of its own."""

    kind: str
    digest: str


def inspect(text: str, *, as_json: bool) -> int:
    """Print a published image as a tree of platforms, layers and attestations."""
    reference = parse_reference(text)
    with open_target(reference.registry) as registry:
        image = read_published(registry, reference.name, reference.reference)
        attestations = {
            subject.digest: _attestations(registry, reference.name, subject.digest) for subject in subjects(image)
        }
    if as_json:
        print_json(_tree(reference, image, attestations))
        return DONE
    total = sum(blob.size for blob in image.all_blobs())
    print(f"{reference}  {image.digest}  {size(total)}")
    for key, value in annotations_of(image).items():
        print(f"  {_shown(key)}: {_shown(value)}")
    _print_attestations("  ", attestations[image.digest])
    for manifest in image.manifests:
        layers = sum(layer.size for layer in manifest.layers)
        print(f"  {manifest.platform}  {manifest.descriptor.digest}  {size(layers + manifest.config.size)}")
        print(f"    config  {manifest.config.digest}  {size(manifest.config.size)}")
        for layer in manifest.layers:
            print(f"    layer   {layer.digest}  {size(layer.size)}  {_shown(layer.media_type)}")
        _print_attestations("    ", attestations[manifest.descriptor.digest])
    return DONE


def verify(text: str, key: PublicKey | None, expected: Expected, *, as_json: bool) -> int:
    """Check an image's signature, if there is a key; then read it whole and print each platform once it is proven.

    An empty `expected.name` stands for the name that the image is asked for by.
    """
    if key is None and expected != Expected(""):
        raise UsageError("--name, --repo and --commit are what a signature is checked for; give its key with --key")
    reference = parse_reference(text)
    proven: list[VerifiedPlatform] = []
    claims: Claims | None = None
    with open_target(reference.registry) as registry:
        image = read_published(registry, reference.name, reference.reference)
        if key is not None:
            name = expected.name or identity(registry.address, reference.name)
            wanted = Expected(name, expected.repo, expected.commit)
            claims = check_signature(registry, reference.name, image.digest, key, wanted)
        for manifest in image.manifests:
            proven.append(verify_platform(registry, reference.name, manifest))
            if not as_json:
                done = proven[-1]
                print(f"{done.platform}  {done.digest}  {done.bytes_read} bytes read, all right", flush=True)
    if as_json:
        platforms = [{"platform": str(p.platform), "digest": p.digest, "bytes": p.bytes_read} for p in proven]
        signed = {"name": claims.name, **claims.origin()} if claims else None
        print_json({"reference": str(reference), "digest": image.digest, "platforms": platforms, "signed": signed})
        return DONE
    if claims is not None:
        said = ", ".join(f"{key} {value}" for key, value in claims.origin().items())
        print(f"signed as {claims.name}" + (f", {said}" if said else ""))
    print(f"{reference}  {image.digest}")
    return DONE


def _attestations(registry: Registry, name: str, subject: Digest) -> list[Attestation]:
    signatures = [Attestation("cosign signature", "") for _ in read_signatures(registry, name, subject)]
    return signatures + sorted(
        Attestation(_kind(referrer), referrer.digest) for referrer in list_referrers(registry, name, subject)
    )


def _kind(referrer: Referrer) -> str:
    """What a statement says, signed or not, where the type tells only that it is one."""
    said = (referrer.annotations.get(key) for key in (PREDICATE_ANNOTATION, UNSIGNED_PREDICATE_ANNOTATION))
    return next(filter(None, said), referrer.artifact_type)


def _shown(text: str) -> str:
    """What a registry said, on one line and without commands to the terminal."""
    return " ".join(plain(text, MAX_SHOWN).split())


def _print_attestations(indent: str, attestations: Sequence[Attestation]) -> None:
    for attestation in attestations:
        print(f"{indent}proof   {_shown(attestation.kind)}  {attestation.digest}".rstrip())


def _tree(
    reference: ImageReference, image: Image, attestations: Mapping[Digest, Sequence[Attestation]]
) -> dict[str, object]:
    def about(digest: Digest) -> list[dict[str, str]]:
        return [{"type": item.kind, "digest": item.digest} for item in attestations[digest]]

    return {
        "reference": str(reference),
        "digest": image.digest,
        "annotations": dict(annotations_of(image)),
        "attestations": about(image.digest),
        "platforms": [
            {
                "platform": str(manifest.platform),
                "digest": manifest.descriptor.digest,
                "config": manifest.config.as_json(),
                "layers": [layer.as_json() for layer in manifest.layers],
                "attestations": about(manifest.descriptor.digest),
            }
            for manifest in image.manifests
        ],
    }
