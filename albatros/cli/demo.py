"""`albatros demo`: the whole line on this machine, with no config.

An embedded server, a sample repo pushed to it with git, real Nix builds for every platform, one image in a static
registry, and that image pulled back over HTTP and checked.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from albatros.errors import AlbatrosError

if TYPE_CHECKING:
    from albatros.bootstrap import Server
    from albatros.cli.demo_setup import Place
    from albatros.cli.demo_watch import Outcome

DEFAULT_DIRECTORY = Path("albatros-demo")
BUILD_SECONDS = 900


class Steps:
    """Prints each step as it happens, with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        """One step."""
        print(f"[{time.monotonic() - self._start:6.2f} s] {text}", flush=True)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("demo", help="the whole line on this machine, with no config", description=__doc__)
    parser.add_argument(
        "--directory", type=Path, default=DEFAULT_DIRECTORY, help="where it works (default: %(default)s)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the server and its dashboard up until Ctrl-C")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo; 1 when the build does not end green or the pulled image is not what was built."""
    from albatros import log
    from albatros.bootstrap import Server
    from albatros.cli import demo_setup

    steps = Steps()
    demo_setup.check_tools()
    log.configure(level="error")
    place = demo_setup.prepare(args.directory.absolute())
    server = Server(demo_setup.settings_of(place))
    try:
        recovered = server.start()
        steps.say(f"server     listens on {server.local_url} ({recovered})")
        for warning in server.warnings():
            steps.say(f"warning    {warning}")
        outcome = _push(server, place, steps)
        _check(outcome, place, steps, server.local_url, keep=args.keep)
    finally:
        server.stop()
    return 0


def _push(server: Server, place: Place, steps: Steps) -> Outcome:
    from albatros.cli import demo_setup
    from albatros.cli.demo_watch import Watcher

    commit = demo_setup.prepare_repo(place, server.local_url)
    steps.say(f"push       {commit[:12]} from {place.work} to {place.bare}")
    demo_setup.push(place)
    watcher = Watcher(server.database, server.store, server.signals, steps.say)
    outcome = watcher.follow(commit, BUILD_SECONDS)
    if outcome.state != "succeeded":
        raise AlbatrosError(f"the build is {outcome.state}: {outcome.message}")
    return outcome


def _check(outcome: Outcome, place: Place, steps: Steps, url: str, *, keep: bool) -> None:
    from albatros.cli.demo_pull import pull_and_check
    from albatros.cli.stopping import StopSignal
    from albatros.registries.serve import serve_directory

    steps.say(f"publish    {outcome.bytes_sent} bytes of blobs sent, {outcome.bytes_skipped} were there already")
    with serve_directory(place.registry) as host:
        steps.say(f"pull       {host}/{outcome.image}:latest over plain HTTP")
        pull_and_check(host, outcome.image, "latest", outcome.digest, steps.say)
        steps.say("done       the commit is green, and the image is whole")
        print(f"reference  dir:{place.registry}/{outcome.image}:latest")
        print(f"digest     {outcome.digest}")
        if keep:
            print(f"dashboard  {url}/builds/{outcome.build_id}")
            print(f"registry   {host}/{outcome.image}:latest")
            print("Ctrl-C ends it.", flush=True)
            StopSignal().wait()
