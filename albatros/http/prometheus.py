"""Metrics as Prometheus reads them (text exposition format 0.0.4). Names and labels are part of the contract."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from albatros.db.metrics import Figures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_STATM = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True)
class Metric:
    """A name with what it tells; `label` is what its values are told apart by."""

    name: str
    kind: str
    help: str
    label: str = ""


BUILDS = Metric("albatros_builds", "gauge", "Builds by state.", "state")
JOBS = Metric("albatros_jobs", "gauge", "Jobs by state.", "state")
ATTEMPTS = Metric(
    "albatros_attempts_open", "gauge", "Attempts that are not closed; those submitted wait for a place.", "state"
)
PUBLICATIONS = Metric("albatros_publications", "gauge", "Publications by state.", "state")
ACCEPTED = Metric("albatros_webhooks_accepted_total", "counter", "Deliveries that were recorded.", "forge")
REFUSED = Metric("albatros_webhooks_refused_total", "counter", "Webhooks without a good signature.", "forge")
STATUSES = Metric("albatros_statuses_due", "gauge", "Commit statuses that their forge does not show yet.")
LAG = Metric("albatros_statuses_lag_seconds", "gauge", "How long the commit status waits that is due longest.")
QUEUE_AGE = Metric("albatros_queue_age_seconds", "gauge", "Age of the oldest Job that waits for a slot.")
STREAMS = Metric("albatros_live_streams", "gauge", "Live streams that are open.")
MEMORY = Metric("process_resident_memory_bytes", "gauge", "Resident memory of the server process, in bytes.")
CPU = Metric("process_cpu_seconds_total", "counter", "User and system time of the server process, in seconds.")
INFO = Metric("albatros_info", "gauge", "Always 1; the label tells the version.", "version")

METRICS = (
    BUILDS,
    JOBS,
    ATTEMPTS,
    PUBLICATIONS,
    ACCEPTED,
    REFUSED,
    STATUSES,
    LAG,
    QUEUE_AGE,
    STREAMS,
    MEMORY,
    CPU,
    INFO,
)
"""Every metric, for the reference and the test that holds it complete."""


def render(figures: Figures, *, streams: int, version: str) -> str:
    """The whole answer to a scrape."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    values: Mapping[Metric, Mapping[str, float]] = {
        BUILDS: figures.builds,
        JOBS: figures.jobs,
        ATTEMPTS: figures.attempts_open,
        PUBLICATIONS: figures.publications,
        ACCEPTED: _of_forges(figures.counters, "webhooks_accepted."),
        REFUSED: _of_forges(figures.counters, "webhooks_refused."),
        STATUSES: {"": figures.statuses_due},
        LAG: {"": round(figures.statuses_lag, 3)},
        QUEUE_AGE: {"": round(figures.queue_age, 3)},
        STREAMS: {"": streams},
        MEMORY: {"": resident_bytes()},
        CPU: {"": round(usage.ru_utime + usage.ru_stime, 3)},
        INFO: {version: 1},
    }
    return "".join(line + "\n" for metric in METRICS for line in _lines(metric, values[metric]))


def resident_bytes() -> int:
    """Memory of this process that is in RAM (proc(5), statm)."""
    return int(_STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def _of_forges(counters: Mapping[str, int], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in counters.items() if name.startswith(prefix)}


def _lines(metric: Metric, values: Mapping[str, float]) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.help}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for label, value in values.items():
        escaped = label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        labels = f'{{{metric.label}="{escaped}"}}' if metric.label else ""
        yield f"{metric.name}{labels} {value}"
