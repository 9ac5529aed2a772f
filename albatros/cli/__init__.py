"""The command line. Importing a command's module costs little: what it runs with is imported when it runs.

Exit codes: 0 done, 1 it failed, 2 wrong use. Data goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from albatros.errors import AlbatrosError, UsageError

DONE, FAILED, WRONG_USE = 0, 1, 2
INTERRUPTED = 130
COMMANDS = (
    "serve",
    "demo",
    "image",
    "build",
    "job",
    "repo",
    "artifact",
    "registry",
    "secret",
    "token",
    "db",
    "gc",
    "doctor",
)


def parser(commands: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The command line of these commands, all of them by default."""
    top = argparse.ArgumentParser(
        prog="albatros",
        description="A push becomes one signed, minimal, multi-platform image on every registry you named.",
    )
    top.add_argument("--version", action="store_true", help="print the version and end")
    subparsers = top.add_subparsers(metavar="COMMAND")
    for command in COMMANDS if commands is None else commands:
        importlib.import_module(f"albatros.cli.{command}").add_parser(subparsers)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # The others' modules take longer to import than an unchanged push takes in all.
    named = given[:1] if given[:1] and given[0] in COMMANDS else None
    options = parser(named).parse_args(given)
    if options.version:
        return _print_version()
    if not hasattr(options, "func"):
        parser().print_help(sys.stderr)
        return WRONG_USE
    try:
        return int(options.func(options))
    except UsageError as error:
        print(f"albatros: {error.detail}", file=sys.stderr)
        return WRONG_USE
    except AlbatrosError as error:
        print(f"albatros: {error.detail}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain once more while it flushes.
        sys.stderr.close()
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _print_version() -> int:
    from albatros import __version__

    print(f"albatros {__version__}")
    return DONE
