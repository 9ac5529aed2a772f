"""Webhook to the first line of the evaluation's log, on a server that does nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import cast

from bench.report import Figure
from bench.world import Rows, send, sign, wait_for
from tests.support.bare_repo import BareRepo
from tests.support.line import OWNER, Line, make_line
from tests.support.runner import git

PUSHES = 25
AIM_MS = 130
IDLE_SECONDS = 0.4
_ATTEMPT = "FROM attempts JOIN jobs ON jobs.id = attempts.job_id WHERE jobs.build_id = ?"
_MARKS = {
    "attempt committed": f"SELECT count(*) {_ATTEMPT}",
    "runner's claim": f"SELECT count(*) {_ATTEMPT} AND attempts.nonce IS NOT NULL",
    "first line of log": f"SELECT max(attempts.log_bytes) {_ATTEMPT}",
}


@dataclass(frozen=True, slots=True)
class _Push:
    """One push: milliseconds from the webhook's sending to each mark."""

    marks: dict[str, float]


def measure() -> Sequence[Figure]:
    """Push again and again, and watch the committed rows from outside."""
    with make_line(None) as line:
        line.server.start()
        repo = line.repo("idle")
        rows = Rows(line)
        pushes = [_push(line, repo, rows, number) for number in range(PUSHES + 1)][1:]
    figures = []
    for mark in ("202", *_MARKS):
        samples = tuple(push.marks[mark] for push in pushes)
        aim = AIM_MS if mark == "first line of log" else None
        note = "idle server, real runner, seen in the database" if aim else ""
        figures.append(Figure(f"idle server: webhook to {mark}, p50", median(samples), "ms", aim, samples, note))
    return figures


def _push(line: Line, repo: BareRepo, rows: Rows, number: int) -> _Push:
    """One commit without a flake: its evaluation claims, logs, clones, and fails before it needs Nix."""
    before = git(repo.work, "rev-parse", "HEAD") if number else "0" * 40
    after = repo.commit({"README.md": f"push {number}\n"})
    # A fetch runs no hook: the webhook is sent here, with a watch in the hand.
    git(repo.bare, "fetch", "--quiet", str(repo.work), "+HEAD:refs/heads/main")
    body = json.dumps({"repo": f"{OWNER}/idle", "refs": [{"ref": "refs/heads/main", "before": before, "after": after}]})
    time.sleep(IDLE_SECONDS)
    signed = {
        "X-Albatros-Event": "push",
        "X-Albatros-Delivery": after,
        "X-Albatros-Signature": f"sha256={sign(line, body.encode())}",
    }
    start = time.perf_counter()
    answer = send(f"{line.server.url}/webhooks/home", body.encode(), signed)
    marks = {"202": _since(start)}
    build = cast("list[int]", answer["builds"])[0]
    for mark, query in _MARKS.items():
        wait_for(partial(rows.value, query, build), f"{mark} of push {number}")
        marks[mark] = _since(start)
    ended = "SELECT ended_at IS NOT NULL FROM builds WHERE id = ?"
    wait_for(partial(rows.value, ended, build), f"the end of push {number}", pause=0.02)
    return _Push(marks)


def _since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 2)
