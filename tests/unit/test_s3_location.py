"""Addresses of buckets: what is read, what is refused, and that no refusal repeats a secret."""

import pytest

from albatros.domain.references import RegistryKind, RegistryUrl
from albatros.domain.s3 import S3Location
from albatros.errors import UsageError

GARAGE = "endpoint=https://garage.example.org&region=garage&s3ForcePathStyle=true"


def test_the_address_of_the_first_albatros() -> None:
    location = S3Location.parse(f"s3://registry/team/images?{GARAGE}")
    assert location == S3Location("registry", "team/images", "https://garage.example.org", "garage", path_style=True)
    assert location.address == "s3://registry/team/images"
    assert location.host == "garage.example.org"


@pytest.mark.parametrize(
    "text",
    [
        f"s3://registry?{GARAGE}",
        f"s3://registry/a/b?{GARAGE}",
        "s3://registry?endpoint=http://127.0.0.1:3900&s3ForcePathStyle=false",
        "s3://registry/a?region=eu-west-1",
        "s3://registry",
    ],
)
def test_an_address_is_written_as_it_was_read(text: str) -> None:
    assert str(S3Location.parse(text)) == text
    url = RegistryUrl.parse(text)
    assert (url.kind, str(url)) == (RegistryKind.S3, text)


@pytest.mark.parametrize(
    ("query", "endpoint", "path_style"),
    [
        ("", "", False),
        ("?endpoint=garage.example.org:3900", "https://garage.example.org:3900", True),
        ("?endpoint=https%3A%2F%2FGARAGE.example.org%2F", "https://garage.example.org", True),
        ("?endpoint=garage.example.org&s3ForcePathStyle=0", "https://garage.example.org", False),
    ],
)
def test_what_may_be_left_out(query: str, endpoint: str, path_style: bool) -> None:
    location = S3Location.parse(f"s3://registry{query}")
    assert (location.endpoint, location.path_style) == (endpoint, path_style)


@pytest.mark.parametrize(
    "text",
    [
        "s3:registry",
        "s3://",
        "s3://ab",
        "s3://Registry",
        "s3://key:hunter2@registry",
        "s3://registry/../other",
        "s3://registry/a//b",
        "s3://registry/%2e%2e",
        "s3://registry?password=hunter2",
        "s3://registry?endpoint=https://key:hunter2@garage.example.org",
        "s3://registry?endpoint=https://garage.example.org/path",
        "s3://registry?endpoint=ftp://garage.example.org",
        "s3://registry?endpoint=https://[garage",
        "s3://registry?endpoint=https://garage.example.org:99999",
        "s3://registry?endpoint=https://garage.example.org&endpoint=https://other.example.org",
        "s3://registry?region=a%0ab",
        "s3://registry?s3ForcePathStyle=yes",
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        RegistryUrl.parse(text)
    assert "hunter2" not in str(caught.value)
