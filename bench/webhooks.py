"""Webhook to 202 while pushes arrive faster than a busy day's, in an open loop."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import TypedDict

from bench.report import ROOT, Figure, percentile
from bench.world import PlayedForge, Rows, load_program
from tests.support.line import make_line

RATE = 200
SECONDS = 10
SLOTS = 2
TEMPLATE = ROOT / "tests" / "fixtures" / "webhooks" / "gitea-1.26.0" / "push.json"


class _Outcome(TypedDict):
    answers: dict[str, int]
    latencies_ms: list[float]
    statuses_posted: int


def measure() -> Sequence[Figure]:
    """Push at a fixed rate to a whole server. Raises RuntimeError unless every push was taken and made a Build."""
    with make_line(None) as line:
        forge = PlayedForge(line)
        forge.configure()
        line.server.start()
        done = subprocess.run(
            [
                *(str(load_program()), "webhooks", "-url", forge.webhook, "-forge", f"127.0.0.1:{forge.port}"),
                *("-rate", str(RATE), "-seconds", str(SECONDS), "-slots", str(SLOTS)),
                *("-template", str(TEMPLATE), "-secret", str(line.paths.secret)),
            ],
            stdout=subprocess.PIPE,
            check=True,
        )
        outcome: _Outcome = json.loads(done.stdout)
        count = RATE * SECONDS
        builds = Rows(line).value("SELECT count(*) FROM builds JOIN deliveries ON deliveries.id = builds.delivery_id")
        if outcome["answers"] != {"202": count} or builds != count + SLOTS:
            raise RuntimeError(f"answers {outcome['answers']}, {builds} builds for {count + SLOTS} pushes")
    latencies = outcome["latencies_ms"]
    posted = outcome["statuses_posted"]
    note = f"{RATE} a second for {SECONDS} s, {count} of {count} answered 202; {posted} statuses posted meanwhile"
    samples = tuple(latencies)
    return [
        Figure("200 a second: webhook to 202, p50", percentile(latencies, 0.5), "ms", samples=samples, note=note),
        Figure("200 a second: webhook to 202, p99", percentile(latencies, 0.99), "ms", samples=samples),
    ]
