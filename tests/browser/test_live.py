"""What moves while it is watched, and the same pages where scripts do not run."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from albatros.db import events, logs
from albatros.db.models import Attempt, Job
from albatros.db.session import now
from albatros.db.signals import Topic
from albatros.domain.states import AttemptState, JobState
from tests.support.api import Api
from tests.support.seed import another_running_job
from tests.tools import needs

pytestmark = needs("chromium")
Opened = Callable[[str], Chrome]
PATIENCE_SECONDS = 30


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


def log_lines(browser: Chrome) -> list[str]:
    rows = browser.find_elements(By.CSS_SELECTOR, ".log > div")
    return [row.get_attribute("textContent") or "" for row in rows]


def wait_for(browser: Chrome, happened: Callable[[Chrome], bool]) -> None:
    WebDriverWait(browser, PATIENCE_SECONDS, poll_frequency=0.05).until(happened)


def test_a_log_grows_while_it_is_watched(runner: Runner, open_page: Opened) -> None:
    browser = open_page(f"/jobs/{runner.job_id}")
    before = log_lines(browser)
    runner.say("linking hello\nhalf a li")
    wait_for(browser, lambda b: len(log_lines(b)) == len(before) + 1)
    assert log_lines(browser)[-1] == f"{len(before) + 1}linking hello"
    runner.say("ne\n\x1b[32mgreen\x1b[0m <b>bold</b>\n")
    wait_for(browser, lambda b: len(log_lines(b)) == len(before) + 3)
    assert log_lines(browser)[-2:] == [f"{len(before) + 2}half a line", f"{len(before) + 3}green <b>bold</b>"]
    assert browser.find_element(By.ID, f"L{len(before) + 3}").find_elements(By.TAG_NAME, "b") == []


def test_the_page_says_when_the_job_has_ended(runner: Runner, open_page: Opened) -> None:
    browser = open_page(f"/jobs/{runner.job_id}")
    assert browser.find_element(By.CSS_SELECTOR, ".reason .state").text == "running"
    runner.say("the last words")
    runner.succeed()
    wait_for(browser, lambda b: "End of the log" in b.find_element(By.ID, "end").text)
    assert log_lines(browser)[-1].endswith("the last words")
    wait_for(browser, lambda b: b.find_element(By.CSS_SELECTOR, ".reason .state").text == "succeeded")
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]  # selenium has no types for it


def test_a_line_that_was_not_whole_is_not_shown_twice(runner: Runner, open_page: Opened) -> None:
    runner.say("first half, ")
    browser = open_page(f"/jobs/{runner.job_id}")
    runner.say("second half\n")
    wait_for(browser, lambda b: log_lines(b)[-1].endswith("first half, second half"))
    assert sum("first half" in line for line in log_lines(browser)) == 1


def test_the_page_of_a_build_follows_its_jobs(runner: Runner, open_page: Opened, site: Api) -> None:
    with site.context.database.read() as session:
        build_id = session.get_one(Job, runner.job_id).build_id
    browser = open_page(f"/builds/{build_id}")

    def state(page: Chrome) -> str:
        row = page.find_element(By.XPATH, f"//li[.//a[@href='/jobs/{runner.job_id}']]")
        return row.find_element(By.CLASS_NAME, "state").text

    assert state(browser) == "running"
    runner.succeed()
    # The row is replaced while it is looked at, which selenium calls stale.
    waiting = WebDriverWait(browser, PATIENCE_SECONDS, 0.05, ignored_exceptions=[StaleElementReferenceException])
    waiting.until(lambda page: state(page) == "succeeded")


def test_a_link_to_a_line_far_up_finds_it(runner: Runner, open_page: Opened) -> None:
    runner.say("".join(f"step {number}\n" for number in range(3000)))
    browser = open_page(f"/jobs/{runner.job_id}#L100")
    wait_for(browser, lambda b: bool(b.find_elements(By.ID, "L100")))
    assert "from=80" in browser.current_url


@pytest.fixture
def plain(without_javascript: Chrome) -> Chrome:
    without_javascript.get("data:text/html,<noscript>off</noscript>")
    assert without_javascript.find_element(By.TAG_NAME, "body").text == "off"
    return without_javascript


def test_everything_is_there_without_javascript(site: Api, plain: Chrome) -> None:
    plain.get(f"{site.url}/jobs/{site.seeded.failed_job}")
    assert any("store/tides.go:41:19" in line for line in log_lines(plain))
    plain.get(f"{site.url}/jobs/{site.seeded.running_job}")
    assert log_lines(plain)[-1].endswith("compiling greet/plural.go")
    refresh = plain.find_element(By.CSS_SELECTOR, "meta[http-equiv=refresh]")
    assert refresh.get_attribute("content") == "10"
    plain.get(f"{site.url}/builds/{site.seeded.published}")
    assert "Say hello on four platforms" in plain.find_element(By.TAG_NAME, "h1").text
    plain.get(f"{site.url}/?state=failed")
    assert len(plain.find_elements(By.CSS_SELECTOR, ".builds li")) == 2
