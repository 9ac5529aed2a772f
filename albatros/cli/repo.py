"""`albatros repo`: add, list, show."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from albatros.cli import remote
from albatros.cli.output import print_fields, print_json, print_table

if TYPE_CHECKING:
    from albatros.client import Repo

SHOWN = 100


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("repo", help="say which repos may build", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add = commands.add_parser("add", parents=[remote.options()], help="let a repo build")
    add.add_argument("repo", help="its address on its forge, or FORGE/OWNER/NAME")
    add.set_defaults(func=_add)
    listed = commands.add_parser("list", parents=[remote.options()], help="the repos that the server knows")
    listed.set_defaults(func=_list)
    show = commands.add_parser("show", parents=[remote.options()], help="one repo")
    show.add_argument("repo", help="[FORGE/]OWNER/NAME")
    show.set_defaults(func=_show)


def _add(args: argparse.Namespace) -> int:
    with remote.client_of(args) as client:
        repo = client.add_repo(args.repo)
    if args.json:
        print_json(repo)
    else:
        print(f"{_name(repo)} may build; its next push will")
    return 0


def _list(args: argparse.Namespace) -> int:
    with remote.client_of(args) as client:
        repos = client.repos(limit=SHOWN)
    if args.json:
        print_json(repos)
    else:
        print_table(("REPO", "VISIBLE", "MAY BUILD", "NEWEST BUILD"), [_row(repo) for repo in repos])
    return 0


def _row(repo: Repo) -> tuple[object, ...]:
    newest = repo["newest_build"]
    built = f"{newest['id']} {newest['state']}" if newest is not None else "none"
    return _name(repo), "private" if repo["private"] else "public", "yes" if repo["allowed"] else "no", built


def _show(args: argparse.Namespace) -> int:
    with remote.client_of(args) as client:
        repo = client.repo(args.repo)
    if args.json:
        print_json(repo)
        return 0
    name, visible, allowed, newest = _row(repo)
    print_fields(
        [
            ("repo", name),
            ("visible", visible),
            ("may build", allowed),
            ("default branch", repo["default_branch"]),
            ("newest build", newest),
            ("known since", repo["created_at"]),
        ]
    )
    return 0


def _name(repo: Repo) -> str:
    return f"{repo['forge']}/{repo['owner']}/{repo['name']}"
