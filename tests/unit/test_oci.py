"""The OCI client against a registry that breaks rules and connections: what it bears, and what it refuses."""

import io
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from albatros.domain.references import Blob, RegistryUrl, digest_of
from albatros.errors import RegistryError, RegistryUnavailableError, UsageError
from albatros.images.assemble import AssembleOptions, assemble
from albatros.images.base import NullLayerCache
from albatros.images.publish import publish
from albatros.images.verify import read_published
from albatros.registries.base import Credentials, Manifest
from albatros.registries.oci import OciRegistry
from albatros.registries.retry import RetryPolicy
from albatros.registries.transport import Transport
from tests.support.archives import elf, source
from tests.support.faulty_registry import CUT, CUT_AFTER, Fault, FaultyRegistry, faulty_registry
from tests.support.stores import MemoryStore

NAME = "alba/hello"
DATA = bytes(range(256)) * 4096
BLOB = Blob(digest_of(DATA), len(DATA))
SECRET = "hunter22-hunter22"
LOGIN = Credentials("robot", SECRET, "the test's own file")
UPLOADS, BLOBS, MANIFESTS = "/blobs/uploads/", "/blobs/sha256:", "/manifests/"


@dataclass
class Clock:
    """Sleeps in no time, and remembers for how long."""

    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def server() -> Iterator[FaultyRegistry]:
    with faulty_registry() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(server: FaultyRegistry, clock: Clock) -> Iterator[OciRegistry]:
    yield from connect(server, clock)


@pytest.fixture
def member(server: FaultyRegistry, clock: Clock) -> Iterator[OciRegistry]:
    """A client that logs in."""
    server.login = (LOGIN.username, LOGIN.password)
    yield from connect(server, clock, LOGIN)


def connect(server: FaultyRegistry, clock: Clock, credentials: Credentials | None = None) -> Iterator[OciRegistry]:
    found = OciRegistry(RegistryUrl.parse(server.url), credentials, RetryPolicy(tries=4, sleep=clock.sleep))
    yield found
    found.close()


def put(client: OciRegistry) -> None:
    client.put_blob(NAME, BLOB, lambda: io.BytesIO(DATA))


@pytest.mark.parametrize("absolute", [True, False])
def test_a_location_may_be_relative_or_absolute_and_keeps_its_query(
    server: FaultyRegistry, client: OciRegistry, absolute: bool
) -> None:
    server.absolute_location = absolute
    put(client)
    assert server.blobs == {BLOB.digest: DATA}


@pytest.mark.parametrize("action", [500, 502, 503, 504, 408, 429, CUT, CUT_AFTER])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_an_upload_that_breaks_begins_anew(
    server: FaultyRegistry, client: OciRegistry, action: int | str, method: str
) -> None:
    server.faults = [Fault(method, UPLOADS, action, times=2)]
    put(client)
    assert server.blobs == {BLOB.digest: DATA}


def test_an_upload_whose_answer_was_lost_is_not_sent_twice(server: FaultyRegistry, client: OciRegistry) -> None:
    server.faults = [Fault("PUT", UPLOADS, CUT_AFTER)]
    put(client)
    assert server.count("PUT", UPLOADS) == 1


def test_a_session_that_the_registry_lost_begins_anew(server: FaultyRegistry, client: OciRegistry) -> None:
    server.faults = [Fault("PUT", UPLOADS, 404)]
    put(client)
    assert server.uploads == 2


@pytest.mark.parametrize("action", [503, CUT, CUT_AFTER])
def test_every_kind_of_request_is_tried_again(server: FaultyRegistry, client: OciRegistry, action: int | str) -> None:
    store = MemoryStore()
    image = assemble([source(elf())], store, NullLayerCache(), AssembleOptions())
    server.faults = [
        Fault(method, path, action)
        for method, path in (
            ("HEAD", BLOBS),
            ("POST", UPLOADS),
            ("PUT", UPLOADS),
            ("PUT", MANIFESTS),
            ("GET", MANIFESTS),
            ("PUT", "/manifests/v1"),
            ("GET", "/tags/list"),
        )
    ]
    publish(image, store, client, NAME, ["v1"])
    assert client.list_tags(NAME) == ["v1"]
    assert read_published(client, NAME, "v1") == image
    assert not any(fault.times for fault in server.faults)


def test_tries_end_and_the_pauses_grow(server: FaultyRegistry, client: OciRegistry, clock: Clock) -> None:
    server.faults = [Fault("HEAD", BLOBS, 503, times=100)]
    with pytest.raises(RegistryUnavailableError, match=f"{server.host} answered 503 to HEAD"):
        client.blob_size(NAME, BLOB.digest)
    assert server.count("HEAD") == 4
    assert [0.25 <= clock.slept[0] <= 0.5, 0.5 <= clock.slept[1] <= 1, 1 <= clock.slept[2] <= 2] == [True] * 3


def test_retry_after_is_honoured(server: FaultyRegistry, client: OciRegistry, clock: Clock) -> None:
    server.faults = [Fault("HEAD", BLOBS, 429, {"Retry-After": "7"})]
    assert client.blob_size(NAME, BLOB.digest) is None
    assert clock.slept[0] >= 7


def test_a_long_retry_after_is_left_to_the_caller(server: FaultyRegistry, client: OciRegistry, clock: Clock) -> None:
    server.faults = [Fault("HEAD", BLOBS, 429, {"Retry-After": "21600"})]
    with pytest.raises(RegistryUnavailableError, match="429"):
        client.blob_size(NAME, BLOB.digest)
    assert (server.count("HEAD"), clock.slept) == (1, [])


def test_nobody_there_is_unavailable(clock: Clock) -> None:
    with faulty_registry() as gone:
        url = gone.url
    client = OciRegistry(RegistryUrl.parse(url), None, RetryPolicy(tries=2, sleep=clock.sleep))
    with pytest.raises(RegistryUnavailableError, match="cannot be reached"):
        put(client)
    client.close()


@pytest.mark.parametrize("status", [400, 409, 415, 422])
def test_a_refusal_is_final_and_says_what_the_registry_said(
    server: FaultyRegistry, client: OciRegistry, status: int
) -> None:
    said = b'{"errors":[{"code":"NAME_INVALID","message":"not this name"}]}'
    server.faults = [Fault("PUT", UPLOADS, status, body=said)]
    with pytest.raises(
        RegistryError, match=rf"refuses to take blob sha256:\w+ into alba/hello: {status} \(NAME_INVALID"
    ):
        put(client)
    assert server.count("PUT") == 1


def test_a_manifest_that_became_another_is_noticed(server: FaultyRegistry, client: OciRegistry) -> None:
    other = {"Docker-Content-Digest": str(digest_of(b"other"))}
    server.faults = [Fault("PUT", MANIFESTS, 201, other)]
    with pytest.raises(RegistryError, match="other bytes"):
        client.put_manifest(NAME, "v1", Manifest("application/vnd.oci.image.index.v1+json", b"{}"))


def test_a_manifest_that_is_given_back_otherwise_stops_the_tag(server: FaultyRegistry, client: OciRegistry) -> None:
    store = MemoryStore()
    image = assemble([source(elf())], store, NullLayerCache(), AssembleOptions())
    server.faults = [Fault("GET", MANIFESTS, 200, body=b"{}")]
    with pytest.raises(RegistryError, match="when asked for"):
        publish(image, store, client, NAME, ["v1"])
    assert (NAME, "v1") not in server.manifests


def test_a_manifest_that_is_lost_again_stops_the_tag(server: FaultyRegistry, client: OciRegistry) -> None:
    store = MemoryStore()
    image = assemble([source(elf())], store, NullLayerCache(), AssembleOptions())
    server.faults = [Fault("GET", MANIFESTS, 404)]
    with pytest.raises(RegistryError, match="does not give it back; no tag was moved"):
        publish(image, store, client, NAME, ["v1"])
    assert (NAME, "v1") not in server.manifests


def test_an_endless_manifest_is_refused(server: FaultyRegistry, client: OciRegistry) -> None:
    server.faults = [Fault("GET", MANIFESTS, 200, body=b"x" * (5 << 20))]
    with pytest.raises(RegistryError, match="more than 4194304 bytes"):
        client.get_manifest(NAME, "v1")


def test_a_blob_longer_than_its_size_is_refused(server: FaultyRegistry, client: OciRegistry) -> None:
    server.blobs[BLOB.digest] = DATA + b"more"
    with client.open_blob(NAME, BLOB) as stream, pytest.raises(RegistryError, match="more bytes"):
        stream.read()


def test_tags_are_read_page_by_page(server: FaultyRegistry, client: OciRegistry) -> None:
    server.page_size = 2
    every = [f"v{n}" for n in range(7)]
    server.manifests |= {(NAME, tag): ("x", b"{}") for tag in every}
    assert client.list_tags(NAME) == every
    assert server.count("GET", "/tags/list") == 4


@pytest.mark.parametrize("body", [b"", b"[]", b'{"tags": 5}', b"{}"])
def test_a_list_of_tags_that_is_none_is_refused(server: FaultyRegistry, client: OciRegistry, body: bytes) -> None:
    server.faults = [Fault("GET", "/tags/list", 200, body=body)]
    with pytest.raises(RegistryError, match="cannot be read"):
        client.list_tags(NAME)


@pytest.mark.parametrize("bearer", [True, False], ids=["bearer", "basic"])
def test_a_push_logs_in_as_it_is_asked_to(server: FaultyRegistry, member: OciRegistry, bearer: bool) -> None:
    server.bearer = bearer
    store = MemoryStore()
    image = assemble([source(elf())], store, NullLayerCache(), AssembleOptions())
    publish(image, store, member, NAME, ["v1"])
    assert read_published(member, NAME, "v1") == image
    assert server.tokens_given == (["repository:alba/hello:pull,push"] if bearer else [])


def test_reading_asks_for_no_right_to_push(server: FaultyRegistry, member: OciRegistry) -> None:
    server.bearer = True
    assert member.list_tags(NAME) == []
    assert server.tokens_given == ["repository:alba/hello:pull"]


def test_a_token_that_expires_in_the_middle_is_replaced(server: FaultyRegistry, member: OciRegistry) -> None:
    server.bearer = True
    assert member.blob_size(NAME, BLOB.digest) is None
    server.tokens.clear()
    put(member)
    server.tokens.clear()
    assert member.blob_size(NAME, BLOB.digest) == BLOB.size
    assert server.blobs == {BLOB.digest: DATA}


def test_many_threads_fetch_one_token(server: FaultyRegistry, member: OciRegistry) -> None:
    server.bearer = True
    start = threading.Barrier(8, timeout=60)

    def ask() -> None:
        start.wait()
        member.blob_size(NAME, BLOB.digest)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.tokens_given) == 1


@pytest.mark.parametrize("bearer", [True, False], ids=["bearer", "basic"])
def test_wrong_credentials_are_told_without_being_repeated(
    server: FaultyRegistry, member: OciRegistry, bearer: bool
) -> None:
    server.bearer = bearer
    server.login = ("robot", "another-password")
    with pytest.raises(RegistryError) as caught:
        put(member)
    detail = caught.value.detail
    assert "as 'robot' with the credentials from the test's own file" in detail
    assert "repository:alba/hello:pull,push" in detail
    assert server.host in detail
    assert SECRET not in detail


def test_no_credentials_are_told_too(server: FaultyRegistry, client: OciRegistry) -> None:
    server.login = ("robot", SECRET)
    with pytest.raises(RegistryError, match=r"without credentials \(none are known for this host\)"):
        put(client)


def test_a_registry_that_repeats_the_credentials_is_not_quoted(server: FaultyRegistry, member: OciRegistry) -> None:
    said = b'{"errors":[{"code":"DENIED","message":"robot:%s is not welcome"}]}' % SECRET.encode()
    server.faults = [Fault("POST", UPLOADS, 403, body=said)]
    with pytest.raises(RegistryError, match=r"\*\*\* is not welcome") as caught:
        put(member)
    assert SECRET not in caught.value.detail


@pytest.mark.parametrize(
    "realm",
    [
        "http://example.org/token",
        "https://user:x@example.org/token",
        "ftp://127.0.0.1/",
        "/token",
        "https://[/",
        "",
    ],
)
def test_credentials_go_to_no_realm_that_is_not_https(server: FaultyRegistry, member: OciRegistry, realm: str) -> None:
    server.bearer, server.realm = True, realm or " "
    with pytest.raises(RegistryError, match="no credential was sent there"):
        put(member)


def test_credentials_do_not_follow_a_redirect_to_another_host(server: FaultyRegistry, member: OciRegistry) -> None:
    with faulty_registry() as other:
        other.blobs[BLOB.digest] = DATA
        other.login = ("somebody", "else")
        server.faults = [Fault("GET", BLOBS, 307, {"Location": f"http://{other.host}/v2/x/blobs/{BLOB.digest}"})]
        with pytest.raises(RegistryError, match="401"), member.open_blob(NAME, BLOB):
            pass
        other.login = None
        server.faults = [Fault("GET", BLOBS, 307, {"Location": f"http://{other.host}/v2/x/blobs/{BLOB.digest}"})]
        with member.open_blob(NAME, BLOB) as stream:
            assert stream.read() == DATA


@pytest.mark.parametrize("location", ["http://example.org/upload", "ftp://127.0.0.1/upload", "http://10.0.0.1/upload"])
def test_an_upload_goes_nowhere_in_plain_http(server: FaultyRegistry, client: OciRegistry, location: str) -> None:
    server.faults = [Fault("POST", UPLOADS, 202, {"Location": location})]
    with pytest.raises(RegistryError, match="not https"):
        put(client)


def test_redirects_in_circles_end(server: FaultyRegistry, client: OciRegistry) -> None:
    server.faults = [Fault("GET", MANIFESTS, 302, {"Location": "/v2/a/manifests/b"}, times=99)]
    with pytest.raises(RegistryError, match="redirects GET more than"):
        client.get_manifest(NAME, "v1")


@pytest.mark.parametrize(
    ("location", "resolved"),
    [
        ("http://r.example.org/v2/x?a=b", "https://r.example.org/v2/x?a=b"),
        ("http://r.example.org:80/v2/x", "https://r.example.org/v2/x"),
        ("https://cdn.example.org/x", "https://cdn.example.org/x"),
        ("/v2/x?a=b", "https://r.example.org/v2/x?a=b"),
        ("x", "https://r.example.org/v2/x"),
    ],
)
def test_a_registry_behind_a_tls_proxy_that_answers_http(location: str, resolved: str) -> None:
    transport = Transport("r.example.org", None)
    assert transport.resolve(location, "https://r.example.org/v2/y") == resolved
    transport.close()


def test_plain_http_that_was_asked_for_goes_to_that_host_only() -> None:
    transport = Transport("r.example.org:5000", None, plain=True)
    assert transport.base == "http://r.example.org:5000"
    assert transport.resolve("/v2/x", transport.base) == "http://r.example.org:5000/v2/x"
    for elsewhere in ("http://r.example.org/x", "http://other.example.org:5000/x", "http://127.0.0.1/x"):
        with pytest.raises(RegistryError, match="not https"):
            transport.resolve(elsewhere, transport.base)
    transport.close()


@pytest.mark.parametrize(
    "location",
    [
        "http://other.example.org/x",
        "http://127.0.0.1/x",
        "file:///etc/passwd",
        "http://[/",
    ],
)
def test_a_registry_behind_tls_sends_nobody_elsewhere_in_plain_http(location: str) -> None:
    transport = Transport("r.example.org", None)
    with pytest.raises(RegistryError):
        transport.resolve(location, "https://r.example.org/v2/y")
    transport.close()


@pytest.mark.parametrize(
    ("header", "since"), [("RateLimit-Reset", 0), ("X-RateLimit-Reset", 1), ("X-Retry-After", 1), ("X-Retry-After", 0)]
)
def test_a_rate_limit_says_when_it_ends(
    server: FaultyRegistry, client: OciRegistry, clock: Clock, header: str, since: int
) -> None:
    server.faults = [Fault("HEAD", BLOBS, 429, {header: str(int(time.time()) * since + 60)})]
    assert client.blob_size(NAME, BLOB.digest) is None
    assert 30 <= clock.slept[0] <= 70


def test_docker_hub_has_names_of_its_own(clock: Clock) -> None:
    hub = OciRegistry(RegistryUrl.parse("docker://docker.io"), None)
    assert hub.address == "docker.io"
    assert hub._path("hello", "tags/list") == "/v2/library/hello/tags/list"
    assert hub._path("dxflrs/hello", "tags/list") == "/v2/dxflrs/hello/tags/list"
    assert hub._transport.base == "https://registry-1.docker.io"
    for refused in ("alba/hello/tools", "a/hello", "alba/x", "al-ba/hello"):
        with pytest.raises(UsageError, match="Docker Hub would refuse the name"):
            hub.blob_size(refused, BLOB.digest)
    hub.close()
