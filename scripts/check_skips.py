"""Ends with 1 when a test was skipped for want of a program that Debian has: CI must bring those itself."""

import json
import sys
from pathlib import Path


def main() -> int:
    rows = json.loads(Path(sys.argv[1]).read_text())
    unwanted = [row for row in rows if row["debian"]]
    for row in rows:
        print(f"skipped, {len(row['tests'])} tests: {row['reason']}")
    if not rows:
        print("skipped: nothing")
    if unwanted:
        print(f"CI may not skip these {sum(len(row['tests']) for row in unwanted)} tests: Debian has what they need:")
        for row in unwanted:
            print(f"  {row['reason']}", *row["tests"], sep="\n    ")
    return 1 if unwanted else 0


if __name__ == "__main__":
    sys.exit(main())
