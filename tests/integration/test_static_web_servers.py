"""A static registry behind web servers that know nothing of registries, only the fragments that it generates."""

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from albatros.domain import media
from albatros.images.assemble import AssembleOptions, assemble
from albatros.images.base import NullLayerCache
from albatros.images.model import Image
from albatros.images.publish import publish
from albatros.registries.objects import DirectoryObjects
from albatros.registries.static import StaticRegistry
from tests.services.caddy import serve_caddy
from tests.services.nginx import serve_nginx
from tests.services.process import private_dir, unprivileged
from tests.support.archives import elf, source
from tests.support.flakes import AMD64, ARMV6
from tests.support.stores import MemoryStore

NAME = "alba/hello"


@pytest.fixture(scope="module")
def image() -> tuple[Image, MemoryStore]:
    store = MemoryStore()
    sources = [source(elf(machine.architecture, payload=b"hello")) for machine in (AMD64, ARMV6)]
    return assemble(sources, store, NullLayerCache(), AssembleOptions()), store


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def host(request: pytest.FixtureRequest, image: tuple[Image, MemoryStore]) -> Iterator[str]:
    """A web server with the generated rules, as an operator would include them."""
    account = unprivileged()
    with private_dir(request.param, account) as home:
        made, store = image
        root = home / "registry"
        publish(made, store, StaticRegistry(DirectoryObjects(root), "dir:x"), NAME, ["v1"])
        if request.param == "caddy":
            with serve_caddy(home, account, root) as address:
                yield address
            return
        with serve_nginx(home, account, "registry/nginx.conf", {"/srv/registry": str(root)}) as address:
            yield address


def test_the_headers_that_clients_need(host: str, image: tuple[Image, MemoryStore]) -> None:
    base, child = f"/v2/{NAME}", image[0].manifests[0]
    for path, content_type in (
        ("/v2/", "application/json"),
        (f"{base}/manifests/v1", media.INDEX),
        (f"{base}/manifests/{image[0].digest}", media.INDEX),
        (f"{base}/manifests/{child.descriptor.digest}", media.MANIFEST),
        (f"{base}/blobs/{child.descriptor.digest}", media.BYTES),
        (f"{base}/tags/list", "application/json"),
        (f"{base}/referrers/{image[0].digest}", media.INDEX),
    ):
        for method in ("GET", "HEAD"):
            request = urllib.request.Request(f"http://{host}{path}", method=method)
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert answer.headers["Content-Type"] == content_type, path
                assert answer.headers["Content-Encoding"] is None
                assert ("immutable" in answer.headers["Cache-Control"]) == (
                    "sha256:" in path and "referrers" not in path
                )


@pytest.mark.parametrize(
    "path", [f"/v2/{NAME}/manifests/v2", f"/v2/{NAME}/blobs/sha256:{'0' * 64}", "/.albatros/headers.json"]
)
def test_what_is_missing_or_private_is_404_and_not_cached(host: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://{host}{path}", timeout=60)
    with caught.value as answer:
        assert answer.code == 404
        assert answer.headers["Cache-Control"] is None
