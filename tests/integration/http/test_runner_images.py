"""What `alba` calls, over HTTP: asking, looking, and what is refused before anything is kept."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from albatros.db.models import ImageRequest
from albatros.db.session import Database
from albatros.domain.references import digest_of
from albatros.domain.states import JobKind
from albatros.flows import plan
from tests.support.pushing import image
from tests.support.runner_site import Site, problem, serve_runner

IMAGE = image()


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Iterator[Site]:
    """A server whose one runner runs a script."""
    forge = {"name": "home", "kind": "git", "url": "/git", "webhook_secret": "not-a-secret", "scripts": ["*/*"]}
    with serve_runner(database, tmp_path, forges=[forge]) as served:
        assert served.claim().status_code == 200
        served.runner.report(evaluation={"config": None, "commit_time": 1, "script": True, "attributes": []})
        world = served.world
        forges = {item.name: item for item in world.settings.forges}
        plan.plan_due(world.database, world.signals, world.settings.limits, forges)
        served.runner = world.dispatch_one()
        assert served.runner.job().kind is JobKind.SCRIPT
        assert served.claim().status_code == 200
        yield served


def asked(site: Site, **changes: object) -> dict[str, object]:
    part = {"file": "linux.amd64.tar.gz", "digest": digest_of(IMAGE), "size": len(IMAGE)}
    return {"nonce": site.runner.nonce, "registry": "hub", "name": "hello", "tag": "main", "parts": [part]} | changes


def look(site: Site, request: object, nonce: str | None = None) -> "tuple[int, dict[str, object]]":
    headers = {"Authorization": f"Bearer {site.runner.token}", "X-Albatros-Nonce": nonce or site.runner.nonce}
    answer = site.client.get(f"/runner/v1/images/{request}", headers=headers)
    return answer.status_code, answer.json()


def requests(site: Site) -> int:
    with site.world.database.read() as session:
        return session.scalar(select(func.count()).select_from(ImageRequest)) or 0


def test_an_image_is_asked_for_and_looked_at(site: Site) -> None:
    assert site.upload(IMAGE).status_code == 201
    answers = [site.post("images", asked(site)) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()
    request = answers[0].json()["id"]
    assert look(site, request)[1]["state"] == "waiting"
    made = site.world.script_images.claim()
    assert made is not None
    site.world.script_images.make(made)
    site.world.publish()
    status, done = look(site, request)
    assert (status, done["state"]) == (200, "published")
    assert str(done["reference"]).startswith("hub.example.org/team/hello:main@sha256:")
    assert look(site, request + 1)[0] == 404
    assert look(site, request, "f" * 32)[0] == 409


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Upper"},
        {"name": "a//b"},
        {"name": "../x"},
        {"tag": ".."},
        {"tag": "a b"},
        {"tag": "x" * 129},
        {"tag": None},
        {"parts": []},
        {"parts": "x"},
        {"parts": [{"file": "x"}]},
        {"parts": [{"file": "", "digest": digest_of(IMAGE), "size": 1}]},
        {"parts": [{"file": "a\nb", "digest": digest_of(IMAGE), "size": 1}]},
        {"parts": [{"file": "a", "digest": "sha256:x", "size": 1}]},
        {"parts": [{"file": "a", "digest": digest_of(IMAGE), "size": -1}]},
        {"parts": [{"file": "a", "digest": digest_of(IMAGE), "size": 1}] * 2},
        {"parts": [{"file": f"{n}", "digest": digest_of(IMAGE), "size": 1} for n in range(101)]},
        {"nonce": "x"},
    ],
)
def test_what_cannot_be_an_image_is_refused(site: Site, changes: dict[str, object]) -> None:
    site.upload(IMAGE)
    problem(site.post("images", asked(site, **changes)), 400)
    assert requests(site) == 0


def test_what_was_not_uploaded_is_not_there(site: Site) -> None:
    problem(site.post("images", asked(site)), 400, "was not uploaded")
    site.upload(IMAGE)
    problem(site.post("images", asked(site, registry="nowhere")), 404, "there are: hub, static")
    problem(site.post("images", asked(site, tag="9.9.9")), 403, "kept for releases")
    problem(site.post("images", asked(site), "nobody"), 401)
    assert requests(site) == 0
