"""Bills of materials: CycloneDX 1.6 in JSON, for the index and for each platform's manifest, as referrers.

Equal components give equal bytes: the serial number follows from the image's digest, the time is the image's own.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from albatros.domain.platforms import Platform
from albatros.images.components import Component, union
from albatros.images.model import Descriptor, Image
from albatros.images.referrers import Artifact, make_artifact

SBOM = "application/vnd.cyclonedx+json"


def make_sboms(
    image: Image, name: str, created: datetime | None, components: Mapping[Platform, Sequence[Component]]
) -> list[Artifact]:
    """A bill of materials for each manifest that has components, and one of them all for the index."""
    about = [(manifest.descriptor, components.get(manifest.platform, ())) for manifest in image.manifests]
    about.append((image.descriptor, union(components.values())))
    return [
        make_artifact(subject, SBOM, write_sbom(subject, name, created, found), {}) for subject, found in about if found
    ]


def write_sbom(subject: Descriptor, name: str, created: datetime | None, components: Sequence[Component]) -> bytes:
    """The document for one manifest or index."""
    # Its schema classes cost a third of a second, and most commands need none of them.
    from cyclonedx.model import Property  # noqa: PLC0415 - as said above
    from cyclonedx.model.bom import Bom  # noqa: PLC0415 - as said above
    from cyclonedx.model.component import Component as Part  # noqa: PLC0415 - as said above
    from cyclonedx.model.component import ComponentType  # noqa: PLC0415 - as said above
    from cyclonedx.output.json import JsonV1Dot6  # noqa: PLC0415 - as said above
    from packageurl import PackageURL  # noqa: PLC0415 - as said above

    def part(component: Component) -> Part:
        purl = PackageURL(component.purl_type, None, component.name, component.version or None)
        said = [Property(name=key, value=value) for key, value in component.properties]
        path = dict(component.properties).get("nix:store-path")
        return Part(
            type=ComponentType.LIBRARY,
            name=component.name,
            version=component.version or None,
            purl=purl,
            bom_ref=path or purl.to_string(),
            properties=said,
        )

    parts = [part(component) for component in components]
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"oci:{subject.digest}"), components=parts)
    bom.metadata.timestamp = created or datetime.fromtimestamp(1, UTC)
    whole = Part(type=ComponentType.CONTAINER, name=name, version=subject.digest, bom_ref=subject.digest)
    bom.metadata.component = whole
    bom.register_dependency(whole, parts)
    return JsonV1Dot6(bom).output_as_string().encode()
