"""`albatros db`: bring the database to the tables of this version, and let its servers have new keys or a new store."""

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
    upgrade.set_defaults(func=_upgrade)
    forget = commands.add_parser(
        "forget-keys",
        help="let servers start with new keys, when the old ones are lost",
        description="Forget the fingerprints of the keys that the servers on this database share, when the files are "
        "lost: the next server that starts says which are right. What the lost ones protected stays lost: secrets have "
        "to be set again, people log in again, what runs is lost and tried again.",
    )
    forget.add_argument("--config", type=Path, required=True, help="the server's albatros.toml")
    forget.set_defaults(func=_forget_keys)
    forget_store = commands.add_parser(
        "forget-store",
        help="let servers start with a new blob store, when the old one is lost",
        description="Forget which blob store the servers on this database share, when it is lost: the next server that "
        "starts says which is right. Logs, Artifacts and layers that only the lost one had stay lost.",
    )
    forget_store.add_argument("--config", type=Path, required=True, help="the server's albatros.toml")
    forget_store.set_defaults(func=_forget_store)


def _upgrade(args: argparse.Namespace) -> int:
    """Upgrade, and print the revision on stdout."""
    from albatros import settings
    from albatros.db import migrate

    print(migrate.upgrade(settings.load(args.config).database_url))
    return 0


def _forget_keys(args: argparse.Namespace) -> int:
    """Forget, and print how many keys were known on stdout."""
    from albatros import settings
    from albatros.db import shared_keys
    from albatros.db.session import connect

    print(shared_keys.forget(connect(settings.load(args.config).database_url)))
    return 0


def _forget_store(args: argparse.Namespace) -> int:
    """Forget, and print how many stores were known on stdout."""
    from albatros import settings
    from albatros.db import shared_keys
    from albatros.db.session import connect

    print(shared_keys.forget_store(connect(settings.load(args.config).database_url)))
    return 0
