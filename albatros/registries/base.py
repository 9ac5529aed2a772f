"""The protocol of a registry: what publishing, copying and verifying need of one.

Every call may be repeated without harm. All raise RegistryUnavailableError when a later try may help and RegistryError
when it will not; neither text holds a credential.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from albatros.domain.references import Blob, Digest

BlobOpener = Callable[[], AbstractContextManager[BinaryIO]]
"""Opens a blob from its start; called once per try."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or index: its media type and exact bytes."""

    media_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and a password or token for one registry; `origin` says where they came from, for errors.

    `identity_token`, where one is given, is an OAuth2 refresh token and stands for both.
    """

    username: str
    password: str = field(repr=False)
    origin: str
    identity_token: str = field(default="", repr=False)


class Registry(Protocol):
    """One configured target; names are relative to its prefix. Safe to call from several threads."""

    @property
    def address(self) -> str:
        """What stands before `/NAME:TAG` in a reference for people; never a credential."""

    def hold(self, name: str, digests: Sequence[Digest], /) -> AbstractContextManager[None]:
        """Keep these digests from being collected while the context is open."""

    def blob_size(self, name: str, digest: Digest) -> int | None:
        """The size in bytes of a blob that is there; None when it is not."""

    def put_blob(self, name: str, blob: Blob, open_blob: BlobOpener, mount_from: Sequence[str] = (), /) -> bool:
        """Store a blob, its digest checked; False when it came from one of the names `mount_from` and none was sent."""

    def put_manifest(self, name: str, reference: str, manifest: Manifest) -> bool:
        """Store exact bytes under their digest, or move a tag to them; True when it now lists them under their
        `subject` by itself."""

    def get_manifest(self, name: str, reference: str) -> Manifest | None:
        """The manifest under a tag or digest, at most 4 MiB; None when it is not there."""

    def get_referrers(self, name: str, subject: Digest) -> Manifest | None:
        """The index of what refers to a manifest; None when the registry does not keep one."""

    def open_blob(self, name: str, blob: Blob) -> AbstractContextManager[BinaryIO]:
        """Read a blob's bytes, which are not verified. Raises NotFoundError."""

    def list_tags(self, name: str) -> list[str]:
        """Every tag of a name, sorted; empty for a name that is not there."""

    def close(self) -> None:
        """Let go of connections; the registry is not used afterwards."""
