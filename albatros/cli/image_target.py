"""Opening a registry for a command: credentials come from docker's config.json, for S3 from where AWS keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from albatros.domain.references import RegistryKind, RegistryUrl
from albatros.registries.base import Registry
from albatros.registries.docker_config import config_path, find_credentials
from albatros.registries.opening import open_registry


@contextmanager
def open_target(url: RegistryUrl) -> Iterator[Registry]:
    """The registry at `url`, closed at the end. Raises ConfigError when docker's configuration cannot be read."""
    credentials = find_credentials(url.host, config_path()) if url.kind is RegistryKind.DOCKER else None
    registry = open_registry(url, credentials)
    try:
        yield registry
    finally:
        registry.close()
