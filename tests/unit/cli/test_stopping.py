"""A signal ends a command's sleep, whichever thread the kernel hands it to; a second one ends the process."""

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, threading
from albatros.cli.stopping import StopSignal

stop = StopSignal()
if "early" in {words!r}:
    signal.raise_signal(signal.{name})
else:
    hit = lambda: signal.pthread_kill(threading.get_ident(), signal.{name})
    threading.Timer(0.1, hit).start()
stop.wait()
print("woken", flush=True)
if "twice" in {words!r}:
    signal.raise_signal(signal.{name})
    print("still here")
"""


def run(name: str, words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT.format(name=name, words=words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("when", ["early", "while it sleeps, in another thread"])
def test_the_first_signal_wakes(name: str, when: str) -> None:
    done = run(name, when)
    assert (done.returncode, done.stdout) == (0, "woken\n"), done.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_second_signal_acts_as_by_default(name: str) -> None:
    done = run(name, "twice")
    assert (done.returncode, done.stdout) == (-signal.Signals[name], "woken\n"), done.stderr
