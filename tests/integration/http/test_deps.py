"""Who calls: tokens with their scopes, ends and uses, the dashboard's cookie, and what nobody may know of."""

from datetime import datetime, timedelta

import httpx
from sqlalchemy.orm import Session

from albatros.db import tokens
from albatros.db.models import Token
from albatros.db.session import now
from albatros.domain.access import Scope, new_token
from albatros.http.sessions import Session as Login
from albatros.http.sessions import SessionKind, cookie_name, signer, token_proof
from tests.support.api import Api


def test_a_token_is_known_by_its_hash_alone(api: Api) -> None:
    with api.context.database.read() as session:
        rows = tokens.list_all(session)
    assert {row.scope for row in rows} == set(Scope)
    assert not any(secret in repr(vars(row)) for row in rows for secret in api.tokens.values())


def test_wrong_expired_and_revoked_tokens_are_refused(api: Api) -> None:
    expired, revoked = new_token(), new_token()
    with api.context.database.write() as session:
        tokens.create(session, "expired", expired, Scope.ADMIN, now() - timedelta(seconds=1))
        tokens.create(session, "revoked", revoked, Scope.ADMIN, now() + timedelta(days=1))
    assert api.with_token(revoked).get("/api/v1/builds").status_code == 200
    with api.context.database.write() as session:
        tokens.revoke(session, "revoked")
    for wrong in (expired, revoked, new_token(), "x", "a" * 5000):
        assert api.with_token(wrong).get("/api/v1/builds").status_code == 401
    for header in ("", "Bearer", "Basic YTpi", api.tokens[Scope.READ], "Bearer a b"):
        answer = api.anybody.get("/api/v1/builds", headers={"authorization": header})
        assert answer.status_code == 401, header


def test_a_bad_token_is_refused_even_where_none_is_needed(public_api: Api) -> None:
    assert public_api.anybody.get("/api/v1/builds").status_code == 200
    assert public_api.with_token(new_token()).get("/api/v1/builds").status_code == 401


def test_the_use_of_a_token_is_recorded_once_a_minute(api: Api) -> None:
    long_ago = now() - timedelta(minutes=5)
    api.reader.get("/api/v1/builds")
    assert last_used(api) > long_ago
    just_now = now() - timedelta(seconds=20)
    for before, changes in ((just_now, False), (long_ago, True)):
        set_last_used(api, before)
        api.reader.get("/api/v1/builds")
        assert (last_used(api) != before) is changes


def last_used(api: Api) -> datetime:
    """After what the writer has queued: it commits in order."""
    used = api.context.writer.submit(lambda session: row(session).last_used_at).result(60)
    assert used is not None
    return used


def set_last_used(api: Api, at: datetime) -> None:
    with api.context.database.write() as session:
        row(session).last_used_at = at


def row(session: Session) -> Token:
    return next(token for token in tokens.list_all(session) if token.scope == Scope.READ)


def test_on_a_public_server_a_private_repo_does_not_exist_for_nobody(public_api: Api) -> None:
    private = public_api.seeded.private
    mine = public_api.reader.get(f"/api/v1/builds/{private}").json()
    paths = [
        f"/api/v1/builds/{private}",
        "/api/v1/repos/home/alba/keys",
        *(f"/api/v1/jobs/{job['id']}{rest}" for job in mine["jobs"] for rest in ("", "/log", "/log/live")),
        *(f"/api/v1/images/{image['id']}" for image in mine["images"]),
        *(f"/api/v1/artifacts/{one['id']}{rest}" for one in mine["artifacts"] for rest in ("", "/content")),
    ]
    assert len(paths) > 10
    for path in paths:
        answer = public_api.anybody.get(path)
        assert answer.status_code == 404, path
        missing = public_api.anybody.get("/api/v1/builds/999999")
        assert answer.json()["type"] == missing.json()["type"]
    for kind in ("builds", "repos", "images", "artifacts"):
        seen, all_of_it = everything(public_api.anybody, kind), everything(public_api.reader, kind)
        assert len(seen) < len(all_of_it), kind
    assert everything(public_api.anybody, "builds?repo=alba/keys") == []


def everything(client: httpx.Client, kind: str) -> list[object]:
    answer = client.get(f"/api/v1/{kind}", params={"limit": 100} if "?" not in kind else None)
    assert answer.json()["next"] is None
    found: list[object] = answer.json()["items"]
    return found


def test_a_public_server_shows_its_deliveries_to_its_admin_alone(public_api: Api) -> None:
    assert public_api.anybody.get("/api/v1/deliveries").status_code == 401
    assert public_api.writer.get("/api/v1/deliveries").status_code == 403
    assert public_api.admin.get("/api/v1/deliveries").status_code == 200


def test_the_dashboards_cookie_reads_and_changes_nothing(api: Api) -> None:
    with api.context.database.read() as session:
        admin = next(token for token in tokens.list_all(session) if token.scope == Scope.ADMIN)
    login = Login(SessionKind.TOKEN, admin.id, token_proof(admin.token_hash))
    cookie = signer(api.context.settings.keys).issue(login)
    name = cookie_name(api.context.settings)
    headers = {"cookie": f"{name}={cookie}"}
    assert api.anybody.get(f"/api/v1/builds/{api.seeded.private}", headers=headers).status_code == 200
    assert api.anybody.get("/api/v1/deliveries", headers=headers).status_code == 403
    running = api.seeded.running
    assert api.anybody.post(f"/api/v1/builds/{running}/cancel", headers=headers).status_code == 401
    forged = {"cookie": f"{name}={cookie[:-1]}{'0' if cookie[-1] != '0' else '1'}"}
    assert api.anybody.get("/api/v1/builds", headers=forged).status_code == 401
    with api.context.database.write() as session:
        tokens.revoke(session, admin.name)
    assert api.anybody.get("/api/v1/builds", headers=headers).status_code == 401
