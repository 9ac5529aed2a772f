"""The keys that commands are given as files."""

from __future__ import annotations

import os
from pathlib import Path

from albatros.errors import UsageError
from albatros.images.keys import PublicKey, SigningKey

PASSPHRASE = "COSIGN_PASSWORD"  # noqa: S105 - the name of the variable, which cosign reads too


def read_signing_key(path: str | None) -> SigningKey | None:
    """The private key in a file, its passphrase from the environment. Raises UsageError or ConfigError."""
    if path is None:
        return None
    return SigningKey.parse(_read(path), os.environ.get(PASSPHRASE, ""), path)


def read_public_key(path: str | None) -> PublicKey | None:
    """The public key in a file. Raises UsageError or ConfigError."""
    return None if path is None else PublicKey.parse(_read(path), path)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"the key {path} cannot be read: {error.strerror}") from error
