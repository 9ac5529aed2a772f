"""Connections to docker-registry that break at any byte, there or back: the push goes on, and what it made is whole."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from albatros.domain.references import RegistryUrl
from albatros.images.publish import publish
from albatros.images.verify import read_published, verify_platform
from albatros.registries.oci import OciRegistry
from albatros.registries.retry import RetryPolicy
from tests.services.registry import RegistryServer, start_registry
from tests.support.cutting_proxy import CuttingProxy, Direction, cutting_proxy
from tests.support.images import make_image
from tests.support.stores import MemoryStore
from tests.tools import needs

pytestmark = needs("docker-registry")
CUTS = 40


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with start_registry(in_memory=True) as running:
        yield running


@pytest.fixture
def proxy(server: RegistryServer) -> Iterator[CuttingProxy]:
    with cutting_proxy(server.host) as running:
        yield running


def connect(host: str) -> OciRegistry:
    return OciRegistry(RegistryUrl.parse(f"docker://{host}"), None, RetryPolicy(sleep=lambda _seconds: None))


@pytest.mark.parametrize("direction", Direction)
def test_a_push_goes_on_after_a_cut_at_any_byte(
    server: RegistryServer, proxy: CuttingProxy, direction: Direction
) -> None:
    store = MemoryStore()
    image = make_image(store)
    names = [f"alba/{direction.name.lower()}-{number:02}" for number in range(CUTS + 1)]
    with closing(connect(proxy.host)) as pusher, closing(connect(server.host)) as reader:
        publish(image, store, pusher, names[CUTS], ["v1"])
        total = proxy.seen[direction]
        for number in range(CUTS):
            proxy.arm(direction, number * total // CUTS)
            publish(image, store, pusher, names[number], ["v1"])
            assert proxy.cuts == number + 1
            assert read_published(reader, names[number], "v1") == image
            for manifest in image.manifests:
                verify_platform(reader, names[number], manifest)
