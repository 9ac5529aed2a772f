"""What `albatros image inspect` and `albatros image verify` print."""

from __future__ import annotations

import json

from albatros.cli import DONE
from albatros.cli.image_target import open_target
from albatros.domain.references import ImageReference
from albatros.images.model import Image
from albatros.images.verify import VerifiedPlatform, read_published, verify_platform


def inspect(text: str, *, as_json: bool) -> int:
    """Print a published image as a tree of platforms and layers."""
    reference = ImageReference.parse(text)
    with open_target(reference.registry) as registry:
        image = read_published(registry, reference.name, reference.reference)
    if as_json:
        print(json.dumps(_tree(reference, image), indent=2))
        return DONE
    total = sum(blob.size for blob in image.all_blobs())
    print(f"{reference}  {image.digest}  {total} bytes")
    for manifest in image.manifests:
        print(f"  {manifest.platform}  {manifest.descriptor.digest}")
        print(f"    config  {manifest.config.digest}  {manifest.config.size} bytes")
        for layer in manifest.layers:
            print(f"    layer   {layer.digest}  {layer.size} bytes  {layer.media_type}")
    return DONE


def verify(text: str, *, as_json: bool) -> int:
    """Read a published image whole; print each platform once it is proven."""
    reference = ImageReference.parse(text)
    proven: list[VerifiedPlatform] = []
    with open_target(reference.registry) as registry:
        image = read_published(registry, reference.name, reference.reference)
        for manifest in image.manifests:
            proven.append(verify_platform(registry, reference.name, manifest))
            if not as_json:
                done = proven[-1]
                print(f"{done.platform}  {done.digest}  {done.bytes_read} bytes read, all right", flush=True)
    if as_json:
        platforms = [{"platform": str(p.platform), "digest": p.digest, "bytes": p.bytes_read} for p in proven]
        print(json.dumps({"reference": str(reference), "digest": image.digest, "platforms": platforms}, indent=2))
    else:
        print(f"{reference}  {image.digest}")
    return DONE


def _tree(reference: ImageReference, image: Image) -> dict[str, object]:
    return {
        "reference": str(reference),
        "digest": image.digest,
        "platforms": [
            {
                "platform": str(manifest.platform),
                "digest": manifest.descriptor.digest,
                "config": manifest.config.as_json(),
                "layers": [layer.as_json() for layer in manifest.layers],
            }
            for manifest in image.manifests
        ],
    }
