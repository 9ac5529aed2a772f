"""Images with their publications, and registries without their secrets."""

import pytest

from albatros.http.api.images import redacted
from tests.support.api import Api


def test_images_show_their_publications(api: Api) -> None:
    images = api.reader.get("/api/v1/images", params={"build": api.seeded.retrying}).json()["items"]
    assert [image["build_id"] for image in images] == [api.seeded.retrying]
    assert api.reader.get(f"/api/v1/images/{images[0]['id']}").json() == images[0]
    waiting = [one for one in images[0]["publications"] if one["state"] == "pending"]
    assert {one["tries"] for one in waiting} == {3}
    assert all(one["next_try_at"].endswith("Z") for one in waiting)
    assert api.reader.get("/api/v1/images/999999").status_code == 404


def test_pages_of_images_hold_each_once(api: Api) -> None:
    whole = [image["id"] for image in api.reader.get("/api/v1/images", params={"limit": 100}).json()["items"]]
    page = api.reader.get("/api/v1/images", params={"limit": 2}).json()
    found = [image["id"] for image in page["items"]]
    while page["next"] is not None:
        page = api.reader.get("/api/v1/images", params={"limit": 2, "cursor": page["next"]}).json()
        found += [image["id"] for image in page["items"]]
    assert found == whole


def test_registries_are_named_with_what_may_be_published(api: Api) -> None:
    hub, static = api.reader.get("/api/v1/registries").json()["items"]
    assert (hub["name"], hub["url"], hub["names"]) == ("hub", "docker://hub.example.org/alba", ["{repo}"])
    assert static["url"] == "dir:/srv/registry"
    assert {key for one in (hub, static) for key in one} == {
        "name",
        "url",
        "public",
        "required",
        "names",
        "repos",
        "refs",
    }


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("docker://user:secret@host:5000/a", "docker://host:5000/a"),
        ("s3://bucket/prefix?secret_key=secret", "s3://bucket/prefix"),
        ("dir:/srv/registry", "dir:/srv/registry"),
        ("docker://host/a#secret", "docker://host/a"),
    ],
)
def test_an_address_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert redacted(url, paths=True) == shown


def test_a_directory_is_told_to_who_has_a_token_alone(public_api: Api) -> None:
    assert redacted("dir:/srv/registry", paths=False) == "dir:"
    assert "/srv/registry" not in public_api.anybody.get("/api/v1/registries").text
    assert "/srv/registry" in public_api.reader.get("/api/v1/registries").text
