"""`albatros gc`: take away now what the server's collector would take away within the hour."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `gc` to the command line."""
    parser = subparsers.add_parser(
        "gc",
        help="take away old builds, logs and blobs",
        description="Take away what [retention] lets go, and blobs that nothing needs. A running server does this "
        "by itself; the command may run beside it.",
    )
    parser.add_argument("--config", type=Path, required=True, help="the server's albatros.toml")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be taken away")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Collect once, and print what was taken away on stdout, a kind a line."""
    from albatros import settings
    from albatros.bootstrap import open_store
    from albatros.db import migrate
    from albatros.db.session import connect
    from albatros.flows.collect import collect

    loaded = settings.load(args.config)
    migrate.prepare(loaded.database_url)
    database = connect(loaded.database_url)
    try:
        report = collect(database, open_store(loaded), loaded.retention, dry_run=args.dry_run)
    finally:
        database.dispose()
    for kind, count in asdict(report).items():
        print(f"{kind}\t{count}")
    return 0
