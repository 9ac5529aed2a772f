"""`albatros job`: show, log."""

from __future__ import annotations

import argparse

from albatros.cli import remote
from albatros.cli.output import print_fields, print_json, print_table
from albatros.domain.states import JobState
from albatros.errors import UsageError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("job", help="look at one job of a build", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    show = commands.add_parser("show", parents=[remote.options()], help="one job with its tries")
    show.add_argument("job", type=int, help="the job's id")
    show.set_defaults(func=_show)
    log = commands.add_parser("log", parents=[remote.options()], help="its log")
    log.add_argument("job", type=int, help="the job's id")
    log.add_argument("--attempt", type=int, help="of this try (default: the newest)")
    log.add_argument("-f", "--follow", action="store_true", help="until the job ends; exit code 1 when it failed")
    log.set_defaults(func=_log)


def _show(args: argparse.Namespace) -> int:
    with remote.client_of(args) as client:
        job = client.job(args.job)
    if args.json:
        print_json(job)
        return 0
    print_fields(
        [
            ("job", job["id"]),
            ("build", job["build_id"]),
            ("name", job["name"]),
            ("attributes", ", ".join(job["attributes"])),
            ("derivation", job["drv_path"]),
            ("system", job["system"]),
            ("state", job["state"]),
            ("reason", job["reason"]),
            ("message", job["message"]),
            ("needs", ", ".join(map(str, job["needs"]))),
            ("started", job["started_at"]),
            ("ended", job["ended_at"]),
        ]
    )
    print()
    tries = [(one["number"], one["state"], one["host"], one["log_bytes"], one["message"]) for one in job["attempts"]]
    print_table(("TRY", "STATE", "HOST", "LOG BYTES", "MESSAGE"), tries)
    place = job["attempts"][-1]["placement"] if job["attempts"] else None
    if place is not None:
        print()
        print_fields(
            [
                ("placed as", place["job"]),
                ("allocation", place["allocation"]),
                ("node", place["node"]),
                ("waits", place["waits"]),
                ("there", place["state"]),
                ("page", place["url"]),
            ]
        )
    return 0


def _log(args: argparse.Namespace) -> int:
    from albatros.cli.following import follow_job, print_log

    if args.follow and args.attempt is not None:
        raise UsageError("--follow goes with the newest attempt; leave --attempt out")
    with remote.client_of(args) as client:
        if not args.follow:
            print_log(client, args.job, args.attempt)
            return 0
        follow_job(client, args.job)
        return 0 if client.job(args.job)["state"] == JobState.SUCCEEDED else 1
