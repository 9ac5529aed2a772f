"""What `albatros image copy` does: a published image, with all that is said about it, to another registry."""

from __future__ import annotations

from albatros.cli import DONE
from albatros.cli.image_target import open_target, parse_reference, shown_reference
from albatros.cli.output import note, print_json
from albatros.cli.progress import Progress, WatchedBlobs
from albatros.domain.references import ImageReference, RegistryUrl, is_digest, split_tag
from albatros.images.copy import PublishedBlobs, read_proofs
from albatros.images.publish import publish
from albatros.images.verify import read_published


def copy(text: str, destination: str, names: list[str], *, as_json: bool) -> int:
    """Copy to one registry, under its own name and tag unless others are given. A digest alone moves no tag."""
    reference, url = parse_reference(text), RegistryUrl.parse(destination)
    own_tags = [] if is_digest(reference.reference) else [reference.reference]
    targets = [split_tag(given) for given in names] or [(reference.name, None)]
    progress = Progress()
    copied: list[ImageReference] = []
    sent = skipped = 0
    with open_target(reference.registry) as source, open_target(url) as target:
        image = read_published(source, reference.name, reference.reference)
        proofs = read_proofs(source, reference.name, image)
        blobs = WatchedBlobs(PublishedBlobs(source, reference.name, image), progress, str(url))
        for name, tag in targets:
            tags = [tag] if tag else own_tags
            report = publish(
                image, blobs, target, name, tags, proofs=proofs, observe=lambda event: progress.event(str(url), event)
            )
            sent, skipped = sent + report.bytes_sent, skipped + report.bytes_skipped
            copied += [shown_reference(url, name, moved) for moved in tags or [image.digest]]
    if as_json:
        numbers = {"proofs": len(proofs), "bytes_sent": sent, "bytes_skipped": skipped}
        print_json({"digest": image.digest, "references": [str(reference) for reference in copied], **numbers})
        return DONE
    for place in copied:
        print(place if is_digest(place.reference) else place.pinned(image.digest))
    note(f"{url}: sent {sent} bytes, {skipped} were there; {len(proofs)} signatures and other proofs")
    return DONE
