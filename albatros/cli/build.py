"""`albatros build`: trigger, list, show, log, cancel, rerun."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from albatros.cli import remote
from albatros.cli.output import note, print_fields, print_json, print_table
from albatros.domain.states import BuildState

if TYPE_CHECKING:
    from albatros.client import Build, BuildDetail

SHOWN = 20


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("build", help="start, follow and stop builds on a server", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    shared = [remote.options()]
    trigger = commands.add_parser("trigger", parents=shared, help="build a branch, a tag or a commit now")
    trigger.add_argument("repo", help="[FORGE/]OWNER/NAME")
    trigger.add_argument("--ref", required=True, help="a branch, a tag, a whole ref or a full commit id")
    trigger.add_argument("--flavor", default="", help="build it in this flavor (default: the plain one)")
    trigger.set_defaults(func=_trigger)
    listed = commands.add_parser("list", parents=shared, help="the newest builds")
    listed.add_argument("--repo", default="", help="of this repo only: [FORGE/]OWNER/NAME")
    listed.add_argument("--branch", default="", help="of this branch only")
    listed.add_argument("--status", default="", choices=["", *BuildState], metavar="STATE", help="in this state only")
    listed.add_argument("--limit", type=count, default=SHOWN, help=f"how many (default: {SHOWN})")
    listed.set_defaults(func=_list)
    for name, func, text in (
        ("show", _show, "one build with its jobs, images and publications"),
        ("cancel", _cancel, "stop an open build"),
        ("rerun", _rerun, "build the same commit once more"),
    ):
        command = commands.add_parser(name, parents=shared, help=text)
        command.add_argument("build", type=int, help="the build's id")
        command.set_defaults(func=func)
    log = commands.add_parser("log", parents=shared, help="the logs of a build's jobs, one after the other")
    log.add_argument("build", type=int, help="the build's id")
    log.add_argument("-f", "--follow", action="store_true", help="until the build ends; exit code 1 when it failed")
    log.set_defaults(func=_log)


def count(text: str) -> int:
    """A number from 1 on, for argparse. Raises ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _trigger(args: argparse.Namespace) -> int:
    with remote.client_of(args) as client:
        _tell(args, client.trigger(args.repo, args.ref, args.flavor))
    return 0


def _list(args: argparse.Namespace) -> int:
    with remote.client_of(args) as client:
        builds = client.builds(repo=args.repo, branch=args.branch, status=args.status, limit=args.limit)
    if args.json:
        print_json(builds)
    else:
        print_table(
            ("ID", "REPO", "#", "STATE", "REF", "COMMIT", "CREATED", "TITLE"), [_row(build) for build in builds]
        )
    return 0


def _row(build: Build) -> tuple[object, ...]:
    ref = build["ref"].removeprefix("refs/heads/").removeprefix("refs/")
    return (
        build["id"],
        _repo(build),
        build["number"],
        build["state"],
        ref,
        build["commit"][:12],
        build["created_at"][:19] + "Z",
        build["title"],
    )


def _show(args: argparse.Namespace) -> int:
    with remote.client_of(args) as client:
        build = client.build(args.build)
    if args.json:
        print_json(build)
    else:
        _print_build(build)
    return 0


def _cancel(args: argparse.Namespace) -> int:
    with remote.client_of(args) as client:
        _tell(args, client.cancel(args.build))
    return 0


def _rerun(args: argparse.Namespace) -> int:
    with remote.client_of(args) as client:
        _tell(args, client.rerun(args.build))
    return 0


def _log(args: argparse.Namespace) -> int:
    from albatros.cli.following import follow_build, print_logs

    with remote.client_of(args) as client:
        if not args.follow:
            print_logs(client, args.build)
            return 0
        build = follow_build(client, args.build)
    note(f"build {build['id']} {build['state']}" + (f": {build['message']}" if build["message"] else ""))
    return 0 if build["state"] in {BuildState.SUCCEEDED, BuildState.SKIPPED} else 1


def _tell(args: argparse.Namespace, build: Build) -> None:
    if args.json:
        print_json(build)
    else:
        print(f"build {build['id']} ({_repo(build)} #{build['number']}, {build['commit'][:12]}) is {build['state']}")


def _repo(build: Build) -> str:
    return f"{build['repo']['forge']}/{build['repo']['owner']}/{build['repo']['name']}"


def _merge_fields(build: Build) -> list[tuple[str, object]]:
    if build["merge_into"] is None:
        return []
    return [("merged into", f"{build['merge_into'].removeprefix('refs/heads/')} at {build['base_commit']}")]


def _print_build(build: BuildDetail) -> None:
    print_fields(
        [
            ("build", build["id"]),
            ("repo", f"{_repo(build)} #{build['number']}"),
            ("ref", build["ref"]),
            ("flavor", build["flavor"]),
            ("commit", build["commit"]),
            *_merge_fields(build),
            ("title", build["title"]),
            ("author", build["author"]),
            ("trigger", build["trigger"]),
            ("state", build["state"]),
            ("reason", build["reason"]),
            ("message", build["message"]),
            ("created", build["created_at"]),
            ("started", build["started_at"]),
            ("ended", build["ended_at"]),
        ]
    )
    if build["jobs"]:
        print()
        rows = [(job["id"], job["state"], job["system"], job["name"], job["message"]) for job in build["jobs"]]
        print_table(("JOB", "STATE", "SYSTEM", "NAME", "MESSAGE"), rows)
    for image in build["images"]:
        print(f"\nimage {image['name']} {image['digest']} ({', '.join(image['platforms'])})")
        published = [
            (one["registry"], f"{one['name']}:{one['tag']}", one["state"], one["message"])
            for one in image["publications"]
        ]
        print_table(("REGISTRY", "NAME", "STATE", "MESSAGE"), published)
    if build["artifacts"]:
        print()
        files = [(one["id"], one["file_name"], one["size"], one["digest"]) for one in build["artifacts"]]
        print_table(("ARTIFACT", "FILE", "BYTES", "DIGEST"), files)
