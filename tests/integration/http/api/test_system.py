"""Health, readiness, metrics and badges."""

import re
import xml.etree.ElementTree as ET

from albatros.http.prometheus import METRICS
from tests.support.api import Api

SAMPLE = re.compile(r'([a-z_]+)(?:\{[a-z]+="((?:[^"\\]|\\.)*)"\})? ([0-9.]+)')


def test_a_process_that_answers_is_healthy(api: Api) -> None:
    answer = api.anybody.get("/healthz").json()
    assert answer == {"status": "ok", "version": api.context.version}


def test_ready_is_who_can_write_both_its_database_and_its_store(api: Api) -> None:
    assert api.anybody.get("/readyz").json() == {"database": "ok", "store": "ok"}


def test_a_store_that_cannot_be_written_is_not_ready(api: Api) -> None:
    api.store.broken = True
    answer = api.anybody.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"database": "ok", "store": "unavailable"})


def test_metrics_count_what_is_there(api: Api) -> None:
    for _ in range(3):
        api.context.writer.count("webhooks_refused.home")
    api.context.writer.submit(lambda _session: None).result(60)
    answer = api.anybody.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    matches = [SAMPLE.fullmatch(line) for line in lines if not line.startswith("#")]
    assert all(matches)
    samples = {(match[1], match[2] or ""): float(match[3]) for match in matches if match}
    assert samples["albatros_builds", "running"] == 1
    assert samples["albatros_builds", "evaluating"] == 0
    assert samples["albatros_publications", "pending"] == 2
    assert samples["albatros_attempts_open", "claimed"] == 1
    assert samples["albatros_attempts_open", "submitted"] == 0
    assert samples["albatros_webhooks_refused_total", "home"] == 3
    assert samples["albatros_queue_age_seconds", ""] > 0
    assert samples["process_resident_memory_bytes", ""] > 10 << 20
    typed = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert typed == {metric.name for metric in METRICS}
    assert {name for name, _ in samples} <= typed


def test_a_badge_says_how_a_branch_stands(public_api: Api) -> None:
    for path, word in (
        ("home/alba/hello.svg", "succeeded"),
        ("home/alba/driftnote.svg?branch=tides", "failed"),
        ("home/alba/driftnote.svg?branch=none", "unknown"),
        ("home/alba/none.svg", "unknown"),
        ("home/alba/keys.svg", "unknown"),
    ):
        answer = public_api.anybody.get(f"/badges/{path}")
        assert answer.headers["content-type"] == "image/svg+xml"
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert ET.fromstring(answer.text).get("aria-label") == f"albatros: {word}", path


def test_a_badge_says_nothing_where_reading_needs_a_token(api: Api) -> None:
    assert "unknown" in api.anybody.get("/badges/home/alba/hello.svg").text
    assert "succeeded" in api.reader.get("/badges/home/alba/hello.svg").text
    assert "succeeded" in api.reader.get("/badges/home/alba/keys.svg").text
