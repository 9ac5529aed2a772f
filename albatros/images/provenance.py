"""Provenance: SLSA v1 of a Nix build, as an in-toto statement on the index and on each platform's manifest.

Source: slsa.dev/spec/v1.0/provenance. A manifest's statement names its own derivation, the index's names all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from albatros.domain.platforms import Platform
from albatros.images.bundle import make_proof, make_statement
from albatros.images.model import Image, JsonObject
from albatros.images.referrers import Artifact

if TYPE_CHECKING:
    from albatros.images.keys import SigningKey

PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:albatros:build:nix-flake:1"
"""externalParameters: source, ref, attributes; resolvedDependencies: the commit, then a derivation a platform."""
SCRIPT_TYPE = "urn:albatros:build:script:1"
"""The repo's own program made it; externalParameters: source, ref; resolvedDependencies: the commit."""


@dataclass(frozen=True, slots=True)
class Derivation:
    """What one platform was built from."""

    attribute: str
    drv_path: str


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """What is known of a Build: where its source is, who built it (a URI), and which run that was (a URI)."""

    source: str
    ref: str
    commit: str
    builder: str
    invocation: str
    derivations: Mapping[Platform, Derivation]


def make_provenance(image: Image, name: str, build: BuildRecord, key: SigningKey | None) -> list[Artifact]:
    """A statement for each manifest whose derivation is known and one for the index; signed when there is a key."""
    every = sorted(build.derivations.items())
    own = [
        (manifest.descriptor, [build.derivations[manifest.platform]])
        for manifest in image.manifests
        if manifest.platform in build.derivations
    ]
    return [
        make_proof(
            subject,
            make_statement(subject.digest, name, PREDICATE, _predicate(build, derivations)),
            PREDICATE,
            key,
        )
        for subject, derivations in [(image.descriptor, [derivation for _, derivation in every]), *own]
    ]


def _predicate(build: BuildRecord, derivations: list[Derivation]) -> JsonObject:
    source = {"uri": f"git+{build.source}@{build.ref}", "digest": {"gitCommit": build.commit}}
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE if build.derivations else SCRIPT_TYPE,
            "externalParameters": {
                "source": build.source,
                "ref": build.ref,
                **({"attributes": [one.attribute for one in derivations]} if derivations else {}),
            },
            "internalParameters": {},
            "resolvedDependencies": [
                source,
                *({"name": item.attribute, "uri": f"nix:{item.drv_path}"} for item in derivations),
            ],
        },
        "runDetails": {"builder": {"id": build.builder}, "metadata": {"invocationId": build.invocation}},
    }
