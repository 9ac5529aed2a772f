"""A pytest plugin that ends each run with what was skipped and why, and can write the same as JSON.

The JSON is a list of `{"reason", "tests": [node id…], "debian"}`; `scripts/check_skips.py` judges it in CI.
"""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from tests.tools import comes_with_debian


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--skips-to", metavar="FILE", type=Path, help="write what was skipped, and why, as JSON")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _by_reason(reports: list[pytest.TestReport | pytest.CollectReport]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = defaultdict(list)
    for report in reports:
        grouped[_reason(report)].append(report.nodeid)
    return {reason: sorted(tests) for reason, tests in sorted(grouped.items())}


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    skipped = _by_reason(terminalreporter.getreports("skipped"))
    if target := config.getoption("--skips-to"):
        rows = [{"reason": r, "tests": tests, "debian": comes_with_debian(r)} for r, tests in skipped.items()]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(rows, indent=1) + "\n")
    terminalreporter.section("skipped, and why")
    if not skipped:
        terminalreporter.line("nothing")
    for reason, tests in skipped.items():
        terminalreporter.line(f"{len(tests):4} {reason}")
        for file in sorted({test.partition("::")[0] for test in tests}):
            terminalreporter.line(f"       {file}")
