"""Repos over HTTP: listed, shown, and added after their forge was asked."""

from albatros.errors import ForgeUnavailableError
from tests.support.api import Api
from tests.support.forges import MemoryForge


def test_a_repo_shows_its_newest_build(api: Api) -> None:
    repo = api.reader.get("/api/v1/repos/home/alba/hello").json()
    assert repo["newest_build"]["id"] == api.seeded.running
    listed = api.reader.get("/api/v1/repos").json()["items"]
    assert repo in listed
    assert [one["name"] for one in listed if one["private"]] == ["keys"]
    assert api.reader.get("/api/v1/repos/home/alba/none").status_code == 404


def test_pages_of_repos_hold_each_once(api: Api) -> None:
    first = api.reader.get("/api/v1/repos", params={"limit": 3}).json()
    second = api.reader.get("/api/v1/repos", params={"limit": 3, "cursor": first["next"]}).json()
    assert second["next"] is None
    names = [repo["name"] for repo in first["items"] + second["items"]]
    assert sorted(names) == ["driftnote", "hello", "keys", "lighthouse"]


def test_adding_asks_the_forge_and_lets_it_build(api: Api) -> None:
    forge = MemoryForge()
    forge.add("stranger/thing", private=True)
    api.forges["home"] = forge
    for body in (
        {"forge": "home", "owner": "stranger", "name": "thing"},
        {"url": "https://git.example.org/stranger/thing"},
        {"url": "https://git.example.org/stranger/thing.git"},
    ):
        answer = api.admin.post("/api/v1/repos", json=body)
        assert answer.status_code == 201
        assert (answer.json()["private"], answer.json()["allowed"]) == (True, True)
        assert api.reader.get("/api/v1/repos", params={"repo": "stranger/thing"}).json()["items"] == [answer.json()]


def test_adding_refuses_what_is_not_there_or_no_name(api: Api) -> None:
    api.forges["home"] = MemoryForge()
    for body, status in (
        ({"forge": "home", "owner": "alba", "name": "none"}, 404),
        ({"forge": "none", "owner": "alba", "name": "hello"}, 404),
        ({"url": "https://elsewhere.example.org/alba/hello"}, 400),
        ({"url": "https://git.example.org/alba"}, 400),
        ({"url": "https://git.example.org/../x"}, 400),
        ({"url": "https://git.example.org/a/b", "forge": "home"}, 400),
        ({"forge": "home", "owner": "alba"}, 400),
        ({"forge": "home", "owner": "..", "name": "x"}, 400),
        ({"forge": "home", "owner": "a b", "name": "x"}, 400),
        ({}, 400),
    ):
        answer = api.admin.post("/api/v1/repos", json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), body


def test_a_forge_that_is_away_is_named_as_such(api: Api) -> None:
    api.forges["home"] = MemoryForge(fails=ForgeUnavailableError("home does not answer"))
    answer = api.admin.post("/api/v1/repos", json={"forge": "home", "owner": "alba", "name": "hello"})
    assert answer.json()["type"] == "urn:albatros:problem:forge-unavailable"
