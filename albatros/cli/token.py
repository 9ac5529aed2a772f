"""`albatros token`: create, list, revoke; at the server's own database, since nobody has a token before the first."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from albatros.cli.output import note, print_json, print_table
from albatros.domain.access import Scope
from albatros.errors import BadInputError, UsageError

if TYPE_CHECKING:
    from albatros.db.models import Token
    from albatros.db.session import Database

MAX_DAYS = 3650


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "token", help="make and revoke API tokens, on the server's machine", description=__doc__
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    create = commands.add_parser("create", help="make a token, and print it this once")
    create.add_argument("name", help="what it is for, such as a person or a script")
    create.add_argument("--scope", choices=list(Scope), default=Scope.READ, help="what it may do (default: read)")
    create.add_argument("--expires", type=int, metavar="DAYS", help="when it ends (default: never)")
    create.add_argument(
        "--only",
        default="",
        metavar="FORGE[/OWNER[/NAME]]",
        help="the repos that it is for; a subgroup ends with a slash, FORGE/GROUP/SUB/ (default: all)",
    )
    create.set_defaults(func=_create)
    listed = commands.add_parser("list", help="every token, without its secret")
    listed.set_defaults(func=_list)
    revoke = commands.add_parser("revoke", help="end a token at once")
    revoke.add_argument("name", help="its name")
    revoke.add_argument("--owner", default="", metavar="FORGE/LOGIN", help="who made it (default: this command did)")
    revoke.set_defaults(func=_revoke)
    for command in (create, listed, revoke):
        command.add_argument("--config", type=Path, required=True, help="the server's albatros.toml")
        command.add_argument("--json", action="store_true", help="print JSON")


def _create(args: argparse.Namespace) -> int:
    from albatros.db import tokens
    from albatros.db.session import now
    from albatros.domain.access import new_token
    from albatros.domain.refs import read_bound

    if args.expires is not None and not 1 <= args.expires <= MAX_DAYS:
        raise UsageError(f"--expires takes 1 to {MAX_DAYS} days")
    expires_at = now() + timedelta(days=args.expires) if args.expires is not None else None
    token = new_token()
    try:
        name, bound = tokens.check_name(args.name), read_bound(args.only)
    except BadInputError as error:
        raise UsageError(error.detail) from None
    with _database(args.config) as database, database.write() as session:
        row = tokens.create(session, name, token, Scope(args.scope), expires_at, bound=bound)
    if args.json:
        print_json({**_described(row), "token": token})
    else:
        note("keep it now: it is not shown again")
        print(token)
    return 0


def _list(args: argparse.Namespace) -> int:
    from albatros.db import tokens

    with _database(args.config) as database, database.read() as session:
        rows = [_described(row) for row in tokens.list_all(session)]
    if args.json:
        print_json(rows)
    else:
        columns = ("NAME", "OWNER", "SCOPE", "ONLY", "CREATED", "EXPIRES", "LAST USED")
        print_table(columns, [tuple(row.values()) for row in rows])
    return 0


def _revoke(args: argparse.Namespace) -> int:
    from albatros.db import tokens

    with _database(args.config) as database, database.write() as session:
        tokens.revoke(session, args.name, args.owner)
    if args.json:
        print_json({"revoked": args.name})
    else:
        note(f"token {args.name} is revoked")
    return 0


@contextmanager
def _database(config: Path) -> Iterator[Database]:
    """The server's database, made when there is none yet."""
    from albatros import settings
    from albatros.db import migrate
    from albatros.db.session import connect

    url = settings.load(config).database_url
    migrate.prepare(url)
    database = connect(url)
    try:
        yield database
    finally:
        database.dispose()


def _described(row: Token) -> dict[str, str | None]:
    from albatros.db.tokens import owner_of

    times = {"created_at": row.created_at, "expires_at": row.expires_at, "last_used_at": row.last_used_at}
    shown = {key: at.isoformat(timespec="seconds") + "Z" if at is not None else None for key, at in times.items()}
    return {"name": row.name, "owner": owner_of(row), "scope": row.scope, "only": row.bound, **shown}
