"""Every route, called by everybody: a private repo is there for those alone whom its forge lets in."""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select, update
from starlette.routing import BaseRoute

from albatros.db import people
from albatros.db.events import emit
from albatros.db.models import Build, Repo
from albatros.db.signals import Topic
from albatros.domain.access import Scope, new_token
from albatros.domain.refs import RepoFilter
from albatros.forges.base import Permission
from albatros.http.app import create_app
from albatros.settings import ForgeKind, OperatorSettings
from tests.support.api import Api
from tests.support.people import cookie_of, token_of

# Who may do what does not depend on the kind of database; what lists find is tested on both.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
JSON = {"Content-Type": "application/json"}
SECRETS = ("alba/keys", "Rotate the signing keys", '"name": "keys"', '"name":"keys"')
"""What tells of the private repo."""


class Needs(Enum):
    """What a route asks of its caller."""

    NOTHING = auto()
    """It shows nothing of a repo."""
    LIST = auto()
    """It shows what the caller may see, and that may be nothing."""
    SEE = auto()
    CHANGE = auto()
    ADMIN = auto()
    OPERATOR = auto()
    FORM = auto()
    """The same as CHANGE, for the forms of a page, which a token cannot send."""
    OWN = auto()
    """It is about the caller's own tokens."""
    SESSION = auto()
    """It is about the caller's own session and nothing else."""
    BADGE = auto()
    """Always a picture, which says `unknown` of what is hidden."""


ROUTES = {
    "GET /": Needs.LIST,
    "GET /builds/{build_id}": Needs.SEE,
    "POST /builds/{build_id}/cancel": Needs.FORM,
    "POST /builds/{build_id}/rerun": Needs.FORM,
    "POST /builds/{build_id}/approve": Needs.FORM,
    "GET /jobs/{job_id}": Needs.SEE,
    "GET /repos": Needs.LIST,
    "GET /repos/{forge}/{owner:path}/{name}": Needs.SEE,
    "GET /join": Needs.NOTHING,
    "POST /join": Needs.NOTHING,
    "GET /login": Needs.NOTHING,
    "POST /login": Needs.NOTHING,
    "GET /login/{forge}": Needs.NOTHING,
    "GET /login/{forge}/callback": Needs.NOTHING,
    "POST /logout": Needs.SESSION,
    "GET /settings": Needs.OWN,
    "POST /settings/tokens": Needs.OWN,
    "POST /settings/tokens/{token_id}/revoke": Needs.OWN,
    "GET /api/v1/tokens": Needs.OWN,
    "POST /api/v1/tokens": Needs.OWN,
    "DELETE /api/v1/tokens/{id}": Needs.OWN,
    "GET /static/{name}": Needs.NOTHING,
    "GET /favicon.ico": Needs.NOTHING,
    "GET /healthz": Needs.NOTHING,
    "GET /readyz": Needs.NOTHING,
    "GET /metrics": Needs.NOTHING,
    "GET /badges/{forge}/{owner:path}/{name}.svg": Needs.BADGE,
    "GET /api/v1/openapi.json": Needs.NOTHING,
    "GET /api/v1/builds": Needs.LIST,
    "GET /api/v1/builds/{id}": Needs.SEE,
    "POST /api/v1/builds/{id}/cancel": Needs.CHANGE,
    "POST /api/v1/builds/{id}/rerun": Needs.CHANGE,
    "POST /api/v1/builds/{id}/approve": Needs.CHANGE,
    "POST /api/v1/repos/{forge}/{owner:path}/{name}/builds": Needs.CHANGE,
    "GET /api/v1/jobs/{id}": Needs.SEE,
    "GET /api/v1/jobs/{id}/log": Needs.SEE,
    "HEAD /api/v1/jobs/{id}/log": Needs.SEE,
    "GET /api/v1/jobs/{id}/log/live": Needs.SEE,
    "GET /api/v1/events": Needs.LIST,
    "GET /api/v1/repos": Needs.LIST,
    "POST /api/v1/repos": Needs.ADMIN,
    "GET /api/v1/repos/{forge}/{owner:path}/{name}": Needs.SEE,
    "DELETE /api/v1/repos/{forge}/{owner:path}/{name}": Needs.ADMIN,
    "GET /api/v1/repos/{forge}/{owner:path}/{name}/hook": Needs.ADMIN,
    "GET /api/v1/images": Needs.LIST,
    "GET /api/v1/images/{id}": Needs.SEE,
    "GET /api/v1/registries": Needs.LIST,
    "GET /api/v1/artifacts": Needs.LIST,
    "GET /api/v1/artifacts/{id}": Needs.SEE,
    "GET /api/v1/artifacts/{id}/content": Needs.SEE,
    "HEAD /api/v1/artifacts/{id}/content": Needs.SEE,
    "GET /api/v1/deliveries": Needs.OPERATOR,
    "GET /api/v1/secrets": Needs.ADMIN,
    "PUT /api/v1/secrets": Needs.ADMIN,
    "DELETE /api/v1/secrets": Needs.ADMIN,
}
"""Every route with what it needs: one that is missing here fails a test."""
OTHERWISE_KNOWN = ("/webhooks/", "/runner/")
"""Below these, callers are known by a signature or by the token of their Attempt."""
STREAMS = {"GET /api/v1/events", "GET /api/v1/jobs/{id}/log/live"}


@dataclass(frozen=True)
class Actor:
    """Somebody who calls, with what they may do with the private repo."""

    name: str
    permission: Permission
    operator: bool = False
    anonymous: bool = False

    def may(self, needed: Needs) -> bool:
        if self.operator:
            return True
        least = {
            Needs.SEE: Permission.READ,
            Needs.LIST: Permission.READ,
            Needs.BADGE: Permission.READ,
            Needs.CHANGE: Permission.WRITE,
            Needs.FORM: Permission.WRITE,
            Needs.ADMIN: Permission.ADMIN,
        }.get(needed)
        order = list(Permission)
        return least is not None and order.index(self.permission) >= order.index(least)


ACTORS = (
    Actor("nobody", Permission.NONE, anonymous=True),
    Actor("stranger", Permission.NONE),
    Actor("reader", Permission.READ),
    Actor("writer", Permission.WRITE),
    Actor("admin", Permission.ADMIN),
    Actor("operator", Permission.NONE, operator=True),
)


@pytest.fixture
def guarded(public_api: Api) -> Api:
    """A public server whose forge knows the actors."""
    for actor in ACTORS:
        public_api.people.given["alba/keys", actor.name] = actor.permission
    with public_api.context.database.write() as session:
        people.remember_operator(session, "home", "operator", "id-of-operator")
    settings = public_api.context.settings
    operators = (OperatorSettings(forge="home", login="Operator"),)
    object.__setattr__(public_api.context, "settings", settings.model_copy(update={"operators": operators}))
    return public_api


def routes(app: FastAPI) -> set[str]:
    """Every route of the application, however deep its router is included."""
    found: set[str] = set()
    waiting: list[BaseRoute] = list(app.routes)
    while waiting:
        route = waiting.pop()
        waiting += getattr(getattr(route, "original_router", None), "routes", [])
        path, methods = getattr(route, "path", ""), getattr(route, "methods", None) or set()
        if not path.startswith(OTHERWISE_KNOWN):
            found |= {f"{method} {path}" for method in methods}
    return found


def test_every_route_says_what_it_needs(public_api: Api) -> None:
    found = routes(create_app(public_api.context))
    assert found == set(ROUTES) | {"HEAD /api/v1/openapi.json"}


def clients(api: Api, actor: Actor) -> Iterator[httpx.Client]:
    """The actor by cookie, and by a token that they made."""
    headers = {"Origin": api.url}
    if actor.anonymous:
        yield api.clients.enter_context(httpx.Client(base_url=api.url, headers=headers, timeout=60))
        return
    cookies = cookie_of(api.context, actor.name)
    yield api.clients.enter_context(httpx.Client(base_url=api.url, headers=headers, cookies=cookies, timeout=60))
    token = token_of(api.context.database, actor.name, Scope.ADMIN)
    headers["Authorization"] = f"Bearer {token}"
    yield api.clients.enter_context(httpx.Client(base_url=api.url, headers=headers, timeout=60))


def target(api: Api, path: str) -> str:
    """The path of what belongs to the private repo."""
    private = api.seeded.private
    mine = api.admin.get(f"/api/v1/builds/{private}").json()
    ids = {
        "builds": private,
        "jobs": mine["jobs"][1]["id"],
        "images": mine["images"][0]["id"],
        "artifacts": mine["artifacts"][0]["id"],
        "tokens": 999999,
    }
    kind = next((kind for kind in ids if f"/{kind}/{{" in path), "")
    path = re.sub(r"\{(id|build_id|job_id|token_id)\}", lambda _: str(ids[kind]), path)
    return path.replace("{forge}", "home").replace("{owner:path}", owner_of(api)).replace("{name}", "keys")


def owner_of(api: Api) -> str:
    """Whose the private repo is."""
    with api.context.database.read() as session:
        return session.scalars(select(Repo.owner).where(Repo.name == "keys")).one()


def call(client: httpx.Client, api: Api, route: str) -> tuple[int, str]:
    method, _, path = route.partition(" ")
    where = target(api, path)
    body: dict[str, object] = {}
    if path == "/api/v1/secrets":
        secret = {"place": f"home/{owner_of(api)}/keys", "name": "github.com"}
        body = {"json": {**secret, "value": "a-token"}} if method == "PUT" else {"params": secret}
    elif method == "POST" and path.startswith("/api/"):
        named = {"forge": "home", "owner": owner_of(api), "name": "keys"}
        body["json"] = {"ref": "main"} if path.endswith("/builds") else named
    elif method == "POST":
        page = client.get(f"/builds/{api.seeded.published}").text
        token = page.partition('name="form_token" value="')[2].partition('"')[0]
        body["data"] = {"form_token": token}
    with client.stream(method, where, timeout=60, **body) as answer:  # type: ignore[arg-type]  # any of httpx's
        if route in STREAMS and answer.status_code == 200:
            return answer.status_code, ""
        return answer.status_code, answer.read().decode("utf-8", "replace")


def expected(actor: Actor, route: str, needed: Needs, *, by_token: bool) -> set[int]:
    """The statuses that this answer may have."""
    changes = not route.startswith(("GET", "HEAD"))
    if needed in {Needs.NOTHING, Needs.LIST, Needs.BADGE, Needs.OWN}:
        return set(range(200, 500))
    if actor.anonymous and (changes or needed is Needs.OPERATOR):
        return {401}
    if not by_token and changes and needed is not Needs.FORM:
        return {401}  # a cookie alone changes nothing
    if needed is Needs.ADMIN and not by_token:
        return {401} if actor.anonymous else {403}  # a cookie alone is no more than a reader's
    if needed is Needs.OPERATOR:
        return {200, 201, 404} if actor.operator and by_token else {403}
    if actor.may(needed):
        return {200, 201, 204, 303, 404, 409}
    return {403} if actor.may(Needs.SEE) else {404}


@pytest.fixture
def in_subgroup(guarded: Api) -> Api:
    """The same, with the private repo in a group inside of another, on a GitLab."""
    for actor in ACTORS:
        guarded.people.given["alba/deep/keys", actor.name] = guarded.people.given.pop(("alba/keys", actor.name))
    settings = guarded.context.settings
    forges = tuple(forge.model_copy(update={"kind": ForgeKind.GITLAB}) for forge in settings.forges)
    object.__setattr__(guarded.context, "settings", settings.model_copy(update={"forges": forges}))
    with guarded.context.database.write() as session:
        session.execute(update(Repo).where(Repo.name == "keys").values(owner="alba/deep"))
    return guarded


@pytest.mark.parametrize("actor", ACTORS, ids=lambda actor: actor.name)
def test_a_repo_in_a_subgroup_is_guarded_as_every_other(in_subgroup: Api, actor: Actor) -> None:
    check_every_route(in_subgroup, actor)


def test_a_forge_without_subgroups_is_asked_about_none(guarded: Api) -> None:
    guarded.people.asked.clear()
    for path in ("/api/v1/repos/home/alba/deep/keys", "/api/v1/repos/home/alba/deep/keys/hook"):
        assert guarded.admin.get(path).status_code == 400
    assert guarded.admin.post("/api/v1/repos/home/alba/deep/keys/builds", json={"ref": "main"}).status_code == 400
    named = {"forge": "home", "owner": "alba/deep", "name": "keys"}
    assert guarded.admin.post("/api/v1/repos", json=named).status_code == 400
    assert guarded.anybody.get("/badges/home/alba/deep/keys.svg").status_code == 400
    assert guarded.anybody.get("/repos/home/alba/deep/keys").status_code == 400
    assert guarded.people.asked == []


@pytest.mark.parametrize("actor", ACTORS, ids=lambda actor: actor.name)
def test_everybody_gets_as_far_as_their_forge_lets_them(guarded: Api, actor: Actor) -> None:
    check_every_route(guarded, actor)


def check_every_route(guarded: Api, actor: Actor) -> None:
    """Call every route as somebody, and hold the answer against what they may do."""
    hidden = f"home/{owner_of(guarded)}/keys"
    for client in clients(guarded, actor):
        by_token = "authorization" in client.headers
        for route, needed in ROUTES.items():
            if (needed is Needs.FORM and by_token) or needed is Needs.SESSION:
                continue
            status, text = call(client, guarded, route)
            where = (actor.name, by_token, route, status, text[:300])
            assert status in expected(actor, route, needed, by_token=by_token), where
            if needed is Needs.BADGE:
                assert ("unknown" in text) is not actor.may(needed), where
            if actor.may(Needs.SEE):
                assert "not for you" not in text, where
            else:
                assert not any(secret in text.replace(hidden, "") for secret in SECRETS), where


@pytest.mark.parametrize("actor", ACTORS, ids=lambda actor: actor.name)
def test_what_is_hidden_looks_like_what_is_not_there(guarded: Api, actor: Actor) -> None:
    hidden = [route for route, needed in ROUTES.items() if needed is Needs.SEE and "{id}" in route]
    assert len(hidden) > 6
    for client in clients(guarded, actor):
        for route in (route for route in hidden if not actor.may(Needs.SEE)):
            method, _, path = route.partition(" ")
            there, missing = target(guarded, path), re.sub(r"\{id\}", "999999", path)
            answers = [client.request(method, one) for one in (there, missing)]
            texts = [re.sub(r"\d+", "N", answer.text) for answer in answers]
            assert answers[0].status_code == answers[1].status_code == 404, route
            assert texts[0] == texts[1], route


@pytest.mark.parametrize("actor", ACTORS, ids=lambda actor: actor.name)
def test_lists_hold_what_the_caller_may_see(guarded: Api, actor: Actor) -> None:
    for client in clients(guarded, actor):
        pages = [client.get(path).text for path in ("/", "/repos", "/?repo=alba/keys")]
        assert any("Rotate the signing keys" in page for page in pages) is actor.may(Needs.SEE)
        for kind in ("builds", "repos", "images", "artifacts"):
            found = everything(client, kind)
            of_all = everything(guarded.admin, kind)
            assert (len(found) == len(of_all)) is actor.may(Needs.SEE), kind
            assert len(found) > 0, kind


def everything(client: httpx.Client, kind: str) -> list[int]:
    """Every id of a list, in pages of two: none is left out and none comes twice."""
    found: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.get(f"/api/v1/{kind}", params={"limit": 2, "cursor": cursor}).json()
        found += [one.get("id", one.get("name")) for one in page["items"]]
        cursor = page["next"]
        assert cursor is None or len(page["items"]) == 2
    assert len(set(found)) == len(found)
    return found


@pytest.mark.parametrize("actor", ACTORS, ids=lambda actor: actor.name)
def test_events_tell_of_what_the_caller_may_see(guarded: Api, actor: Actor) -> None:
    def happen() -> None:
        for build_id in (guarded.seeded.private, guarded.seeded.published):
            with guarded.context.database.write() as session:
                emit(session, session.get_one(Build, build_id), "build.succeeded", number=1)
        guarded.context.signals.notify(Topic.WATCHERS)

    for client in clients(guarded, actor):
        with client.stream("GET", "/api/v1/events", timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            threading.Timer(0.05, happen).start()
            names = []
            for line in lines:
                if line.startswith("data: "):
                    names.append("keys" if '"keys"' in line else "hello")
                if "hello" in names:
                    break
        assert names == (["keys", "hello"] if actor.may(Needs.SEE) else ["hello"])


def test_the_forge_is_asked_about_a_repo_whether_it_is_known_or_not(guarded: Api) -> None:
    stranger = next(iter(clients(guarded, ACTORS[1])))
    for name in ("keys", "no-such-repo"):
        guarded.people.asked.clear()
        guarded.context.roles._answers.clear()
        assert stranger.get(f"/api/v1/repos/home/alba/{name}").status_code == 404
        assert guarded.people.asked == [(f"alba/{name}", "stranger"), ("-/-", "stranger")]


def test_a_role_that_ends_ends_the_sight_of_it(guarded: Api) -> None:
    person = next(iter(clients(guarded, ACTORS[2])))
    path = f"/api/v1/builds/{guarded.seeded.private}"
    assert person.get(path).status_code == 200
    guarded.people.given["alba/keys", "reader"] = Permission.NONE
    guarded.context.roles._answers.clear()
    assert person.get(path).status_code == 404


def test_a_forge_that_is_away_is_told_in_a_sentence(guarded: Api) -> None:
    person = next(iter(clients(guarded, ACTORS[2])))
    guarded.people.go_away()
    answer = person.get(f"/api/v1/builds/{guarded.seeded.private}")
    assert answer.status_code == 502
    assert "cannot be asked what reader may do there" in answer.json()["detail"]
    assert person.get(f"/api/v1/builds/{guarded.seeded.published}").status_code == 200
    assert person.get(f"/builds/{guarded.seeded.running}").status_code == 200


def test_a_forge_that_is_away_tells_no_name_of_a_hidden_repo(guarded: Api) -> None:
    guarded.people.go_away()
    for client in clients(guarded, ACTORS[1]):
        answers = [client.get(f"/api/v1/builds/{number}").text for number in (guarded.seeded.private, 999999)]
        assert answers[0] == answers[1]
        for path in (f"/api/v1/builds/{guarded.seeded.private}", "/api/v1/builds", "/api/v1/repos", "/", "/repos"):
            answer = client.get(path)
            assert answer.status_code == 502, path
            assert "keys" not in answer.text, path


def test_a_token_for_one_repo_is_for_no_other(guarded: Api) -> None:
    bound = RepoFilter("home", "alba", "lighthouse")
    client = guarded.with_token(token_of(guarded.context.database, "admin", Scope.ADMIN, bound))
    assert client.get(f"/api/v1/builds/{guarded.seeded.private}").status_code == 404
    assert client.post(f"/api/v1/builds/{guarded.seeded.running}/cancel").status_code == 403
    assert client.get("/api/v1/deliveries").status_code == 403


def test_somebody_who_got_a_name_that_was_anothers_is_not_them(guarded: Api) -> None:
    person = next(iter(clients(guarded, ACTORS[2])))
    with guarded.context.database.write() as session:
        people.logged_in(session, "home", "somebody-else", "Reader")
    assert person.get(f"/api/v1/builds/{guarded.seeded.private}").status_code == 404
    assert guarded.with_token(new_token()).get("/api/v1/builds").status_code == 401


def test_a_name_that_changed_hands_on_the_forge_alone_opens_nothing_either(guarded: Api) -> None:
    people_of, path = guarded.people, f"/api/v1/builds/{guarded.seeded.private}"
    squatter = guarded.with_token(token_of(guarded.context.database, "newcomer", Scope.ADMIN))
    people_of.given["alba/keys", "newcomer"] = Permission.ADMIN
    people_of.ids["newcomer"] = "id-of-somebody-else"
    assert squatter.get(path).status_code == 404
    people_of.ids.clear()
    guarded.context.roles._answers.clear()
    assert squatter.get(path).status_code == 200
