"""`albatros repo`: add, remove, list, show."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from albatros.cli import remote
from albatros.cli.output import note, print_fields, print_json, print_table
from albatros.errors import ForbiddenError, UnauthorizedError

if TYPE_CHECKING:
    from albatros.client import Repo

SHOWN = 100
READY = "ready"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("repo", help="say which repos may build", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add = commands.add_parser("add", parents=[remote.options()], help="let a repo build, and make its webhook")
    add.add_argument("repo", help="its address on its forge, or FORGE/OWNER/NAME")
    add.set_defaults(func=_add)
    remove = commands.add_parser("remove", parents=[remote.options()], help="take its webhook away, and build no more")
    remove.add_argument("repo", help="[FORGE/]OWNER/NAME")
    remove.set_defaults(func=_remove)
    listed = commands.add_parser("list", parents=[remote.options()], help="the repos that the server knows")
    listed.set_defaults(func=_list)
    show = commands.add_parser("show", parents=[remote.options()], help="one repo, and how its webhook stands")
    show.add_argument("repo", help="[FORGE/]OWNER/NAME")
    show.set_defaults(func=_show)


def _add(args: argparse.Namespace) -> int:
    with remote.client_of(args) as client:
        repo = client.add_repo(args.repo)
    hook = repo["hook"]
    if args.json:
        print_json(repo)
    else:
        print(f"{_name(repo)} may build; its next push will")
        note(hook["text"])
    return 0 if hook["state"] == READY else 1


def _remove(args: argparse.Namespace) -> int:
    with remote.client_of(args) as client:
        hook = client.remove_repo(args.repo)
    if args.json:
        print_json(hook)
    else:
        note(hook["text"])
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
        try:
            hook = client.hook(_name(repo))
        except (ForbiddenError, UnauthorizedError):
            hook = None
    if args.json:
        print_json({**repo, "hook": hook})
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
            ("webhook", f"{hook['state']}: {hook['text']}" if hook is not None else "shown to its admins"),
        ]
    )
    return 0


def _name(repo: Repo) -> str:
    return f"{repo['forge']}/{repo['owner']}/{repo['name']}"
