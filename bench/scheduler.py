"""The scheduler on a cluster of 1,000 nodes, as its queue grows to 100,000 Jobs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory

from sqlalchemy import func, select, text

from albatros.db import migrate
from albatros.db.session import Database, connect
from bench.cluster import NODES, PACKAGES, SYSTEMS, Worked
from bench.report import ROOT, Figure, say
from tests.services.postgres import empty_database, start_postgres
from tests.support.queues import add_queue

QUEUES = (1_000, 10_000, 100_000)
WORKED = 1_000
HOW = f"one thread; {NODES} busy nodes; {WORKED} Jobs dispatched, claimed, reported and planned"
ONCE_A_SECOND = "done once a second at most"


def measure() -> Sequence[Figure]:
    """Work off the same number of Jobs on queues of growing length, each on a new database."""
    figures: list[Figure] = []
    with start_postgres(fsync=True) as cluster:
        for queued in QUEUES:
            with TemporaryDirectory(prefix="albatros-bench-") as data:
                figures += _measure("SQLite", f"sqlite:///{data}/albatros.sqlite3", queued)
        for queued in QUEUES:
            with empty_database(cluster) as url:
                figures += _measure("PostgreSQL", url, queued)
    return figures


def _measure(name: str, url: str, queued: int) -> Sequence[Figure]:
    migrate.upgrade(url)
    database = connect(url)
    empty = _size(database)
    add_queue(database, queued + NODES, SYSTEMS, PACKAGES)
    before = _size(database)
    say(f"{name}, {queued + NODES} queued: {before / 2**20:.0f} MiB …")
    worked = _work(url)
    after = _size(database)
    database.dispose()
    at = f"{name}, {queued:,} queued"
    rounds = tuple(1000 * one for one in worked.rounds)
    return [
        Figure(f"{at}: Jobs a second, from queued to done", worked.jobs / worked.seconds, "/s", note=HOW),
        Figure(f"{at}: processor time of the server for each", 1000 * worked.processor / worked.jobs, "ms"),
        Figure(
            f"{at}: a round of the scheduler, p50",
            median(rounds),
            "ms",
            samples=rounds,
            note=f"{worked.started / len(rounds):.0f} Jobs each",
        ),
        Figure(f"{at}: a claim, mean", 1000 * fmean(worked.claims), "ms"),
        Figure(f"{at}: a result, mean", 1000 * fmean(worked.results), "ms"),
        Figure(f"{at}: whether there is room for a push, counted", 1000 * max(worked.room), "ms", note=ONCE_A_SECOND),
        Figure(f"{at}: the figures of /metrics", 1000 * median(worked.metrics), "ms"),
        Figure(f"{at}: resident", worked.resident_mib, "MiB"),
        Figure(f"{at}: database for each queued Job", (before - empty) / (queued + NODES), "B"),
        Figure(f"{at}: database for each Job run", (after - before) / (worked.jobs + NODES), "B"),
    ]


def _work(url: str) -> Worked:
    command = [sys.executable, "-m", "bench.cluster", url, str(WORKED)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return Worked(**json.loads(done.stdout))


def _size(database: Database) -> int:
    """Bytes on disk, once what was written is where it stays."""
    if database.is_sqlite:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
        path = database.engine.url.database
        assert path is not None
        return Path(path).stat().st_size
    with database.read() as session:
        return session.scalar(select(func.pg_database_size(func.current_database()))) or 0
