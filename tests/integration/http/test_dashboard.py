from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape

import pytest
from sqlalchemy import Engine, event, select

from albatros.db import logs
from albatros.db.builds import NewBuild, create_build
from albatros.db.models import Attempt, Build, Image, Job, LogPiece, Publication, Repo
from albatros.db.session import now
from albatros.db.signals import Topic
from albatros.domain.states import BuildState, JobKind, JobState, PublicationState, Trigger
from albatros.http.dashboard import BUILDS_A_PAGE, JOBS_A_PAGE
from tests.support.api import Api
from tests.support.seed import MAIN
from tests.support.seed_cluster import cluster_build
from tests.support.seed_rows import Push, Seeder

HTML = {"Accept": "text/html,application/xhtml+xml"}
HOSTILE = '"><script>alert(1)</script>{{ 7 * 7 }}'
PAGE_BYTES = 30 << 10


@contextmanager
def counted_selects(engine: Engine) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("SELECT"):
            seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def seed_many(api: Api, builds: int, jobs_each: int = 1, owner: str = "many", title: str = "Again") -> list[int]:
    with api.context.database.write() as session:
        seeder = Seeder(session, now())
        repo = session.scalar(select(Repo).where(Repo.owner == owner)) or seeder.repo(owner, "repo")
        made = []
        for _ in range(builds):
            build = seeder.build(Push(repo, MAIN, title, "Ines", 1), BuildState.SUCCEEDED, took=3)
            for number in range(jobs_each):
                seeder.jobs(build, f"package-{number}", [JobState.SUCCEEDED] * 4)
            made.append(build.id)
        return made


def pages(api: Api) -> list[str]:
    seeded = api.seeded
    builds = (seeded.published, seeded.failed, seeded.running, seeded.retrying)
    jobs = (seeded.failed_job, seeded.running_job)
    paths = ["/", "/repos", "/repos/home/alba/hello", "/login"]
    return paths + [f"/builds/{build}" for build in builds] + [f"/jobs/{job}" for job in jobs]


def test_pages_are_small_and_let_nothing_in(public_api: Api) -> None:
    for path in pages(public_api):
        answer = public_api.anybody.get(path, headers=HTML)
        assert answer.status_code == 200, (path, answer.text)
        assert len(answer.content) < PAGE_BYTES, path
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe-inline" not in answer.headers["content-security-policy"]
        assert "style=" not in answer.text
        assert "onclick" not in answer.text


@pytest.mark.parametrize("path", ["/?repo=many/repo", "/repos/home/many/repo", "/repos"])
def test_a_list_costs_as_many_selects_however_long_it_is(public_api: Api, path: str) -> None:
    engine = public_api.context.database.engine
    counts = []
    for more in (1, 12):
        seed_many(public_api, more)
        with counted_selects(engine) as seen:
            assert public_api.anybody.get(path, headers=HTML).status_code == 200
        counts.append(len(seen))
    assert counts[0] == counts[1]


def test_a_build_costs_as_many_selects_however_many_jobs_it_has(public_api: Api) -> None:
    counts = []
    for jobs in (1, 9):
        (build,) = seed_many(public_api, 1, jobs)
        with counted_selects(public_api.context.database.engine) as seen:
            public_api.anybody.get(f"/builds/{build}", headers=HTML)
        counts.append(len(seen))
    assert counts[0] == counts[1]


def test_older_builds_are_on_further_pages(public_api: Api) -> None:
    made = seed_many(public_api, BUILDS_A_PAGE + 2)
    first = public_api.anybody.get("/?repo=many/repo", headers=HTML).text
    assert f'href="/builds/{made[-1]}"' in first
    assert f'href="/builds/{made[1]}"' not in first
    second = public_api.anybody.get(f"/?repo=many/repo&before={made[2]}", headers=HTML).text
    assert f"before={made[2]}" in first
    assert f'href="/builds/{made[0]}"' in second
    assert f'href="/builds/{made[1]}"' in second
    assert "Older builds" not in second


def test_many_jobs_are_on_several_pages(public_api: Api) -> None:
    (build,) = seed_many(public_api, 1, jobs_each=13)
    first = public_api.anybody.get(f"/builds/{build}", headers=HTML).text
    second = public_api.anybody.get(f"/builds/{build}?jobs={JOBS_A_PAGE}", headers=HTML).text
    assert first.count('href="/jobs/') == JOBS_A_PAGE
    assert second.count('href="/jobs/') == 2
    assert "52 of 52 done" in second


FILTERS = [
    ("branch=tides", "Store tides as 64-bit counters", "Say hello"),
    ("branch=refs/tags/v1.4.0", "Release 1.4.0", "Say hello"),
    ("repo=home/alba/hello", "Say hello on four platforms", "Release 1.4.0"),
    ("state=publishing", "Release 1.4.0", "Say hello"),
    ("state=no-such-state", "Say hello on four platforms", "not a filter"),
    ("repo=%3Cb%3E", "not a filter", "Say hello"),
    ("repo=alba/none", "No build matches", "Say hello"),
]


def test_filters(public_api: Api) -> None:
    for query, shown, hidden in FILTERS:
        text = public_api.anybody.get(f"/?{query}", headers=HTML).text
        assert shown in text, query
        assert hidden not in text, query


def test_a_private_repo_does_not_exist_for_the_public(public_api: Api) -> None:
    secret = "Rotate the signing keys"
    with public_api.context.database.read() as session:
        job = session.scalars(select(Job.id).where(Job.build_id == public_api.seeded.private)).first()
    paths = [f"/builds/{public_api.seeded.private}", f"/jobs/{job}", "/repos/home/alba/keys"]
    for path in paths:
        answer = public_api.anybody.get(path, headers=HTML)
        assert answer.status_code == 404
        assert secret not in answer.text
        assert public_api.reader.get(path, headers=HTML).status_code == 200
    for path in ("/", "/?repo=alba/keys", "/repos"):
        text = public_api.anybody.get(path, headers=HTML).text
        assert secret not in text
        assert "alba/keys</a>" not in text
    assert secret in public_api.reader.get("/", headers=HTML).text


def test_what_others_wrote_is_only_text(public_api: Api) -> None:
    (build,) = seed_many(public_api, 1, title=HOSTILE)
    with public_api.context.database.write() as session:
        row = session.get_one(Build, build)
        row.author, row.message, row.state, row.ref = HOSTILE, HOSTILE, BuildState.FAILED, f"refs/heads/{HOSTILE}"
        job = session.scalars(select(Job).where(Job.build_id == build)).first()
        assert job is not None
        job.name, job.message, job.state, job.attributes = HOSTILE, HOSTILE, JobState.FAILED, [HOSTILE]
        Seeder(session, now()).attempt(job, f"{HOSTILE}\n")
        job_id = job.id
    for path in ("/", f"/builds/{build}", f"/jobs/{job_id}", "/repos/home/many/repo", f"/?branch={HOSTILE}"):
        text = public_api.anybody.get(path, headers=HTML).text
        assert "<script>alert" not in text, path
        assert "{{ 7 * 7 }}" in text, path


def test_publications_tell_what_they_wait_for(public_api: Api) -> None:
    text = public_api.anybody.get(f"/builds/{public_api.seeded.retrying}", headers=HTML).text
    assert "hub.example.org refused the connection; is it up?" in text
    assert "try 4" in text
    assert "2 of 4 published" in text
    assert "docker pull" not in text


def test_a_superseded_publication_can_be_pulled_by_digest_alone(public_api: Api) -> None:
    build = public_api.seeded.published
    with public_api.context.database.write() as session:
        for row in session.scalars(select(Publication).join(Image).where(Image.build_id == build)):
            row.state = PublicationState.SUPERSEDED
        digest = session.scalars(select(Image.digest).where(Image.build_id == build)).one()
    text = public_api.anybody.get(f"/builds/{build}", headers=HTML).text
    assert f"docker pull hub.example.org/alba/hello@{digest}" in text
    assert "superseded" in text


def test_a_static_registrys_directory_is_not_told(public_api: Api) -> None:
    text = public_api.anybody.get(f"/builds/{public_api.seeded.published}", headers=HTML).text
    assert "/srv/registry" not in text


def test_a_log_is_shown_in_windows(public_api: Api) -> None:
    seeded = public_api.seeded
    with public_api.context.database.write() as session:
        start = len(logs_of(public_api, seeded.running_attempt))
        text = "".join(f"step {number}\n" for number in range(1, 2001)).encode()
        logs.append(session, seeded.running_attempt, 1, start, text)
    public_api.context.signals.notify(Topic.WATCHERS)
    path = f"/jobs/{seeded.running_job}"
    tail = public_api.anybody.get(path, headers=HTML).text
    assert ">step 2000</div>" in tail
    assert ">step 1</div>" not in tail
    assert f'data-offset="{start + len(text)}"' in tail
    first = public_api.anybody.get(f"{path}?attempt=2&from=1", headers=HTML).text
    assert 'id="L1"' in first
    assert ">step 2000</div>" not in first
    assert "data-log" not in first
    assert "from=501#log-title" in first


def logs_of(api: Api, attempt: str) -> bytes:
    return b"".join(logs.stream(api.context.database, api.context.store, attempt))


def test_an_earlier_attempt_has_a_page_of_its_own(public_api: Api) -> None:
    path = f"/jobs/{public_api.seeded.running_job}?attempt="
    lost = public_api.anybody.get(f"{path}1", headers=HTML).text
    assert "stopped renewing its lease" in lost
    assert "data-log" not in lost
    assert public_api.anybody.get(f"{path}9", headers=HTML).status_code == 404


def test_a_log_that_was_taken_away_leaves_a_page(public_api: Api) -> None:
    with public_api.context.database.write() as session:
        job = session.get_one(Job, public_api.seeded.failed_job)
        build = job.build_id
        for piece in session.scalars(select(LogPiece).join(Attempt).where(Attempt.job_id == job.id)):
            session.delete(piece)
    page = public_api.anybody.get(f"/jobs/{public_api.seeded.failed_job}", headers=HTML)
    assert page.status_code == 200
    assert "retention" in page.text
    assert public_api.anybody.get(f"/builds/{build}", headers=HTML).status_code == 200


ERRORS = [
    ("/builds/999999", 404),
    ("/builds/0", 400),
    ("/builds/x", 400),
    ("/jobs/999999", 404),
    ("/jobs/99999999999999999999", 400),
    ("/repos/home/alba/nothing", 404),
    ("/nothing/here", 404),
    ("/static/../../pyproject.toml", 404),
    ("/static/%2e%2e%2fbase.html", 404),
]


def test_an_error_is_a_page_for_a_person_and_a_problem_for_a_program(public_api: Api) -> None:
    for path, status in ERRORS:
        page = public_api.anybody.get(path, headers=HTML)
        assert page.status_code == status, path
        assert page.headers["content-type"].startswith("text/html")
        assert "<h1>" in page.text
        problem = public_api.anybody.get(path, headers={"Accept": "application/json"})
        assert problem.status_code == status
        assert problem.headers["content-type"] == "application/problem+json"


def test_static_files_are_kept_by_browsers_under_their_digest(public_api: Api) -> None:
    page = public_api.anybody.get("/", headers=HTML).text
    url = page.partition('rel="stylesheet" href="')[2].partition('"')[0]
    answer = public_api.anybody.get(url)
    assert answer.headers["content-type"].startswith("text/css")
    assert "immutable" in answer.headers["cache-control"]
    again = public_api.anybody.get(url, headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    assert "immutable" not in public_api.anybody.get("/static/albatros.css").headers["cache-control"]
    assert public_api.anybody.get("/favicon.ico").headers["content-type"] == "image/svg+xml"
    assert len(public_api.anybody.get("/static/live.js").content) < 5 << 10


def test_pages_name_a_flavor_and_a_script(public_api: Api) -> None:
    (made,) = seed_many(public_api, 1, owner="flavored", title="Built twice")
    with public_api.context.database.write() as session:
        build = session.get_one(Build, made)
        build.flavor = "nightly"
        script = Job(
            build_id=made,
            kind=JobKind.SCRIPT,
            key=".albatros",
            system="",
            name=".albatros",
            attributes=[],
            state=JobState.SUCCEEDED,
            created_at=now(),
        )
        session.add(script)
        session.flush()
        job = script.id
    page = public_api.anybody.get(f"/builds/{made}", headers=HTML).text
    assert "<dt>Flavor</dt><dd>nightly</dd>" in page
    assert ".albatros" in page
    assert "runs the commit's own script" in unescape(page)
    assert '<span class="tag">nightly</span>' in public_api.anybody.get("/", headers=HTML).text
    page = public_api.anybody.get(f"/jobs/{job}", headers=HTML).text
    assert ".albatros" in page
    assert "The script ended with success." in page
    detail = public_api.anybody.get(f"/api/v1/builds/{made}").json()
    assert detail["flavor"] == "nightly"
    assert {"kind": "script", "name": ".albatros"}.items() <= detail["jobs"][-1].items()


def test_a_list_tells_a_merge_result_from_its_head(public_api: Api) -> None:
    tag = '<span class="tag">merge result</span>'
    assert tag not in public_api.anybody.get("/repos/home/alba/hello", headers=HTML).text
    cluster = cluster_build(public_api.context.database)
    assert tag in public_api.anybody.get("/repos/home/alba/hello", headers=HTML).text
    page = public_api.anybody.get(f"/jobs/{cluster.running}", headers=HTML).text
    assert "Downloading Artifacts" in page
    assert "on node tern" in page
    assert "on nomad, tern" not in page


def test_a_build_of_a_builder_shows_its_job_and_that_nothing_is_evaluated(public_api: Api) -> None:
    with public_api.context.database.write() as session:
        repo = session.scalar(select(Repo).where(Repo.owner == "alba", Repo.name == "hello"))
        assert repo is not None
        new = NewBuild(MAIN, "b" * 40, 99, Trigger.PUSH, builder="house")
        build_id = create_build(session, repo.id, new)
    page = public_api.anybody.get(f"/builds/{build_id}", headers=HTML).text
    assert "left to house" in page
    assert "0 of 1 done" in page
    listed = public_api.anybody.get(f"/api/v1/builds/{build_id}").json()
    assert [(job["kind"], job["name"]) for job in listed["jobs"]] == [("builder", "house")]
