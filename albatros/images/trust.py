"""Whether a published image carries a signature of a key that says what is expected of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from albatros.domain.references import Digest
from albatros.errors import BadInputError, ImageError
from albatros.images.bundle import BUNDLE, open_bundle, statement_subjects
from albatros.images.keys import PublicKey
from albatros.images.model import parse_json_object
from albatros.images.referrers import list_referrers, read_artifact, read_only_layer
from albatros.images.signing import PAYLOAD_TYPE, SIGN_PREDICATE, Claims, read_signatures
from albatros.registries.base import Registry


@dataclass(frozen=True, slots=True)
class Expected:
    """What a signature has to say; empty repo and commit may be anything."""

    name: str
    repo: str = ""
    commit: str = ""


def check_signature(registry: Registry, name: str, subject: Digest, key: PublicKey, expected: Expected) -> Claims:
    """Find a signature of `key` on a manifest that says what is expected. Raises ImageError that says what it found."""
    reasons: list[str] = []
    for claims in _signed_claims(registry, name, subject, key):
        wrong = _differences(claims, expected)
        if not wrong:
            return claims
        reasons += wrong
    if reasons:
        raise ImageError(f"{subject} is signed with this key, but {'; '.join(sorted(set(reasons)))}")
    raise ImageError(f"{registry.address}/{name} has no signature of this key on {subject}")


def _differences(claims: Claims, expected: Expected) -> list[str]:
    pairs = (
        ("name", claims.name, expected.name),
        ("repo", claims.repo, expected.repo),
        ("commit", claims.commit, expected.commit),
    )
    return [
        f"for the {what} {said[:200]!r} instead of {wanted!r}" if said else f"without the {what}, {wanted!r} is wanted"
        for what, said, wanted in pairs
        if wanted and said != wanted
    ]


def _signed_claims(registry: Registry, name: str, subject: Digest, key: PublicKey) -> Iterator[Claims]:
    """What this key signed about a manifest. Other people's signatures, readable or not, change nothing."""
    for signature in read_signatures(registry, name, subject):
        if key.verifies(signature.signature, signature.payload):
            claims = _payload_claims(signature.payload, subject)
            if claims is not None:
                yield claims
    for referrer in list_referrers(registry, name, subject):
        if referrer.artifact_type != BUNDLE:
            continue
        try:
            statement = open_bundle(read_only_layer(read_artifact(registry, name, subject, referrer)), key)
        except (ImageError, BadInputError):
            continue
        if statement is None or statement.get("predicateType") != SIGN_PREDICATE:
            continue
        for signed_name, digest in statement_subjects(statement):
            if digest == subject:
                yield _claims(signed_name, statement.get("predicate"))


def _payload_claims(payload: bytes, subject: Digest) -> Claims | None:
    value = parse_json_object(payload, "a signed payload")
    critical = value.get("critical")
    if not isinstance(critical, dict) or critical.get("type") != PAYLOAD_TYPE:
        return None
    image, named = critical.get("image"), critical.get("identity")
    if not isinstance(image, dict) or image.get("docker-manifest-digest") != subject:
        return None
    return _claims(named.get("docker-reference") if isinstance(named, dict) else "", value.get("optional"))


def _claims(name: object, origin: object) -> Claims:
    said = origin if isinstance(origin, dict) else {}
    repo, commit = said.get("repo"), said.get("commit")
    return Claims(*(text if isinstance(text, str) else "" for text in (name, repo, commit)))
