"""Opening the registry that an address names: the one place that knows which adapter belongs to which scheme."""

from __future__ import annotations

from albatros.domain.references import RegistryKind, RegistryUrl
from albatros.domain.s3 import S3Location
from albatros.registries.base import Credentials, Registry
from albatros.registries.objects import DirectoryObjects
from albatros.registries.static import StaticRegistry


def open_registry(url: RegistryUrl, credentials: Credentials | None = None) -> Registry:
    """The registry at `url`; nothing is asked of it yet.

    `credentials` are for `docker://`, where None is anonymous, and for `s3://`, where None looks for AWS's own.
    Raises ConfigError when there are no keys for S3.
    """
    if url.s3 is not None:
        return _open_s3(url.s3, credentials)
    if url.kind is RegistryKind.DIR:
        return StaticRegistry(DirectoryObjects(url.path), str(url))
    from albatros.registries.oci import OciRegistry  # noqa: PLC0415 - its HTTP library costs a fifth of a second

    return OciRegistry(url, credentials)


def _open_s3(location: S3Location, credentials: Credentials | None) -> Registry:
    from albatros.registries.aws import S3Keys, find_keys  # noqa: PLC0415 - for those who publish to S3 only
    from albatros.registries.objects_s3 import S3Objects  # noqa: PLC0415 - as above

    keys = S3Keys.of(credentials) if credentials else find_keys()
    return StaticRegistry(S3Objects(location, keys), location.address)
