"""The keys of secrets at rest: a file of one key a line, in base64. The first encrypts, all of them decrypt.

AES-256-GCM with a random nonce; the row's identity is the associated data, so that a value that was moved to another
row does not open. The file is read anew each time: a rotation on the same machine needs no restart.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from albatros.errors import SecretsUnreadableError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
KEPT = 2
"""Keys that stay after a rotation: the new one, and the one that a server may just have encrypted with."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted value, and which key opens it."""

    key_id: str
    data: bytes


class Keyring:
    """One key file, made when it is needed first; for several processes of one machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def seal(self, value: str, identity: Sequence[str]) -> Sealed:
        """Encrypt for the row with this identity. Raises SecretsUnreadableError when the file is no key file."""
        key = self._keys()[0]
        nonce = secrets.token_bytes(NONCE_BYTES)
        return Sealed(_id_of(key), nonce + _cipher(key).encrypt(nonce, value.encode(), _associated(identity)))

    def open(self, sealed: Sealed, identity: Sequence[str]) -> str:
        """Decrypt. Raises SecretsUnreadableError when its key is gone, or it is another row's."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - see _cipher

        key = next((key for key in self._keys() if _id_of(key) == sealed.key_id), None)
        if key is None:
            raise SecretsUnreadableError(
                f"key {sealed.key_id} is not in {self._path}; bring it back, or set the secret again"
            )
        nonce, data = sealed.data[:NONCE_BYTES], sealed.data[NONCE_BYTES:]
        try:
            return _cipher(key).decrypt(nonce, data, _associated(identity)).decode()
        except InvalidTag:
            raise SecretsUnreadableError("its row was changed or moved in the database; set it again") from None

    def current(self) -> str:
        """The id of the key that encrypts."""
        return _id_of(self._keys()[0])

    def ids(self) -> list[str]:
        """The ids of every key, the one that encrypts first."""
        return [_id_of(key) for key in self._keys()]

    @property
    def name(self) -> str:
        """The name of the file."""
        return self._path.name

    def add(self) -> None:
        """Put a new key in front: it encrypts from now on."""
        self._write([secrets.token_bytes(KEY_BYTES), *self._keys()])

    def forget(self) -> None:
        """Drop every key but the newest ones."""
        keys = self._keys()
        if len(keys) > KEPT:
            self._write(keys[:KEPT])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the file against all others that would change it; not to be nested."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def _keys(self) -> list[bytes]:
        """Every key, the newest first."""
        if not self._path.exists():
            with self.locked():
                if not self._path.exists():
                    self._write([secrets.token_bytes(KEY_BYTES)])
        try:
            keys = [base64.b64decode(line, validate=True) for line in self._path.read_bytes().split()]
        except (OSError, binascii.Error) as error:
            raise SecretsUnreadableError(f"the key file {self._path} cannot be read: {error}") from error
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise SecretsUnreadableError(
                f"the key file {self._path} must hold keys of {KEY_BYTES} bytes in base64, one a line"
            )
        return keys

    def _write(self, keys: Sequence[bytes]) -> None:
        """Replace the file whole; it stays its owner's, whoever rotates."""
        draft = self._path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            if os.geteuid() == 0:
                owner = self._path.parent.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(b"".join(base64.b64encode(key) + b"\n" for key in keys))
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _id_of(key: bytes) -> str:
    return hashlib.sha256(b"albatros-secret-key:" + key).hexdigest()[:16]


def _associated(identity: Sequence[str]) -> bytes:
    return json.dumps(list(identity)).encode()


def _cipher(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - MiBs for servers without secrets

    return AESGCM(key)
