"""in-toto statements in DSSE envelopes in sigstore bundles 0.3: how proofs are signed.

Sources: in-toto Statement v1, DSSE 1.0 (protocol.md), sigstore protobuf-specs `sigstore_bundle.proto`. There is no
transparency log: whoever checks has the key.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING

from albatros.domain.references import Digest
from albatros.errors import ImageError
from albatros.images.model import Descriptor, JsonObject, canonical_json, parse_json_object
from albatros.images.referrers import Artifact, make_artifact

if TYPE_CHECKING:
    from albatros.images.keys import PublicKey, SigningKey

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT = "application/vnd.in-toto+json"
PREDICATE_ANNOTATION = "dev.sigstore.bundle.predicateType"
UNSIGNED_PREDICATE_ANNOTATION = "in-toto.io/predicate-type"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_CONTENT = {"dev.sigstore.bundle.content": "dsse-envelope"}


def make_statement(subject: Digest, name: str, predicate_type: str, predicate: Mapping[str, object]) -> bytes:
    """A statement about one manifest, known as `name`."""
    value: JsonObject = {
        "_type": _STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": subject.removeprefix("sha256:")}}],
        "predicateType": predicate_type,
        "predicate": dict(predicate),
    }
    return canonical_json(value, "a statement")


def make_proof(subject: Descriptor, statement: bytes, predicate_type: str, key: SigningKey | None) -> Artifact:
    """The artifact of a statement: signed in a bundle, or without a key as it is."""
    if key is None:
        return make_artifact(subject, STATEMENT, statement, {UNSIGNED_PREDICATE_ANNOTATION: predicate_type})
    annotations = {**_CONTENT, PREDICATE_ANNOTATION: predicate_type}
    return make_artifact(subject, BUNDLE, _seal(statement, key), annotations)


def open_bundle(data: bytes, key: PublicKey) -> JsonObject | None:
    """The statement in a bundle that this key signed; None for one of another key. Raises ImageError."""
    envelope = parse_json_object(data, "a bundle").get("dsseEnvelope")
    if not isinstance(envelope, dict):
        raise ImageError("a bundle holds no DSSE envelope")
    payload, signatures = _decode(envelope.get("payload")), envelope.get("signatures")
    if envelope.get("payloadType") != STATEMENT or not isinstance(signatures, list):
        raise ImageError("a bundle's envelope holds no signed statement")
    encoded = [item.get("sig") for item in signatures[:16] if isinstance(item, dict)]
    if not any(key.verifies(_decode(signature), _signed_bytes(payload)) for signature in encoded):
        return None
    return parse_json_object(payload, "a signed statement")


def statement_subjects(statement: JsonObject) -> list[tuple[str, str]]:
    """Name and digest of what a statement is about."""
    subjects = statement.get("subject")
    found: list[tuple[str, str]] = []
    for item in subjects if isinstance(subjects, list) else ():
        digests = item.get("digest") if isinstance(item, dict) else None
        if isinstance(digests, dict):
            found.append((str(item.get("name", "")), f"sha256:{digests.get('sha256', '')}"))
    return found


def _seal(statement: bytes, key: SigningKey) -> bytes:
    value: JsonObject = {
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": key.public.hint}},
        "dsseEnvelope": {
            "payload": base64.b64encode(statement).decode(),
            "payloadType": STATEMENT,
            "signatures": [{"sig": base64.b64encode(key.sign(_signed_bytes(statement))).decode()}],
        },
    }
    return canonical_json(value, "a bundle")


def _signed_bytes(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %b %d %b" % (len(STATEMENT), STATEMENT.encode(), len(payload), payload)


def _decode(value: object) -> bytes:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (ValueError, binascii.Error) as error:
        raise ImageError("a bundle holds what is not base64") from error
