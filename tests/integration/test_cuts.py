"""Connections to docker-registry and to Garage that break at any byte, there or back: each push ends, and is whole."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from albatros.domain.references import RegistryUrl
from albatros.images.publish import publish
from albatros.images.verify import read_published, verify_platform
from albatros.registries.base import Registry
from albatros.registries.oci import OciRegistry
from albatros.registries.opening import open_registry
from albatros.registries.retry import RetryPolicy
from tests.services.garage import BUCKET, GarageServer
from tests.services.registry import RegistryServer, start_registry
from tests.support.cutting_proxy import CuttingProxy, Direction, cutting_proxy
from tests.support.images import make_image
from tests.support.stores import MemoryStore
from tests.tools import needs

CUTS = 40


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with start_registry(in_memory=True) as running:
        yield running


def push_through(proxy: CuttingProxy, direction: Direction, pusher: Registry, reader: Registry) -> None:
    """A push whole, which counts the bytes, and one for each cut."""
    store = MemoryStore()
    image = make_image(store)
    names = [f"{direction.name.lower()}/{number:02}" for number in range(CUTS + 1)]
    publish(image, store, pusher, names[CUTS], ["v1"])
    total = proxy.seen[direction]
    for number in range(CUTS):
        proxy.arm(direction, number * total // CUTS)
        publish(image, store, pusher, names[number], ["v1"])
        assert proxy.cuts == number + 1
        assert read_published(reader, names[number], "v1") == image
        for manifest in image.manifests:
            verify_platform(reader, names[number], manifest)


def connect(host: str) -> OciRegistry:
    return OciRegistry(RegistryUrl.parse(f"docker://{host}"), None, RetryPolicy(sleep=lambda _seconds: None))


@needs("docker-registry")
@pytest.mark.parametrize("direction", Direction)
def test_a_push_to_a_registry(server: RegistryServer, direction: Direction) -> None:
    with (
        cutting_proxy(server.host) as proxy,
        closing(connect(proxy.host)) as pusher,
        closing(connect(server.host)) as reader,
    ):
        push_through(proxy, direction, pusher, reader)


@pytest.mark.parametrize("direction", Direction)
def test_a_push_to_a_bucket(garage: GarageServer, direction: Direction) -> None:
    with cutting_proxy(garage.endpoint.removeprefix("http://")) as proxy:
        through = replace(garage, endpoint=f"http://{proxy.host}")
        pusher, reader = (
            open_registry(RegistryUrl.parse(place.url_of(f"{BUCKET}/cuts")), place.credentials)
            for place in (through, garage)
        )
        push_through(proxy, direction, pusher, reader)
