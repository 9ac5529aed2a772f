"""Signatures: what they say, where they are, and who can be taken in by them."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from albatros.domain.references import digest_of
from albatros.errors import ConfigError, ImageError
from albatros.images.bundle import BUNDLE
from albatros.images.copy import PublishedBlobs, read_proofs
from albatros.images.keys import PublicKey, SigningKey
from albatros.images.model import Image
from albatros.images.publish import publish
from albatros.images.referrers import list_referrers, make_artifact
from albatros.images.signing import Claims, PayloadSignature, SignatureTag, identity, sign_image, signature_tag
from albatros.images.trust import Expected, check_signature
from tests.support.images import make_image
from tests.support.memory_registry import MemoryRegistry
from tests.support.stores import MemoryStore

NAME = "alba/hello"
FULL = f"memory.example.org/{NAME}"
CLAIMS = Claims(FULL, "https://git.example.org/alba/hello", "0123456789abcdef0123456789abcdef01234567")
EXPECTED = Expected(CLAIMS.name, CLAIMS.repo, CLAIMS.commit)


def new_pem(form: PrivateFormat = PrivateFormat.PKCS8, passphrase: str = "") -> bytes:
    encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, form, encryption)


COSIGN_KEY = b"""\
-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----
eyJrZGYiOnsibmFtZSI6InNjcnlwdCIsInBhcmFtcyI6eyJOIjo2NTUzNiwiciI6
OCwicCI6MX0sInNhbHQiOiIrcFVSZjJFQmJ5TFVXL253V3g3Qm9QZTlJNG5FbWd3
K25YR2RpQ2JJL2ZBPSJ9LCJjaXBoZXIiOnsibmFtZSI6Im5hY2wvc2VjcmV0Ym94
Iiwibm9uY2UiOiIwbnQzZ1AxRVM3QWlnOVZpQlNWWURoelB2SUVZTEFXNCJ9LCJj
aXBoZXJ0ZXh0IjoiQ2dHS1gwUDMyUkV6YXFZSFVBdVBiV1oyamUxZU1DVWFCd0dD
ejBBd3JWU1NLWHBqYk1kZmVxWHNLUUZOaXd4UzF5bGRHcCtNTzh3UmRYNVNYZzNp
OXdCZlBqemRUeDgwaGE0OEpNUkVzaUo0VWdXUU82ZmZuNy9DYlkwWjZrWjhBbERu
SWZ1UlU1UEo5L3IrcG1ST0VZQ2Jsd2NQZ09uYVEwMlBVQ3Q0TWI5cU1mRGN5emo3
NEJMcUNwNVBHcS9zUTl2M1RROUpNZUpVQlE9PSJ9
-----END ENCRYPTED SIGSTORE PRIVATE KEY-----
"""
"""Made by `cosign generate-key-pair` 2.6.5 for these tests; its password is hunter22."""
COSIGN_PUBLIC = b"""\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE4D3QvBGJy2ydBe1jRjr/sa0kw0nw
hryVvLY11nFGYfqrrQrLM09j/H8Fk1qLVJ3/LhUsPBGnxY7uyY5HeZQo8A==
-----END PUBLIC KEY-----
"""


def cosign_key(**change: object) -> bytes:
    """The same with something else in it."""
    head, body, tail = COSIGN_KEY.split(b"-----\n")[0], COSIGN_KEY.split(b"-----")[2], b"-----END ENCRYPTED SIGSTORE"
    value = json.loads(base64.b64decode(body)) | change
    return head + b"-----\n" + base64.b64encode(json.dumps(value).encode()) + b"\n" + tail + b" PRIVATE KEY-----\n"


def new_key() -> SigningKey:
    return SigningKey.parse(new_pem(), "", "key")


@pytest.fixture
def key() -> SigningKey:
    return new_key()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def image(store: MemoryStore) -> Image:
    return make_image(store)


@pytest.fixture
def registry(image: Image, store: MemoryStore, key: SigningKey) -> MemoryRegistry:
    found = MemoryRegistry()
    publish(image, store, found, NAME, ["v1"], proofs=sign_image(image, key, CLAIMS))
    return found


def drop_bundles(registry: MemoryRegistry, image: Image) -> None:
    for subject in (image.descriptor, *(manifest.descriptor for manifest in image.manifests)):
        del registry.manifests[NAME, subject.digest.replace(":", "-")]


def drop_tags(registry: MemoryRegistry) -> None:
    for tag in [tag for tag in registry.list_tags(NAME) if tag.endswith(".sig")]:
        del registry.manifests[NAME, tag]


@pytest.mark.parametrize("label", [b"SIGSTORE", b"COSIGN"])
def test_keys_that_cosign_writes(label: bytes) -> None:
    key = SigningKey.parse(COSIGN_KEY.replace(b"SIGSTORE", label), "hunter22", "key")
    assert PublicKey.parse(COSIGN_PUBLIC, "pub").verifies(key.sign(b"data"), b"data")


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("passphrase", ["", "open sesame"])
def test_keys_that_openssl_writes(form: PrivateFormat, passphrase: str) -> None:
    key = SigningKey.parse(new_pem(form, passphrase), passphrase, "key")
    assert key.public.verifies(key.sign(b"text"), b"text")
    assert not key.public.verifies(key.sign(b"text"), b"other")
    assert not key.public.verifies(b"", b"text")
    assert key.sign(b"text") == key.sign(b"text")


def test_keys_that_cannot_be_used_say_why() -> None:
    locked = new_pem(passphrase="open sesame")
    p384 = ec.generate_private_key(ec.SECP384R1())
    other = rsa.generate_private_key(65537, 2048)
    pem = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for data, passphrase, text in (
        (locked, "", "is encrypted; give its passphrase"),
        (locked, "wrong", "its passphrase is wrong"),
        (new_pem(), "needless", "has no passphrase"),
        (b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n", "x", "but is damaged"),
        (COSIGN_KEY.replace(b"eyJr", b"eyJ!", 1), "hunter22", "but is damaged"),
        (cosign_key(kdf={"name": "argon2"}), "hunter22", "not with scrypt and nacl/secretbox"),
        (cosign_key(kdf={"name": "scrypt", "params": {"N": 2**40, "r": 8, "p": 1}, "salt": ""}), "x", "but is damaged"),
        (COSIGN_KEY, "hunter33", "does not open with its passphrase"),
        (COSIGN_KEY, "", "is encrypted; give its passphrase"),
        (b"nothing", "", "not a private key"),
        (p384.private_bytes(*pem), "", "P-256"),
        (other.private_bytes(*pem), "", "P-256"),
    ):
        with pytest.raises(ConfigError, match=text):
            SigningKey.parse(data, passphrase, "key")
    public = p384.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for data, text in ((public, "P-256"), (b"nothing", "not a public key")):
        with pytest.raises(ConfigError, match=text):
            PublicKey.parse(data, "key")


def test_what_is_signed_verifies_by_either_form(registry: MemoryRegistry, image: Image, key: SigningKey) -> None:
    for subject in (image.digest, *(manifest.descriptor.digest for manifest in image.manifests)):
        assert check_signature(registry, NAME, subject, key.public, EXPECTED) == CLAIMS
        assert check_signature(registry, NAME, subject, key.public, Expected(FULL)) == CLAIMS
    both = dict(registry.manifests)
    drop_bundles(registry, image)
    assert check_signature(registry, NAME, image.digest, key.public, EXPECTED) == CLAIMS
    registry.manifests = both
    drop_tags(registry)
    assert check_signature(registry, NAME, image.digest, key.public, EXPECTED) == CLAIMS
    drop_bundles(registry, image)
    with pytest.raises(ImageError, match="no signature of this key"):
        check_signature(registry, NAME, image.digest, key.public, EXPECTED)


@pytest.mark.parametrize("bundles", [True, False])
def test_a_signature_says_nothing_else(registry: MemoryRegistry, image: Image, key: SigningKey, bundles: bool) -> None:
    if bundles:
        drop_tags(registry)
    else:
        drop_bundles(registry, image)
    for expected, text in (
        (Expected("memory.example.org/alba/other"), "for the name"),
        (Expected(FULL, repo="https://git.example.org/mallory/hello"), "for the repo"),
        (Expected(FULL, commit="f" * 40), "for the commit"),
    ):
        with pytest.raises(ImageError, match=text):
            check_signature(registry, NAME, image.digest, key.public, expected)
    with pytest.raises(ImageError, match="no signature of this key"):
        check_signature(registry, NAME, image.digest, new_key().public, EXPECTED)


def test_a_signature_of_another_image_is_none(
    registry: MemoryRegistry, image: Image, store: MemoryStore, key: SigningKey
) -> None:
    """Mallory puts the honest image's signatures beside her own image."""
    mine = make_image(store, b"mallory")
    publish(mine, store, registry, NAME, ["v1"])
    for old, new in ((image.digest, mine.digest),):
        registry.manifests[NAME, signature_tag(new)] = registry.manifests[NAME, signature_tag(old)]
        for referrer in list_referrers(registry, NAME, old):
            layer = json.loads(registry.manifests[NAME, referrer.digest].data)["layers"][0]
            data = registry.blobs[NAME, layer["digest"]]
            make_artifact(mine.descriptor, BUNDLE, data, {}).push(registry, NAME)
    with pytest.raises(ImageError, match="no signature of this key"):
        check_signature(registry, NAME, mine.digest, key.public, EXPECTED)


def test_a_payload_that_was_changed_is_no_signature(registry: MemoryRegistry, image: Image, key: SigningKey) -> None:
    drop_bundles(registry, image)
    layer = json.loads(registry.manifests[NAME, signature_tag(image.digest)].data)["layers"][0]
    payload = registry.blobs[NAME, layer["digest"]]
    forged = payload.replace(b"alba/hello", b"alba/other")
    drop_tags(registry)
    SignatureTag(image.digest, (PayloadSignature(forged, layer["annotations"]),)).push(registry, NAME)
    with pytest.raises(ImageError, match="no signature of this key"):
        check_signature(registry, NAME, image.digest, key.public, Expected("memory.example.org/alba/other"))


def test_no_signature_without_a_commit_passes_for_one_with_it(
    image: Image, store: MemoryStore, key: SigningKey
) -> None:
    registry = MemoryRegistry()
    publish(image, store, registry, NAME, ["v1"], proofs=sign_image(image, key, Claims(FULL)))
    with pytest.raises(ImageError, match="without the commit"):
        check_signature(registry, NAME, image.digest, key.public, EXPECTED)


def test_signing_again_writes_nothing_and_others_signatures_stay(
    registry: MemoryRegistry, image: Image, store: MemoryStore, key: SigningKey
) -> None:
    before = dict(registry.manifests)
    publish(image, store, registry, NAME, ["v1"], proofs=sign_image(image, key, CLAIMS))
    assert registry.manifests == before
    other = new_key()
    publish(image, store, registry, NAME, ["v1"], proofs=sign_image(image, other, CLAIMS))
    for one in (key, other):
        check_signature(registry, NAME, image.digest, one.public, EXPECTED)
    kept = dict(registry.manifests)
    drop_bundles(registry, image)
    for one in (key, other):
        check_signature(registry, NAME, image.digest, one.public, EXPECTED)
    registry.manifests = kept
    drop_tags(registry)
    for one in (key, other):
        check_signature(registry, NAME, image.digest, one.public, EXPECTED)


def test_the_tag_moves_after_the_proofs(image: Image, store: MemoryStore, key: SigningKey) -> None:
    registry = MemoryRegistry()
    publish(image, store, registry, NAME, ["v1"], proofs=sign_image(image, key, CLAIMS))
    assert [tag for _, tag, _ in registry.moves][-1] == "v1"
    assert [tag for _, tag, _ in registry.moves].count("v1") == 1


def test_the_payload_is_the_one_that_cosign_reads(registry: MemoryRegistry, image: Image) -> None:
    manifest = json.loads(registry.manifests[NAME, signature_tag(image.digest)].data)
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.dev.cosign.simplesigning.v1+json"
    assert base64.b64decode(layer["annotations"]["dev.cosignproject.cosign/signature"])
    assert json.loads(registry.blobs[NAME, layer["digest"]]) == {
        "critical": {
            "identity": {"docker-reference": FULL},
            "image": {"docker-manifest-digest": image.digest},
            "type": "cosign container image signature",
        },
        "optional": {"repo": CLAIMS.repo, "commit": CLAIMS.commit},
    }
    (bundle,) = [found for found in list_referrers(registry, NAME, image.digest) if found.artifact_type == BUNDLE]
    assert bundle.annotations["dev.sigstore.bundle.content"] == "dsse-envelope"


def test_the_name_in_a_signature() -> None:
    assert identity("docker.io/alba", "hello") == "docker.io/alba/hello"
    assert identity("localhost:5000", "alba/hello") == "localhost:5000/alba/hello"
    assert identity("dir:/srv/registry", "alba/hello") == "alba/hello"


def test_a_mirror_has_all_proofs(registry: MemoryRegistry, image: Image, key: SigningKey) -> None:
    note = make_artifact(image.descriptor, "text/plain", b"about the image", {"a": "b"})
    note.push(registry, NAME)
    about = make_artifact(
        type(image.descriptor)("application/vnd.oci.image.manifest.v1+json", note.digest, len(note.manifest.data)),
        "text/plain",
        b"about the note",
        {},
    )
    about.push(registry, NAME)
    mirror = MemoryRegistry()
    blobs = PublishedBlobs(registry, NAME, image)
    publish(image, blobs, mirror, "mirrored/hello", ["v2"], proofs=read_proofs(registry, NAME, image))
    assert check_signature(mirror, "mirrored/hello", image.digest, key.public, EXPECTED) == CLAIMS
    for subject in (image.digest, note.digest):
        assert list_referrers(mirror, "mirrored/hello", subject) == list_referrers(registry, NAME, subject)
    assert {digest for _, digest in mirror.blobs} == {digest for _, digest in registry.blobs}
    assert digest_of(b"about the note") in {digest for _, digest in mirror.blobs}


def test_a_registry_cannot_keep_a_mirror_busy_for_ever(
    registry: MemoryRegistry, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("albatros.images.copy.MAX_PROOFS", 3)
    for number in range(4):
        make_artifact(image.descriptor, "text/plain", b"%d" % number, {}).push(registry, NAME)
    with pytest.raises(ImageError, match="more than 3 proofs"):
        read_proofs(registry, NAME, image)
