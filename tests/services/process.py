"""Start a server, wait until it answers, and end it with all that it started."""

import itertools
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

START_SECONDS = 180
STOP_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs a server, None for the user who runs the tests: PostgreSQL and Gitea refuse to run as root."""

    uid: int | None = None
    gid: int | None = None

    @property
    def extra_groups(self) -> list[int] | None:
        return None if self.uid is None else []


def unprivileged(name: str = "nobody") -> Account:
    """The named user (`nobody` when there is none of that name) for root, else the user who runs the tests."""
    if os.getuid() != 0:
        return Account()
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get(name) or names["nobody"]
    return Account(entry.pw_uid, entry.pw_gid)


@contextmanager
def private_dir(name: str, owner: Account) -> Iterator[Path]:
    """An empty directory of one owner: pytest's own lie where no other user enters, and are too long for a socket."""
    path = Path(tempfile.mkdtemp(prefix=f"alba-{name}-"))
    hand_over(path, owner)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def hand_over(path: Path, owner: Account) -> None:
    """Make a file or directory the property of whoever runs the server."""
    if owner.uid is not None and owner.gid is not None:
        os.chown(path, owner.uid, owner.gid)


def lend(path: Path, home: Path, owner: Account) -> Path:
    """A program or directory where this account can read it: where it is, else a copy in `home`.

    What root built may lie in root's own home, which nobody else enters.
    """
    enterable = all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)
    if owner.uid is None or enterable:
        return path
    copy = home / path.name
    if path.is_dir():
        shutil.copytree(path, copy)
    else:
        shutil.copy(path, copy)
    return copy


@cache
def _own_ports() -> Iterator[int]:
    """Ports of this test process alone, since one that is handed out is bound later, and by turns bound and not."""
    number, count = (os.environ.get(f"PYTEST_XDIST_WORKER{suffix}", "") for suffix in ("", "_COUNT"))
    ports = range(20000 + int(number.removeprefix("gw") or 0), 32000, int(count or 1))
    return itertools.cycle(random.sample(ports, len(ports)))


def free_port() -> int:
    """A TCP port that nobody listens on, from below the range that the kernel gives to outgoing connections."""
    for port in _own_ports():
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError


def answers(url: str) -> Callable[[], bool]:
    """A readiness check: whether this URL answers with any status below 500."""

    def check() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=30):
                return True
        except urllib.error.HTTPError as error:
            with error:
                return error.code < 500
        except OSError:
            return False

    return check


def run(command: Sequence[str | Path], *, account: Account, env: Mapping[str, str] | None = None) -> str:
    """What a command that runs as this account prints; its errors are in the text of the exception."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=env,
        cwd="/",
        timeout=START_SECONDS,
        user=account.uid,
        group=account.gid,
        extra_groups=account.extra_groups,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def running(
    command: Sequence[str | Path],
    *,
    log: Path,
    ready: Callable[[], bool],
    account: Account,
    env: Mapping[str, str] | None = None,
    stop_with: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server while the block lasts, its output in `log`; RuntimeError with that log if it does not start."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            cwd="/",
            start_new_session=True,
            user=account.uid,
            group=account.gid,
            extra_groups=account.extra_groups,
        ) as process,
    ):
        try:
            _wait_until_ready(process, ready, log)
            yield process
        finally:
            _stop(process, stop_with)


def _wait_until_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}:\n{log.read_text(errors='replace')}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} does not answer:\n{log.read_text(errors='replace')}")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes], stop_with: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(stop_with)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
