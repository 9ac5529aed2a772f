"""Keys that sign images: ECDSA on P-256 with SHA-256, the kind that cosign uses, in PEM.

Signatures are deterministic (RFC 6979), so that signing an image again gives the same bytes and sends nothing.
"""

from __future__ import annotations

import base64
import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
    load_pem_public_key,
)

from albatros.errors import ConfigError

_HOW = "make one with: openssl ecparam -name prime256v1 -genkey -noout -out KEY"


class PublicKey:
    """Checks signatures."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key

    @classmethod
    def parse(cls, pem: bytes, origin: str) -> PublicKey:
        """Read a public key in PEM; `origin` names it in errors. Raises ConfigError."""
        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ConfigError(f"{origin} is not a public key in PEM; write it with: openssl ec -pubout") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ConfigError(f"{origin} is not a key on the curve P-256, which images are signed with")
        return cls(key)

    @property
    def hint(self) -> str:
        """The SHA-256 of the key's DER form in base64, by which a sigstore bundle names its key."""
        der = self._key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(hashlib.sha256(der).digest()).decode()

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether this key's owner signed `data`."""
        try:
            self._key.verify(signature, data, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """Makes signatures."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    @classmethod
    def parse(cls, pem: bytes, passphrase: str, origin: str) -> SigningKey:
        """Read a private key in PEM (PKCS#8, SEC 1, cosign's own); `origin` names it in errors. Raises ConfigError."""
        try:
            key = _load(pem, passphrase, origin)
        except TypeError as error:
            needed = "has no passphrase, but one is given" if passphrase else "is encrypted; give its passphrase"
            raise ConfigError(f"{origin} {needed}") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ConfigError(f"{origin} is not a private key in PEM, or its passphrase is wrong; {_HOW}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ConfigError(f"{origin} is not a key on the curve P-256; {_HOW}")
        return cls(key)

    @property
    def public(self) -> PublicKey:
        """What others check its signatures with."""
        return PublicKey(self._key.public_key())

    def sign(self, data: bytes) -> bytes:
        """A signature of `data` (DER)."""
        return self._key.sign(data, ec.ECDSA(SHA256(), deterministic_signing=True))


def _load(pem: bytes, passphrase: str, origin: str) -> PrivateKeyTypes:
    if b"BEGIN ENCRYPTED SIGSTORE" not in pem and b"BEGIN ENCRYPTED COSIGN" not in pem:
        return load_pem_private_key(pem, passphrase.encode() or None)
    from albatros.images.cosign_key import decrypt  # noqa: PLC0415 - its library is for these keys alone

    return load_der_private_key(decrypt(pem, passphrase, origin), None)
