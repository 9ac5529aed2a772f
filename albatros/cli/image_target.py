"""Opening a registry for a command: credentials come from docker's config.json, for S3 from where AWS keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from albatros.domain.references import ImageReference, RegistryKind, RegistryUrl
from albatros.registries.base import Registry
from albatros.registries.docker_config import config_path, find_credentials
from albatros.registries.layout import PING_KEY
from albatros.registries.opening import open_objects, open_registry
from albatros.registries.retry import RetryPolicy


def parse_reference(text: str) -> ImageReference:
    """A published image as a person names it; static registries are looked for along the path. Raises UsageError."""
    return ImageReference.parse(text, _is_static_registry)


def shown_reference(url: RegistryUrl, name: str, reference: str) -> ImageReference:
    """A reference as other programs take it, too: these know no option for plain HTTP."""
    return ImageReference(replace(url, plain_http=False), name, reference)


def _is_static_registry(url: RegistryUrl) -> bool:
    return open_objects(url).find(PING_KEY) is not None


@contextmanager
def open_target(url: RegistryUrl, policy: RetryPolicy | None = None) -> Iterator[Registry]:
    """The registry at `url`, closed at the end. Raises ConfigError when docker's configuration cannot be read."""
    credentials = find_credentials(url.host, config_path()) if url.kind is RegistryKind.DOCKER else None
    registry = open_registry(url, credentials, policy)
    try:
        yield registry
    finally:
        registry.close()
