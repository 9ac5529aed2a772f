"""Private keys as `cosign generate-key-pair` writes them: PEM around JSON that says how a PKCS#8 key is encrypted.

The key of NaCl's secretbox comes from the passphrase by scrypt (secure-systems-lab/go-securesystemslib, `encrypted`).
"""

from __future__ import annotations

import base64
import hashlib
import re

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from albatros.errors import ConfigError, ImageError
from albatros.images.model import JsonObject, parse_json_object

_PEM = re.compile(rb"-----BEGIN ENCRYPTED \w+ PRIVATE KEY-----(?P<body>.+?)-----END ", re.DOTALL)
_MOST_MEMORY = 1 << 30
"""Bytes that scrypt may need; cosign's own keys need 64 MiB."""


def decrypt(pem: bytes, passphrase: str, origin: str) -> bytes:
    """The key in PKCS#8 (DER); `origin` names it in errors. Raises ConfigError, also for a wrong passphrase."""
    match = _PEM.search(pem)
    try:
        value = parse_json_object(base64.b64decode(match["body"] if match else b""), "it")
        kdf, cipher = _object(value, "kdf"), _object(value, "cipher")
        names = (kdf.get("name"), cipher.get("name"))
        if names != ("scrypt", "nacl/secretbox"):
            raise ConfigError(f"{origin} is encrypted with {names!r:.100}, not with scrypt and nacl/secretbox")
        box = SecretBox(_scrypt(passphrase, _object(kdf, "params"), _bytes(kdf, "salt")))
        ciphertext, nonce = _bytes(value, "ciphertext"), _bytes(cipher, "nonce")
    except (ImageError, TypeError, ValueError, KeyError) as error:
        raise ConfigError(f"{origin} looks like a key of cosign, but is damaged") from error
    try:
        return box.decrypt(ciphertext, nonce)
    except (CryptoError, ValueError) as error:
        wrong = "does not open with its passphrase" if passphrase else "is encrypted; give its passphrase"
        raise ConfigError(f"{origin} {wrong}") from error


def _scrypt(passphrase: str, params: JsonObject, salt: bytes) -> bytes:
    n, r, p = (int(str(params[key])) for key in ("N", "r", "p"))
    needed = 128 * r * (n + p + 2)
    if not 0 < needed <= _MOST_MEMORY:
        raise ValueError("scrypt would need too much memory")
    return hashlib.scrypt(
        passphrase.encode(), salt=salt, n=n, r=r, p=p, maxmem=needed + (1 << 20), dklen=SecretBox.KEY_SIZE
    )


def _object(value: JsonObject, key: str) -> JsonObject:
    found = value[key]
    if not isinstance(found, dict):
        raise TypeError(key)
    return found


def _bytes(value: JsonObject, key: str) -> bytes:
    return base64.b64decode(str(value[key]), validate=True)
