"""Resident memory of the server while a layer of 1 GiB goes through it to two registries."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.report import Figure
from bench.world import SETTLE_SECONDS, Memory, PlayedForge, Rows, play_runners, wait_for
from tests.services.registry import start_registry
from tests.support.line import make_line

BYTES = 1 << 30
AIM_MIB = 150


def measure() -> Sequence[Figure]:
    """One build whose program has a gibibyte that no compressor makes smaller. Raises RuntimeError unless published."""
    with start_registry() as registry, make_line(registry) as line:
        forge = PlayedForge(line)
        forge.configure()
        line.server.start()
        memory = Memory(line.server.pid)
        time.sleep(SETTLE_SECONDS)
        play_runners(line, "-size", str(BYTES))
        rows = Rows(line)
        memory.forget_peak()
        start = time.perf_counter()
        with forge.answering():
            forge.push("large")
            ended = "SELECT count(*) FROM builds WHERE ended_at IS NOT NULL"
            wait_for(lambda: rows.value(ended), "the build's end", seconds=600, pause=0.05)
        seconds = time.perf_counter() - start
        peak = memory.peak()
        published = rows.value("SELECT count(*) FROM publications WHERE state = 'published'")
        sent = rows.value("SELECT max(bytes_sent) FROM publications")
        if published < 2 or sent < BYTES:
            raise RuntimeError(f"{published} tags published, {sent} bytes sent:\n{line.server.log[-4000:]}")
    note = f"uploaded, packed, pushed to a distribution and a static registry in {seconds:.0f} s"
    return [Figure("peak while a 1 GiB layer is published", peak, "MiB", AIM_MIB, note=note)]
