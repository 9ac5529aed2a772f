"""Opening the registry that an address names: the one place that knows which adapter belongs to which scheme."""

from __future__ import annotations

from albatros.domain.references import RegistryKind, RegistryUrl
from albatros.registries.base import Credentials, Registry
from albatros.registries.objects import DirectoryObjects
from albatros.registries.static import StaticRegistry


def open_registry(url: RegistryUrl, credentials: Credentials | None = None) -> Registry:
    """The registry at `url`; nothing is asked of it yet. `credentials` are for `docker://`, None is anonymous."""
    match url.kind:
        case RegistryKind.DIR:
            return StaticRegistry(DirectoryObjects(url.path), str(url))
        case RegistryKind.DOCKER:
            from albatros.registries.oci import OciRegistry  # noqa: PLC0415 - its HTTP library costs a fifth of a second

            return OciRegistry(url, credentials)
