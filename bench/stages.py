"""Runs stages of commands and says what they cost: a small process, since a child's peak begins with its parent's.

Started as a program with a file for their output and a JSON list of stages, each a list of commands that run at the
same time; prints {"wall": seconds, "cpu": processor seconds of all, "peak_mib": of the largest, "failed": a command}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    cpu = peak = 0.0
    failed = None
    start = time.perf_counter()
    with Path(sys.argv[1]).open("wb") as output:
        for stage in json.loads(sys.argv[2]):
            processes = [subprocess.Popen(command, stdout=output, stderr=output) for command in stage]
            for process in processes:
                # What a process cost is told to whoever reaps it, and subprocess would not pass it on.
                _, status, used = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
                failed = failed or (process.args if process.returncode else None)
                cpu += used.ru_utime + used.ru_stime
                peak = max(peak, used.ru_maxrss / 1024)
    wall = time.perf_counter() - start
    print(json.dumps({"wall": wall, "cpu": cpu, "peak_mib": peak, "failed": failed}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
