"""The four-platform example from `git push` to the green status, with an empty Nix store and with a full one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

from albatros.assets import examples_dir
from albatros.cli.demo_setup import EXAMPLE
from bench.report import Figure
from bench.world import wait_for
from tests.support.bare_repo import BareRepo
from tests.support.line import DONE, Line, make_line

WARM_PUSHES = 3


def measure() -> Sequence[Figure]:
    """Push the example to a new server, then commits that change nothing that is built."""
    files = {
        str(path.relative_to(examples_dir() / EXAMPLE)): path.read_text(encoding="utf-8")
        for path in sorted((examples_dir() / EXAMPLE).rglob("*"))
        if path.is_file()
    }
    with make_line(None) as line:
        line.server.start()
        repo = line.repo("hello")
        cold = _push(line, repo, files)
        warm = tuple(_push(line, repo, {**files, "NOTES.md": f"push {number}\n"}) for number in range(WARM_PUSHES))
    return [
        Figure("demo from push to green, cold", cold, "s", note="four platforms, nothing in the Nix store"),
        Figure("demo from push to green, warm", median(warm), "s", samples=warm, note="nothing to rebuild or to send"),
    ]


def _push(line: Line, repo: BareRepo, files: dict[str, str]) -> float:
    """Seconds from the start of `git push` until the commit's note says success."""
    commit = repo.commit(files)
    start = time.perf_counter()
    repo.push()

    def ended() -> str:
        status = repo.status(commit)
        return status.state if status is not None and status.state in DONE else ""

    state = wait_for(ended, f"the end of {commit}", seconds=600, pause=0.02)
    seconds = time.perf_counter() - start
    if state != "success":
        raise RuntimeError(f"the demo's build is {state}:\n{line.server.log}")
    return round(seconds, 2)
