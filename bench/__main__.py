"""`python -m bench [NAME …]`: measure, print the table, and write the JSON behind it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench import demo, first_line, layer, memory, nomad, publish, scheduler, webhooks
from bench.report import ROOT, Figure, Report, load, machine, say, table

RESULTS = ROOT / "bench" / "results" / "latest.json"
MEASUREMENTS: Mapping[str, Callable[[], Sequence[Figure]]] = {
    "webhooks": webhooks.measure,
    "first-line": first_line.measure,
    "demo": demo.measure,
    "memory": memory.measure,
    "layer": layer.measure,
    "nomad": nomad.measure,
    "scheduler": scheduler.measure,
    "publish": publish.small,
    "publish-large": publish.large,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*MEASUREMENTS, []], help="what to measure (default: everything)")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go (default: %(default)s)")
    options = parser.parse_args()
    names: list[str] = options.names or list(MEASUREMENTS)
    here = machine()
    figures: list[Figure] = []
    for name in names:
        say(f"measuring {name} …")
        figures += MEASUREMENTS[name]()
    command = " ".join(["python -m bench", *options.names])
    report = Report(command, tuple(figures), here, load())
    report.write(options.json)
    print(f"{command}, on {here['cores']} cores ({here['processor']}), {here['memory']}, {here['date']}")
    print(f"load before {here['load_at_start']}, after {report.load_at_end}\n")
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
