"""Figures, the machine that they were measured on, the table for people and the JSON behind it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value; `aim` is what it should be at most, `samples` what it was made from."""

    name: str
    value: float
    unit: str
    aim: float | None = None
    samples: tuple[float, ...] = ()
    note: str = ""


def percentile(values: Sequence[float], part: float) -> float:
    """The value that `part` (0 to 1) of the others do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def table(figures: Sequence[Figure]) -> str:
    """A table in Markdown."""
    rows = []
    for figure in figures:
        aim = "" if figure.aim is None else f"≤ {_number(figure.aim)} {figure.unit}"
        measured = f"{_number(figure.value)} {figure.unit}"
        rows.append((figure.name, measured, aim, str(len(figure.samples) or 1), figure.note))
    head = ("figure", "measured", "aim", "n", "how")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [head, tuple("-" * width for width in widths), *rows]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def machine() -> dict[str, str]:
    """What a reader has to know of this machine, and of the versions that ran on it."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _processor(),
        "memory": f"{memory / 2**30:.1f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": _output("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "nix": _output("nix", "--version"),
        "go": _output("go", "version"),
        "skopeo": _output("skopeo", "--version"),
        "crane": _output("crane", "version"),
        "regctl": _output("regctl", "version", "--format", "{{.VCSTag}}"),
        "registry": _output("docker-registry", "--version"),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "load_at_start": load(),
    }


def load() -> str:
    """How busy the machine was in the last 1, 5 and 15 minutes."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


@dataclass(frozen=True, slots=True)
class Report:
    """What one run of the bench found."""

    command: str
    figures: tuple[Figure, ...]
    machine: dict[str, str]
    load_at_end: str

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def say(text: str) -> None:
    """Tell whoever waits what is being done."""
    print(text, file=sys.stderr, flush=True)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "not there"
    return done.stdout.strip()
