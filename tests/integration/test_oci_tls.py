"""docker-registry behind nginx with TLS, as operators run it: it believes that it is spoken to in http."""

import io
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from albatros.domain.references import Blob, RegistryUrl, digest_of
from albatros.errors import RegistryError
from albatros.images.publish import publish
from albatros.images.verify import read_published, verify_platform
from albatros.registries.base import Registry
from albatros.registries.opening import open_registry
from albatros.registries.transport import Transport
from tests.services.nginx import run_nginx
from tests.services.process import free_port, hand_over, private_dir, unprivileged
from tests.services.registry import RegistryServer, start_registry
from tests.support.images import make_image
from tests.support.stores import MemoryStore
from tests.support.tls import write_certificate
from tests.tools import needs

pytestmark = needs("docker-registry", "nginx")
HOST = "registry.example.org"
NAME = "alba/hello"
_SITE = """\
server {{
  listen 127.0.0.1:{port} ssl;
  ssl_certificate {home}/certificate.pem;
  ssl_certificate_key {home}/key.pem;
  client_max_body_size {most};
  location / {{ proxy_pass http://{upstream}; proxy_set_header Host {host}; proxy_request_buffering off; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Behind:
    """A registry and the port at which nginx speaks TLS for it."""

    server: RegistryServer
    url: str


@pytest.fixture(params=["$http_host", "$host"], ids=["port told", "port not told"])
def behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behind]:
    account = unprivileged()
    with start_registry() as server, private_dir("nginx", account) as home:
        port = free_port()
        certificate, key = home / "certificate.pem", home / "key.pem"
        write_certificate(HOST, certificate, key)
        hand_over(key, account)
        site = _SITE.format(home=home, port=port, upstream=server.host, host=request.param, most="4m")
        resolve_here(monkeypatch)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with run_nginx(home, account, site, port):
            yield Behind(server, f"docker://{HOST}:{port}/prefix")


def resolve_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry's host is this machine, and no proxy is between."""
    original = socket.getaddrinfo

    def resolve(host: str, *arguments: object, **named: object) -> object:
        return original("127.0.0.1" if host == HOST else host, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for variable in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def registry(behind: Behind) -> Iterator[Registry]:
    found = open_registry(RegistryUrl.parse(behind.url))
    yield found
    found.close()


def test_an_image_is_pushed_and_read_through_tls(behind: Behind, registry: Registry) -> None:
    store = MemoryStore()
    image = make_image(store)
    publish(image, store, registry, NAME, ["v1"])
    assert read_published(registry, NAME, "v1") == image
    for manifest in image.manifests:
        verify_platform(registry, NAME, manifest)
    transport = Transport(RegistryUrl.parse(behind.url).host, None)
    answer = transport.request("POST", f"/v2/prefix/{NAME}/blobs/uploads/", "")
    transport.close()
    assert answer.headers["Location"].startswith(f"http://{HOST}"), "else this shows nothing"


def test_a_blob_that_the_proxy_refuses_goes_in_chunks(behind: Behind, registry: Registry) -> None:
    data = random.Random(1).randbytes(9 << 20)
    blob = Blob(digest_of(data), len(data))
    registry.put_blob(NAME, blob, lambda: io.BytesIO(data))
    assert registry.blob_size(NAME, blob.digest) == blob.size
    assert [request.method for request in behind.server.requests()].count("PATCH") == 3


def test_a_certificate_that_nobody_signed_is_told(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(RegistryError, match=f"the certificate of {HOST} is not trusted.*SSL_CERT_FILE"):
        registry.list_tags(NAME)
