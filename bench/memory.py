"""Resident memory of the server: idle, and while a thousand builds go through it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from bench.report import Figure, say
from bench.world import SETTLE_SECONDS, Memory, PlayedForge, Rows, play_runners, wait_for
from tests.support.line import make_line

BUILDS = 1000
REPOS = 20
OPEN_AT_ONCE = 40
STEP = 100
IDLE_AIM_MIB = 90
ENDED = "SELECT count(*) FROM builds WHERE ended_at IS NOT NULL"


def measure() -> Sequence[Figure]:
    """Look at a new server, then drive builds through all of it with runners that only speak the protocol.

    Raises RuntimeError when a build did not succeed.
    """
    with make_line(None) as line:
        forge = PlayedForge(line)
        forge.configure()
        line.server.start()
        memory = Memory(line.server.pid)
        time.sleep(SETTLE_SECONDS)
        idle = memory.resident()
        play_runners(line)
        rows = Rows(line)
        start = time.perf_counter()
        with forge.answering():
            resident = _drive(forge, rows, memory)
        seconds = time.perf_counter() - start
        failed = rows.value("SELECT count(*) FROM builds WHERE state <> 'succeeded'")
        published = rows.value("SELECT count(*) FROM publications WHERE state IN ('published', 'superseded')")
        if failed or not published:
            raise RuntimeError(f"{failed} of {BUILDS} builds did not succeed:\n{line.server.log[-4000:]}")
        peak = memory.peak()
    say(f"MiB after each {STEP} builds: {' '.join(f'{value:.0f}' for value in resident)}")
    rate = f"{published} tags published, {BUILDS / seconds:.1f} builds a second"
    note = f"played forge and runners, all else real: {rate}"
    return [
        Figure("resident, idle after start", idle, "MiB", IDLE_AIM_MIB),
        Figure(f"resident after {STEP} builds", resident[0], "MiB", note=note),
        Figure(f"resident after {BUILDS} builds", resident[-1], "MiB", samples=tuple(resident), note="flat?"),
        Figure(f"peak of {BUILDS} builds", peak, "MiB"),
    ]


def _drive(forge: PlayedForge, rows: Rows, memory: Memory) -> list[float]:
    """MiB after each STEP builds."""
    resident: list[float] = []
    for number in range(BUILDS):
        wait_for(partial(_has_room, rows, number), "room for a push", pause=0.02)
        forge.push(f"repo-{number % REPOS}")
        if rows.value(ENDED) >= STEP * (len(resident) + 1):
            resident.append(memory.resident())
    wait_for(lambda: rows.value(ENDED) == BUILDS, "the last builds", pause=0.1)
    time.sleep(SETTLE_SECONDS)
    return [*resident, memory.resident()]


def _has_room(rows: Rows, pushed: int) -> bool:
    return rows.value(ENDED) > pushed - OPEN_AT_ONCE
