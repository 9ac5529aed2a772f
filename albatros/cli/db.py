"""`albatros db upgrade`: bring the database to the tables of this version."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `db` to the command line."""
    parser = subparsers.add_parser("db", help="look after the database")
    commands = parser.add_subparsers(dest="db_command", required=True)
    upgrade = commands.add_parser(
        "upgrade",
        help="bring the database to the tables of this version",
        description="Bring the database to the tables of this version, in one transaction. SQLite is upgraded by the "
        "server itself when it starts; on PostgreSQL, stop the servers first.",
    )
    upgrade.add_argument("--config", type=Path, required=True, help="the server's albatros.toml")
    upgrade.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Upgrade, and print the revision on stdout."""
    from albatros import settings
    from albatros.db import migrate

    print(migrate.upgrade(settings.load(args.config).database_url))
    return 0
