"""`albatros secret`: set, list, rm over the API; rotate at the server's own database and key file.

A value comes from a file or standard input, never as an argument, which others on the machine could read.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from albatros.cli import remote
from albatros.cli.output import note, print_json, print_table
from albatros.domain.refs import BRANCH_PREFIX, TAG_PREFIX
from albatros.errors import UsageError

if TYPE_CHECKING:
    from albatros.client import Secret

SHOWN = 1000
MAX_READ = 1 << 20
PLACE = "whose it is: FORGE/OWNER/REPO, FORGE/OWNER (a subgroup: FORGE/GROUP/SUB/, with the slash), or server for all"
NAME = "the host that it is a token for, such as github.com, or for scripts a variable, such as DEPLOY_KEY"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("secret", help="keep tokens and other secrets that builds need", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    put = commands.add_parser("set", parents=[remote.options()], help="set a secret, whatever it was before")
    put.add_argument("place", help=PLACE)
    put.add_argument("name", help=NAME)
    put.add_argument("--file", type=Path, help="a file that holds the value (default: standard input)")
    put.add_argument(
        "--branch", action="append", default=[], metavar="GLOB", help="give it to builds of these branches"
    )
    put.add_argument("--tag", action="append", default=[], metavar="GLOB", help="give it to builds of these tags")
    put.set_defaults(func=_set)
    listed = commands.add_parser("list", parents=[remote.options()], help="the secrets, without their values")
    listed.add_argument("place", nargs="?", default="", help=f"{PLACE} (default: every place)")
    listed.set_defaults(func=_list)
    remove = commands.add_parser("rm", parents=[remote.options()], help="remove a secret")
    remove.add_argument("place", help=PLACE)
    remove.add_argument("name", help=NAME)
    remove.set_defaults(func=_remove)
    rotate = commands.add_parser(
        "rotate",
        help="encrypt every secret with a new key, on the server's machine",
        description="Make a new key and encrypt every secret with it, beside running servers. Killed in the middle, "
        "it goes on when it is run again. Servers on other machines need the changed key file.",
    )
    rotate.add_argument("--config", type=Path, required=True, help="the server's albatros.toml")
    rotate.add_argument("--json", action="store_true", help="print JSON")
    rotate.set_defaults(func=_rotate)


def _set(args: argparse.Namespace) -> int:
    refs = [BRANCH_PREFIX + glob for glob in args.branch] + [TAG_PREFIX + glob for glob in args.tag]
    with remote.client_of(args) as client:
        secret = client.set_secret(args.place, args.name, _value(args.file), refs)
    if args.json:
        print_json(secret)
    else:
        note(f"{secret['name']} is set for {secret['place']}; Jobs that start from now on are given it")
    return 0


def _value(path: Path | None) -> str:
    """The value, without the line break that ends a file. Raises UsageError."""
    try:
        if path is not None:
            text = path.read_text(encoding="utf-8")
        elif sys.stdin.isatty():
            from getpass import getpass

            text = getpass("value: ")
        else:
            text = sys.stdin.read(MAX_READ)
    except (OSError, UnicodeDecodeError) as error:
        kind = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UsageError(f"the value cannot be read from {path or 'standard input'}: {kind}") from None
    return text.removesuffix("\n").removesuffix("\r")


def _list(args: argparse.Namespace) -> int:
    with remote.client_of(args) as client:
        secrets = client.secrets(place=args.place, limit=SHOWN)
    if args.json:
        print_json(secrets)
    else:
        print_table(("PLACE", "NAME", "REFS", "SET"), [_row(secret) for secret in secrets])
    return 0


def _row(secret: Secret) -> tuple[object, ...]:
    return secret["place"], secret["name"], " ".join(secret["refs"]) or "all", secret["updated_at"]


def _remove(args: argparse.Namespace) -> int:
    with remote.client_of(args) as client:
        client.remove_secret(args.place, args.name)
    if args.json:
        print_json({"removed": args.name, "place": args.place})
    else:
        note(f"{args.name} of {args.place} is removed; Jobs that run have it until they end")
    return 0


def _rotate(args: argparse.Namespace) -> int:
    from albatros import settings
    from albatros.db import migrate
    from albatros.db.keyring import Keyring
    from albatros.db.session import connect
    from albatros.flows import secrets

    loaded = settings.load(args.config)
    migrate.prepare(loaded.database_url)
    database = connect(loaded.database_url)
    try:
        count = secrets.rotate(database, Keyring(loaded.secrets_key))
    finally:
        database.dispose()
    if args.json:
        print_json({"encrypted": count, "key_file": str(loaded.secrets_key)})
    else:
        note(f"{count} secrets are encrypted with a new key; keep a copy of {loaded.secrets_key}")
    return 0
