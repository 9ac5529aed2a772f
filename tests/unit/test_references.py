"""Names, tags, digests and addresses: what is taken, what is refused, and that no password is repeated."""

from pathlib import Path

import pytest

from albatros.domain.references import (
    ImageReference,
    RegistryKind,
    RegistryUrl,
    check_name,
    check_tag,
    digest_of,
    format_reference,
    is_loopback,
    parse_digest,
    split_tag,
)
from albatros.errors import BadInputError, UsageError

DIGEST = digest_of(b"")


@pytest.mark.parametrize("name", ["a", "alba/hello", "a.b/c_d/e--f", "x__y", "0/1"])
def test_names_that_registries_take(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "a/", "/a", "a//b", "a..b", "../a", "a/../b", "a:b", "a b", "ä", "-a", "a" * 256, "a\n"]
)
def test_names_that_registries_refuse(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)


@pytest.mark.parametrize("tag", ["", ".a", "-a", "a/b", "a b", "ä", "x" * 129, "a\n", "sha256:" + "0" * 64])
def test_tags_that_registries_refuse(tag: str) -> None:
    with pytest.raises(UsageError):
        check_tag(tag)


def test_a_name_with_and_without_its_tag() -> None:
    assert split_tag("alba/hello:v1.0_x") == ("alba/hello", "v1.0_x")
    assert split_tag("hello") == ("hello", None)
    with pytest.raises(UsageError):
        split_tag("hello:")


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "0" * 63, "sha256:" + "A" * 64, "sha512:" + "0" * 128, f"{DIGEST}\n"]
)
def test_only_whole_sha256_digests_count(text: str) -> None:
    with pytest.raises(BadInputError):
        parse_digest(text)
    assert parse_digest(DIGEST) == DIGEST


def test_addresses_of_registries() -> None:
    url = RegistryUrl.parse("docker://Example.org:5000/team/images/")
    assert (url.kind, url.host, url.prefix) == (RegistryKind.DOCKER, "example.org:5000", "team/images")
    assert str(url) == "docker://example.org:5000/team/images"
    assert RegistryUrl.parse("dir:out").path == Path.cwd() / "out"
    assert str(RegistryUrl.parse("dir:/srv/r")) == "dir:/srv/r"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "docker:",
        "docker:host",
        "docker://",
        "docker://ho st",
        "docker://h/UPPER",
        "docker://h/a?x=1",
        "docker://h/a?http=true&x=1",
        "ftp://h/x",
        "dir:",
        "h/x",
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        RegistryUrl.parse(text)


@pytest.mark.parametrize(
    "text", ["docker://user:hunter22@host/x", "https://user:hunter22@host/x", "user:hunter22@host"]
)
def test_a_password_in_an_address_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        RegistryUrl.parse(text)
    assert "hunter22" not in caught.value.detail


@pytest.mark.parametrize(
    ("text", "host", "name", "reference"),
    [
        ("docker://h:5000/a/b:v1", "h:5000", "a/b", "v1"),
        ("h/a", "h", "a", "latest"),
        (f"h/a@{DIGEST}", "h", "a", DIGEST),
        (f"h/a:v1@{DIGEST}", "h", "a", DIGEST),
    ],
)
def test_references_of_images(text: str, host: str, name: str, reference: str) -> None:
    parsed = ImageReference.parse(text, nowhere)
    assert (parsed.registry.host, parsed.name, parsed.reference) == (host, name, reference)
    assert ImageReference.parse(str(parsed), nowhere) == parsed


def nowhere(_url: RegistryUrl) -> bool:
    return False


S3 = "?endpoint=http://127.0.0.1:3900&region=garage&s3ForcePathStyle=true"


@pytest.mark.parametrize(
    ("text", "place", "name", "reference"),
    [
        ("dir:/srv/registry/alba/hello:v1", "dir:/srv/registry", "alba/hello", "v1"),
        ("dir:/srv/a?b/hello", "dir:/srv/a?b", "hello", "latest"),
        (f"s3://bucket/team/alba/hello:v1{S3}", f"s3://bucket/team{S3}", "alba/hello", "v1"),
        (f"s3://bucket/hello@{DIGEST}{S3}", f"s3://bucket{S3}", "hello", DIGEST),
        ("s3://bucket/hello", "s3://bucket", "hello", "latest"),
    ],
)
def test_a_reference_into_a_static_registry_is_parted_where_the_registry_is(
    text: str, place: str, name: str, reference: str
) -> None:
    asked: list[str] = []

    def is_registry(url: RegistryUrl) -> bool:
        asked.append(str(url))
        return str(url) == place

    parsed = ImageReference.parse(text, is_registry)
    assert (str(parsed.registry), parsed.name, parsed.reference) == (place, name, reference)
    assert asked == sorted(asked, key=len, reverse=True), "the deepest is asked first"
    assert ImageReference.parse(str(parsed), is_registry) == parsed
    with pytest.raises(UsageError, match="not in a static registry"):
        ImageReference.parse(text, nowhere)


@pytest.mark.parametrize(
    "text", ["", "hello", "h/", "h/a@v1", "h/a@sha256:12", "h/A", "h/a:b:c", "s3://hello", f"s3://bucket/{S3}"]
)
def test_references_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        ImageReference.parse(text, nowhere)


def test_a_reference_for_people() -> None:
    assert format_reference("h/p", "n", "v1") == "h/p/n:v1"
    assert format_reference("dir:/r", "n", DIGEST) == f"dir:/r/n@{DIGEST}"


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost:1", True),
        ("127.9.9.9", True),
        ("[::1]:80", True),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
        ("10.0.0.1:5000", False),
        ("[", False),
        ("", False),
    ],
)
def test_only_this_machine_by_its_own_names_is_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def test_plain_http_is_asked_for_in_the_address() -> None:
    url = RegistryUrl.parse("docker://registry.lan:5000/team?http=true")
    assert (url.host, url.prefix, url.plain_http) == ("registry.lan:5000", "team", True)
    assert str(url) == "docker://registry.lan:5000/team?http=true"
    assert not RegistryUrl.parse("docker://registry.lan:5000/team").plain_http
    reference = ImageReference.parse("docker://registry.lan:5000/team/hello:v1?http=true", nowhere)
    assert (reference.registry.plain_http, reference.name, reference.reference) == (True, "team/hello", "v1")
    assert str(reference) == "registry.lan:5000/team/hello:v1?http=true"
