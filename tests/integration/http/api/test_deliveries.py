"""Deliveries over HTTP: what arrived and what became of it, never its body."""

from sqlalchemy import update

from albatros.db.models import Build, Delivery
from albatros.db.session import now
from tests.support.api import Api


def test_deliveries_show_their_builds_or_the_reason_there_is_none(api: Api) -> None:
    with api.context.database.write() as session:
        for number, reason in ((1, ""), (2, "a branch was deleted")):
            row = Delivery(
                forge="home",
                delivery_id=f"d{number}",
                event="push",
                body=b'{"secret": "of the body"}',
                reason=reason,
                received_at=now(),
            )
            session.add(row)
            session.flush()
            if not reason:
                session.execute(update(Build).where(Build.id == api.seeded.failed).values(delivery_id=row.id))
    answer = api.admin.get("/api/v1/deliveries")
    without, with_build = answer.json()["items"]
    assert (without["reason"], without["builds"]) == ("a branch was deleted", [])
    assert (with_build["reason"], with_build["builds"]) == ("", [api.seeded.failed])
    assert "of the body" not in answer.text
    page = api.admin.get("/api/v1/deliveries", params={"limit": 1, "forge": "home"}).json()
    rest = api.admin.get("/api/v1/deliveries", params={"limit": 1, "forge": "home", "cursor": page["next"]}).json()
    assert [one["delivery_id"] for one in page["items"] + rest["items"]] == ["d2", "d1"]
    assert api.admin.get("/api/v1/deliveries", params={"forge": "other"}).json()["items"] == []
