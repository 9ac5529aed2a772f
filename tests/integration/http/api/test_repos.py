"""Repos over HTTP: listed, shown, added with their webhook after their forge was asked, and removed."""

from albatros.db import pages
from albatros.domain.access import Scope
from albatros.errors import ForgeError, ForgeUnavailableError
from albatros.forges.base import Permission
from tests.support.api import Api
from tests.support.forges import MemoryForge
from tests.support.people import token_of


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
        joined = answer.json()
        assert joined.pop("hook") == {"state": "ready", "text": "the webhook was made"}
        assert (joined["private"], joined["allowed"]) == (True, True)
        assert api.reader.get("/api/v1/repos", params={"repo": "stranger/thing"}).json()["items"] == [joined]
    assert api.hooks.hooks == {"stranger/thing": {f"{api.url}/webhooks/home": True}}


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


THING = "/api/v1/repos/home/stranger/thing"


def add_thing(api: Api) -> None:
    forge = MemoryForge()
    forge.add("stranger/thing")
    api.forges["home"] = forge
    body = {"forge": "home", "owner": "stranger", "name": "thing"}
    assert api.admin.post("/api/v1/repos", json=body).status_code == 201


def test_a_hook_is_shown_to_admins_and_repaired_by_adding_again(api: Api) -> None:
    add_thing(api)
    assert api.writer.get(f"{THING}/hook").status_code == 403
    assert api.admin.get(f"{THING}/hook").json()["state"] == "ready"
    api.hooks.hooks["stranger/thing"] = {f"{api.url}/webhooks/home": False}
    assert api.admin.get(f"{THING}/hook").json()["state"] == "differs"
    add_thing(api)
    assert api.admin.get(f"{THING}/hook").json()["state"] == "ready"


def test_a_removed_repo_has_no_hook_and_may_not_build(api: Api) -> None:
    add_thing(api)
    assert api.writer.delete(THING).status_code == 403
    for _ in range(2):
        answer = api.admin.delete(THING)
        assert (answer.status_code, answer.json()["state"]) == (200, "missing")
        assert api.hooks.hooks == {"stranger/thing": {}}
        assert api.reader.get(THING).json()["allowed"] is False
    covered = api.admin.delete("/api/v1/repos/home/alba/hello").json()
    assert "forges.repos covers it" in covered["text"]
    assert api.admin.delete("/api/v1/repos/home/stranger/none").status_code == 404


def test_a_forge_that_refuses_a_hook_leaves_it_to_the_person(api: Api) -> None:
    api.hooks.fails = ForgeError("home: POST /hooks answered 403: check forges.token")
    add_thing(api)
    body = {"forge": "home", "owner": "stranger", "name": "thing"}
    hook = api.admin.post("/api/v1/repos", json=body).json()["hook"]
    assert hook["state"] == "missing"
    assert "answered 403" in hook["text"]
    assert f"create the webhook by hand: {api.url}/webhooks/home" in hook["text"]
    assert api.admin.get(f"{THING}/hook").status_code == 502


def test_nothing_is_written_while_the_forge_is_away(api: Api) -> None:
    add_thing(api)
    api.hooks.fails = ForgeUnavailableError("home does not answer")
    assert api.admin.delete(THING).json()["type"] == "urn:albatros:problem:forge-unavailable"
    assert api.reader.get(THING).json()["allowed"] is True
    api.hooks.fails = None
    api.admin.delete(THING)
    api.hooks.fails = ForgeUnavailableError("home does not answer")
    body = {"forge": "home", "owner": "stranger", "name": "thing"}
    assert api.admin.post("/api/v1/repos", json=body).status_code == 502
    assert api.reader.get(THING).json()["allowed"] is False


def test_a_repos_admin_adds_what_the_settings_let_build_and_nothing_else(api: Api) -> None:
    forge = MemoryForge()
    for name in ("alba/new", "stranger/thing"):
        forge.add(name)
        for login, permission in (("boss", Permission.ADMIN), ("hand", Permission.WRITE)):
            api.people.given[name, login] = permission
    api.forges["home"] = forge
    answers = {}
    for login in ("boss", "hand", "nobody"):
        client = api.with_token(token_of(api.context.database, login, Scope.ADMIN))
        for owner, name in (("alba", "new"), ("stranger", "thing")):
            body = {"forge": "home", "owner": owner, "name": name}
            answers[login, owner] = client.post("/api/v1/repos", json=body)
    codes = {key: answer.status_code for key, answer in answers.items()}
    assert codes == {
        ("boss", "alba"): 201, ("boss", "stranger"): 403, ("hand", "alba"): 403, ("hand", "stranger"): 403,
        ("nobody", "alba"): 404, ("nobody", "stranger"): 404,
    }  # fmt: skip
    assert "ask an operator" in answers["boss", "stranger"].json()["detail"]
    assert list(api.hooks.hooks) == ["alba/new"]
    with api.context.database.read() as session:
        added = pages.find_repo(session, "home", "alba", "new")
    # Covered by the settings as they are now, and not for ever.
    assert added is not None
    assert not added.allowed
