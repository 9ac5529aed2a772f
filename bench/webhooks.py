"""Webhook to 202 while pushes arrive faster than a busy day's, in an open loop; and what SIGKILL leaves of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypedDict

from sqlalchemy import create_engine, text

from albatros.db import migrate
from bench.report import ROOT, Figure, percentile
from bench.world import PlayedForge, load_program, wait_for
from tests.services.postgres import empty_database, start_postgres
from tests.support.line import Line, make_line

RATES = (200, 1500)
AIM_P99_MS = 20
SECONDS = 10
KILL_RATE = 500
KILL_AFTER_BUILDS = 500
SLOTS = 2
TEMPLATE = ROOT / "tests" / "fixtures" / "webhooks" / "gitea-1.26.0" / "push.json"
_BUILT = "SELECT deliveries.delivery_id FROM deliveries JOIN builds ON builds.delivery_id = deliveries.id"


class _Outcome(TypedDict):
    answers: dict[str, int]
    accepted: list[str]
    latencies_ms: list[float]
    statuses_posted: int


def measure() -> Sequence[Figure]:
    """Push at fixed rates to a whole server on each database, and kill it. Raises RuntimeError when a Build is lost."""
    figures: list[Figure] = []
    with start_postgres(fsync=True) as cluster:
        for name in ("SQLite", "PostgreSQL"):
            for rate in RATES:
                with empty_database(cluster) as url:
                    figures += _steady(name, url if name == "PostgreSQL" else "", rate)
            with empty_database(cluster) as url:
                figures.append(_killed(name, url if name == "PostgreSQL" else ""))
    return figures


def _steady(name: str, url: str, rate: int) -> Sequence[Figure]:
    with _server(url) as (line, forge):
        with _pushing(line, forge, rate) as process:
            outcome = _outcome(process)
        _check_builds(line, url, outcome)
    latencies = outcome["latencies_ms"]
    count = rate * SECONDS
    others = {answer: number for answer, number in outcome["answers"].items() if answer != "202"}
    taken = f"{len(outcome['accepted'])} of {count} answered 202" + (f", {others}" if others else "")
    note = f"open loop for {SECONDS} s; {taken}; {outcome['statuses_posted']} statuses posted meanwhile"
    seconds = SECONDS + latencies[-1] / 1000
    at = f"{name}, {rate} a second"
    aim = AIM_P99_MS if rate == RATES[-1] else None
    # They are in order: a thousand of them show how all are spread.
    samples = tuple(latencies[:: max(1, len(latencies) // 1000)])
    return [
        Figure(f"{at}: taken a second until the last answer", len(outcome["accepted"]) / seconds, "/s", note=note),
        Figure(f"{at}: webhook to 202, p50", percentile(latencies, 0.5), "ms", samples=samples),
        Figure(f"{at}: webhook to 202, p99", percentile(latencies, 0.99), "ms", aim, samples=samples),
    ]


def _killed(name: str, url: str) -> Figure:
    """Kill a server in the middle, start it again, and look for the Build of every push that was answered 202."""
    with _server(url) as (line, forge):
        with _pushing(line, forge, KILL_RATE) as process:
            wait_for(lambda: len(_built(line, url)) > KILL_AFTER_BUILDS, "Builds to lose", pause=0.02)
            line.server.kill()
            outcome = _outcome(process)
        line.server.start()
        _check_builds(line, url, outcome)
    accepted = len(outcome["accepted"])
    if not 0 < accepted < KILL_RATE * SECONDS:
        raise RuntimeError(f"{accepted} pushes were accepted: the server was not killed in the middle")
    return Figure(f"{name}, SIGKILL: 202s without a Build", 0, "of them", 0, note=f"{accepted} were answered 202")


@contextmanager
def _server(url: str) -> Iterator[tuple[Line, PlayedForge]]:
    """A server on PostgreSQL at `url`, or on SQLite without one."""
    with make_line(None, {"database": {"url": url}} if url else None) as line:
        forge = PlayedForge(line)
        forge.configure()
        if url:
            migrate.upgrade(url)
        line.server.start()
        yield line, forge


@contextmanager
def _pushing(line: Line, forge: PlayedForge, rate: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        *(str(load_program()), "webhooks", "-url", forge.webhook, "-forge", f"127.0.0.1:{forge.port}"),
        *("-rate", str(rate), "-seconds", str(SECONDS), "-slots", str(SLOTS)),
        *("-template", str(TEMPLATE), "-secret", str(line.paths.secret)),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def _outcome(process: subprocess.Popen[bytes]) -> _Outcome:
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError("the load program failed; its last line says why")
    outcome: _Outcome = json.loads(output)
    return outcome


def _built(line: Line, url: str) -> Sequence[str]:
    """The deliveries that have a Build, one for each Build."""
    engine = create_engine(url or f"sqlite:///{line.paths.data / 'albatros.sqlite3'}")
    with engine.connect() as connection:
        built = connection.scalars(text(_BUILT)).all()
    engine.dispose()
    return built


def _check_builds(line: Line, url: str, outcome: _Outcome) -> None:
    built = _built(line, url)
    lost = set(outcome["accepted"]) - set(built)
    if lost or len(built) != len(set(built)):
        raise RuntimeError(
            f"{len(lost)} of {len(outcome['accepted'])} pushes answered 202 have no Build, or some have two"
        )
