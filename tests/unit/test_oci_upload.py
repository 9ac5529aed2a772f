"""Uploads to a registry with rules of its own: chunks, mounts, sessions that break off, tokens that end."""

import io
from collections.abc import Iterator

import pytest

from albatros.domain.references import Blob, RegistryUrl, digest_of
from albatros.errors import RegistryError, RegistryUnavailableError, StoreError
from albatros.registries.base import Credentials
from albatros.registries.oci import OciRegistry
from albatros.registries.retry import RetryPolicy
from tests.support.faulty_registry import CUT, CUT_AFTER, CUT_HALFWAY, Fault, FaultyRegistry, faulty_registry

NAME = "alba/hello"
DATA = bytes(range(256)) * (40 << 10)
BLOB = Blob(digest_of(DATA), len(DATA))
MIB = 1 << 20
UPLOADS = "/blobs/uploads/"
PUSH, PULL = "repository:alba/hello:pull,push", "repository:alba/base:pull"
LOGIN = Credentials("robot", "hunter22-hunter22", "the test's own file")


@pytest.fixture
def server() -> Iterator[FaultyRegistry]:
    with faulty_registry() as running:
        yield running


@pytest.fixture
def client(server: FaultyRegistry) -> Iterator[OciRegistry]:
    yield from connect(server, None)


@pytest.fixture
def member(server: FaultyRegistry) -> Iterator[OciRegistry]:
    server.login, server.bearer = (LOGIN.username, LOGIN.password), True
    yield from connect(server, LOGIN)


def connect(server: FaultyRegistry, credentials: Credentials | None) -> Iterator[OciRegistry]:
    policy = RetryPolicy(tries=4, sleep=lambda _seconds: None)
    found = OciRegistry(RegistryUrl.parse(server.url), credentials, policy)
    yield found
    found.close()


def put(client: OciRegistry, *mount_from: str) -> bool:
    return client.put_blob(NAME, BLOB, lambda: io.BytesIO(DATA), mount_from)


@pytest.mark.parametrize(("most", "least", "patches"), [(4 * MIB, 0, 3), (8 * MIB, 6 * MIB, 2)])
def test_a_blob_that_is_refused_whole_goes_in_chunks(
    server: FaultyRegistry, client: OciRegistry, most: int, least: int, patches: int
) -> None:
    server.most_at_once, server.least_chunk = most, least
    assert put(client)
    assert server.blobs == {BLOB.digest: DATA}
    assert (server.count("PUT"), server.count("PATCH")) == (2, patches)


@pytest.mark.parametrize("status", [405, 413, 416, 501])
def test_every_way_of_saying_too_much_leads_to_chunks(server: FaultyRegistry, client: OciRegistry, status: int) -> None:
    server.faults = [Fault("PUT", UPLOADS, status)]
    assert put(client)
    assert server.blobs == {BLOB.digest: DATA}


def test_a_registry_that_takes_no_chunk_either_refuses(server: FaultyRegistry, client: OciRegistry) -> None:
    server.most_at_once = MIB
    with pytest.raises(RegistryError, match=r"refuses to take blob sha256:\w+ into alba/hello: 416"):
        put(client)
    assert (server.count("PUT"), server.count("PATCH")) == (1, 1)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_what_broke_off_goes_on_where_it_was(server: FaultyRegistry, client: OciRegistry, method: str) -> None:
    server.most_at_once = 4 * MIB if method == "PATCH" else 1 << 40
    server.faults = [Fault(method, UPLOADS, CUT_HALFWAY)]
    if method == "PATCH":
        server.faults.insert(0, Fault("PUT", UPLOADS, 416))
    assert put(client)
    assert server.blobs == {BLOB.digest: DATA}
    assert server.uploads == (2 if method == "PATCH" else 1)
    assert server.count("GET", UPLOADS) == 1


def test_a_chunk_whose_answer_was_lost_is_not_sent_twice(server: FaultyRegistry, client: OciRegistry) -> None:
    server.most_at_once = 4 * MIB
    server.faults = [Fault("PATCH", UPLOADS, CUT_AFTER)]
    assert put(client)
    assert server.blobs == {BLOB.digest: DATA}
    assert server.count("PATCH") == 3


def test_a_registry_that_forgets_what_broke_off_is_sent_it_again(server: FaultyRegistry, client: OciRegistry) -> None:
    server.forgetful = True
    server.faults = [Fault("PUT", UPLOADS, CUT_HALFWAY, times=2)]
    assert put(client)
    assert server.blobs == {BLOB.digest: DATA}


@pytest.mark.parametrize("told", ["0-99999999", "0-4096", "5-9", "nonsense", "bytes=0-77"])
def test_a_stale_range_does_no_harm(server: FaultyRegistry, client: OciRegistry, told: str) -> None:
    server.told_range = told
    server.most_at_once = 4 * MIB
    server.faults = [Fault("PATCH", UPLOADS, CUT_HALFWAY)]
    assert put(client)
    assert server.blobs == {BLOB.digest: DATA}


def test_bytes_that_were_changed_on_the_way_begin_anew(server: FaultyRegistry, client: OciRegistry) -> None:
    server.told_range = f"0-{BLOB.size - 1}"
    server.faults = [Fault("PUT", UPLOADS, CUT_HALFWAY)]
    assert put(client)
    assert server.blobs == {BLOB.digest: DATA}
    assert server.uploads == 2


def test_a_session_that_is_gone_begins_anew(server: FaultyRegistry, client: OciRegistry) -> None:
    server.faults = [Fault("PUT", UPLOADS, CUT_HALFWAY), Fault("GET", UPLOADS, 404)]
    assert put(client)
    assert server.blobs == {BLOB.digest: DATA}
    assert server.uploads == 2


def test_a_registry_that_always_breaks_off_is_given_up(server: FaultyRegistry, client: OciRegistry) -> None:
    server.faults = [Fault("PUT", UPLOADS, CUT_HALFWAY, times=99), Fault("PATCH", UPLOADS, CUT_HALFWAY, times=99)]
    with pytest.raises(RegistryUnavailableError):
        put(client)
    assert not server.blobs


def test_a_source_that_became_shorter_is_told(server: FaultyRegistry, client: OciRegistry) -> None:
    with pytest.raises(StoreError, match="changed its length"):
        client.put_blob(NAME, BLOB, lambda: io.BytesIO(DATA[:-1]))
    assert not server.blobs


def test_a_blob_of_another_name_is_mounted(server: FaultyRegistry, client: OciRegistry) -> None:
    server.elsewhere["alba/base", BLOB.digest] = DATA
    assert put(client, "alba/other", "alba/base") is True, "202 is an upload to go on with"
    server.blobs.clear()
    assert put(client, "alba/base") is False
    assert server.blobs == {BLOB.digest: DATA}


def test_a_mount_that_becomes_an_upload_goes_on_in_its_session(server: FaultyRegistry, client: OciRegistry) -> None:
    assert put(client, "alba/base") is True
    assert (server.uploads, server.count("POST"), server.count("PUT")) == (1, 1, 1)
    assert server.blobs == {BLOB.digest: DATA}


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_mount_that_is_refused_becomes_an_upload(server: FaultyRegistry, client: OciRegistry, status: int) -> None:
    server.faults = [Fault("POST", "mount=", status)]
    assert put(client, "alba/base") is True
    assert server.blobs == {BLOB.digest: DATA}


def test_a_mount_asks_for_both_names_in_one_token(server: FaultyRegistry, member: OciRegistry) -> None:
    server.elsewhere["alba/base", BLOB.digest] = DATA
    assert put(member, "alba/base") is False
    assert server.tokens_given == [f"{PUSH} {PULL}"]


def test_a_mount_without_a_token_for_its_source_becomes_an_upload(server: FaultyRegistry, member: OciRegistry) -> None:
    server.scopes_refused.add(f"{PUSH} {PULL}")
    assert put(member, "alba/base") is True
    assert server.tokens_given == [PUSH]


def test_a_token_may_end_at_any_request_of_an_upload(server: FaultyRegistry, member: OciRegistry) -> None:
    server.token_life, server.most_at_once = 1, 4 * MIB
    assert put(member)
    assert server.blobs == {BLOB.digest: DATA}
    assert server.count("PATCH") >= 3


@pytest.mark.parametrize("action", [429, 503, CUT, CUT_AFTER])
def test_a_token_endpoint_is_tried_again(server: FaultyRegistry, member: OciRegistry, action: int | str) -> None:
    server.faults = [Fault("GET", "^/token", action, times=2)]
    assert put(member)
    assert server.blobs == {BLOB.digest: DATA}
    assert server.faults[0].times == 0


def test_an_identity_token_is_exchanged_by_post(server: FaultyRegistry) -> None:
    server.login, server.bearer = ("nobody", "nothing"), True
    server.identity_token, server.token_ways = "identity-token", ("POST",)
    for client in connect(server, Credentials("", "", "a helper", "identity-token")):
        assert put(client)
    assert server.tokens_given == [PUSH]


def test_a_wrong_identity_token_is_not_repeated(server: FaultyRegistry) -> None:
    server.login, server.bearer, server.token_ways = ("nobody", "nothing"), True, ("POST",)
    for client in connect(server, Credentials("", "", "a helper", "identity-token")):
        with pytest.raises(
            RegistryError, match="the bearer of an identity token with the credentials from a helper"
        ) as e:
            put(client)
        assert "identity-token" not in e.value.detail


@pytest.mark.parametrize("way", ["GET", "POST"])
def test_a_token_endpoint_may_know_one_way_only(server: FaultyRegistry, member: OciRegistry, way: str) -> None:
    server.token_ways = (way,)
    assert put(member)
    assert server.tokens_given == [PUSH]


def test_a_placeholder_for_a_scope_is_not_asked_for(server: FaultyRegistry, member: OciRegistry) -> None:
    server.challenge_scope = "repository:user/image:pull"
    assert put(member)
    assert server.tokens_given == [PUSH]
