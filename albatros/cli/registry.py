"""`albatros registry`: what a registry holds, and taking away from a static one what nothing needs."""

from __future__ import annotations

import argparse
import math
from datetime import timedelta

_DEST_HELP = "dir:PATH or s3://BUCKET/PREFIX?endpoint=URL&region=R&s3ForcePathStyle=true"
_DEFAULT_GRACE = 24.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `registry` with its commands."""
    registry = subparsers.add_parser("registry", help="look at registries, and keep static ones small")
    commands = registry.add_subparsers(metavar="COMMAND", required=True)
    listing = commands.add_parser(
        "ls",
        help="list the images of a registry, or the tags of one",
        description="Without NAME, list the images of a static registry. With NAME, list its tags and platforms.",
    )
    listing.add_argument("destination", metavar="DEST", help=f"{_DEST_HELP}, or docker://HOST/PREFIX with NAME")
    listing.add_argument("name", metavar="NAME", nargs="?", help="an image, relative to DEST")
    listing.add_argument("--json", action="store_true", help="print one JSON value")
    listing.set_defaults(func=_ls)
    gc = commands.add_parser(
        "gc",
        help="take away from a static registry what no tag needs",
        description="Take away what no tag and no running push needs, and what no push used within the grace. "
        "It may run beside pushes and beside itself; killed, it is run again.",
    )
    gc.add_argument("destination", metavar="DEST", help=_DEST_HELP)
    gc.add_argument("--dry-run", action="store_true", help="only say what would be taken away")
    gc.add_argument(
        "--grace",
        type=_hours,
        default=timedelta(hours=_DEFAULT_GRACE),
        metavar="HOURS",
        help="age, since its last use by a push, that an object must have; default: 24",
    )
    gc.add_argument("--json", action="store_true", help="print one JSON object")
    gc.set_defaults(func=_gc)


def _ls(options: argparse.Namespace) -> int:
    from albatros.cli import registry_commands

    return registry_commands.list_registry(options.destination, options.name, as_json=options.json)


def _gc(options: argparse.Namespace) -> int:
    from albatros.cli import registry_commands

    return registry_commands.collect_registry(
        options.destination, options.grace, dry_run=options.dry_run, as_json=options.json
    )


def _hours(text: str) -> timedelta:
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not 0 <= hours <= 24 * 3650:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of hours; write 24 or 0.5")
    return timedelta(hours=hours)
