"""Opening the registry that an address names: the one place that knows which adapter belongs to which scheme."""

from __future__ import annotations

from typing import TYPE_CHECKING

from albatros.domain.references import RegistryKind, RegistryUrl
from albatros.errors import UsageError
from albatros.registries.base import Credentials, Registry

if TYPE_CHECKING:
    from albatros.registries.objects import ObjectStore
    from albatros.registries.retry import RetryPolicy


def open_registry(
    url: RegistryUrl, credentials: Credentials | None = None, policy: RetryPolicy | None = None
) -> Registry:
    """The registry at `url`; nothing is asked of it yet.

    `credentials` are for `docker://`, where None is anonymous, and for `s3://`, where None looks for AWS's own;
    `policy` says how often `docker://` is tried.
    Raises ConfigError when there are no keys for S3.
    """
    if url.kind is RegistryKind.DOCKER:
        from albatros.registries.oci import OciRegistry  # noqa: PLC0415 - each adapter costs start-up time of its own

        return OciRegistry(url, credentials, policy)
    from albatros.registries.static import StaticRegistry  # noqa: PLC0415 - as above

    return StaticRegistry(open_objects(url, credentials), url.s3.address if url.s3 else str(url))


def open_objects(url: RegistryUrl, credentials: Credentials | None = None) -> ObjectStore:
    """The objects of a static registry. Raises UsageError for another kind, ConfigError without keys for S3."""
    if url.kind is RegistryKind.DIR:
        from albatros.registries.objects import DirectoryObjects  # noqa: PLC0415 - as above

        return DirectoryObjects(url.path)
    if url.s3 is None:
        raise UsageError(f"{url} is no static registry; those are dir:PATH and s3://BUCKET/PREFIX?endpoint=URL")
    from albatros.registries.aws import S3Keys, find_keys  # noqa: PLC0415 - for those who publish to S3 only
    from albatros.registries.objects_s3 import S3Objects  # noqa: PLC0415 - as above

    return S3Objects(url.s3, S3Keys.of(credentials) if credentials else find_keys())
