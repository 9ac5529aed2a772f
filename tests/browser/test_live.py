"""What moves while it is watched, and the same pages where scripts do not run."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from selenium.webdriver import Chrome

from albatros.db import events, logs
from albatros.db.models import Attempt, Job
from albatros.db.session import now
from albatros.db.signals import Topic
from albatros.domain.states import AttemptState, JobState
from tests.support.api import Api
from tests.support.pages import console, log_lines, shows, text_of, texts_of, until
from tests.support.seed import another_running_job
from tests.tools import needs

pytestmark = needs("chromium")
Opened = Callable[[str], Chrome]


@dataclass
class Runner:
    """Writes the log of one running job as its runner would."""

    site: Api
    job_id: int
    attempt_id: str
    pieces: int

    def say(self, text: str) -> None:
        with self.site.context.database.write() as session:
            attempt = session.get_one(Attempt, self.attempt_id)
            logs.append(session, self.attempt_id, self.pieces, attempt.log_bytes, text.encode())
        self.pieces += 1
        self.site.context.signals.notify(Topic.WATCHERS)

    def succeed(self) -> None:
        with self.site.context.database.write() as session:
            attempt, job = session.get_one(Attempt, self.attempt_id), session.get_one(Job, self.job_id)
            attempt.state, attempt.ended_at = AttemptState.SUCCEEDED, now()
            job.state, job.ended_at = JobState.SUCCEEDED, now()
            events.emit(session, job.build, "job.succeeded", job=job.id, name=job.name)
        self.site.context.signals.notify(Topic.WATCHERS)


@pytest.fixture
def runner(site: Api) -> Runner:
    job_id, attempt_id = another_running_job(site.context.database)
    return Runner(site, job_id, attempt_id, pieces=1)


def test_a_log_grows_while_it_is_watched(runner: Runner, open_page: Opened) -> None:
    browser = open_page(f"/jobs/{runner.job_id}")
    before = log_lines(browser)
    first, second = len(before) + 1, len(before) + 2
    runner.say("linking hello\nhalf a li")
    until(browser, log_lines, [*before, f"{first}linking hello"].__eq__)
    runner.say("ne\n\x1b[32mgreen\x1b[0m <b>bold</b>\n")
    grown = [*before, f"{first}linking hello", f"{second}half a line", f"{second + 1}green <b>bold</b>"]
    until(browser, log_lines, grown.__eq__)
    assert texts_of(browser, f"#L{second + 1} b") == []


def test_the_page_says_when_the_job_has_ended(runner: Runner, open_page: Opened) -> None:
    browser = open_page(f"/jobs/{runner.job_id}")
    shows(browser, ".reason .state", "running")
    runner.say("the last words")
    runner.succeed()
    shows(browser, "#end", "End of the log.")
    until(browser, log_lines, lambda lines: lines[-1].endswith("the last words"))
    shows(browser, ".reason .state", "succeeded")
    assert console(browser) == []


def test_a_line_that_was_not_whole_is_not_shown_twice(runner: Runner, open_page: Opened) -> None:
    runner.say("first half, ")
    browser = open_page(f"/jobs/{runner.job_id}")
    runner.say("second half\n")
    lines = until(browser, log_lines, lambda lines: lines[-1].endswith("first half, second half"))
    assert sum("first half" in line for line in lines) == 1


def test_the_page_of_a_build_follows_its_jobs(runner: Runner, open_page: Opened, site: Api) -> None:
    with site.context.database.read() as session:
        build_id = session.get_one(Job, runner.job_id).build_id
    browser = open_page(f"/builds/{build_id}")
    state = f".jobs li:has(a[href='/jobs/{runner.job_id}']) .state"
    shows(browser, state, "running")
    runner.succeed()
    shows(browser, state, "succeeded")


def test_a_link_to_a_line_far_up_finds_it(runner: Runner, open_page: Opened) -> None:
    runner.say("".join(f"step {number}\n" for number in range(3000)))
    browser = open_page(f"/jobs/{runner.job_id}#L100")
    until(browser, lambda page: texts_of(page, "#L100"), bool)
    assert "from=80" in browser.current_url


@pytest.fixture
def plain(without_javascript: Chrome) -> Chrome:
    without_javascript.get("data:text/html,<noscript>off</noscript>")
    assert text_of(without_javascript, "body") == "off"
    return without_javascript


def test_everything_is_there_without_javascript(site: Api, plain: Chrome) -> None:
    plain.get(f"{site.url}/jobs/{site.seeded.failed_job}")
    assert any("store/tides.go:41:19" in line for line in log_lines(plain))
    plain.get(f"{site.url}/jobs/{site.seeded.running_job}")
    assert log_lines(plain)[-1].endswith("compiling greet/plural.go")
    assert 'http-equiv="refresh" content="10"' in plain.page_source
    plain.get(f"{site.url}/builds/{site.seeded.published}")
    assert "Say hello on four platforms" in text_of(plain, "h1")
    plain.get(f"{site.url}/?state=failed")
    assert len(texts_of(plain, ".builds li")) == 2
