"""`albatros artifact`: list, get."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from albatros.cli import remote
from albatros.cli.output import note, print_json, print_table, size
from albatros.errors import AlbatrosError, UsageError

if TYPE_CHECKING:
    from albatros.client import Artifact

SHOWN = 50


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("artifact", help="download what builds made", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    listed = commands.add_parser("list", parents=[remote.options()], help="the newest artifacts")
    listed.add_argument("--build", type=int, help="of this build only")
    listed.add_argument("--job", type=int, help="of this job only")
    listed.set_defaults(func=_list)
    get = commands.add_parser("get", parents=[remote.options()], help="download one, and check its digest")
    get.add_argument("artifact", type=int, help="the artifact's id")
    get.add_argument("-o", "--output", help="where to; `-` is stdout (default: its own name, which must be free)")
    get.set_defaults(func=_get)


def _list(args: argparse.Namespace) -> int:
    with remote.client_of(args) as client:
        artifacts = client.artifacts(build=args.build, job=args.job, limit=SHOWN)
    if args.json:
        print_json(artifacts)
    else:
        rows = [(one["id"], one["job_id"], one["file_name"], size(one["size"]), one["digest"]) for one in artifacts]
        print_table(("ID", "JOB", "FILE", "SIZE", "DIGEST"), rows)
    return 0


def _get(args: argparse.Namespace) -> int:
    with remote.client_of(args) as client:
        artifact = client.artifact(args.artifact)
        pieces = client.download(args.artifact)
        if args.output == "-":
            _copy(pieces, sys.stdout.buffer, artifact)
            return 0
        path = Path(args.output) if args.output else _own_name(artifact)
        _save(pieces, path, artifact)
    if args.json:
        print_json({**artifact, "saved": str(path)})
    else:
        note(f"{size(artifact['size'])}, {artifact['digest']}")
        print(path)
    return 0


def _own_name(artifact: Artifact) -> Path:
    """The name that the server gives it, in this directory: never a path, never over another file."""
    path = Path(artifact["file_name"].rpartition("/")[2].lstrip(".") or f"artifact-{artifact['id']}")
    if path.exists():
        raise UsageError(f"{path} is there already; say where to with --output")
    return path


def _save(pieces: Iterator[bytes], path: Path, artifact: Artifact) -> None:
    """Write beside the place and move it there once the digest is right."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _copy(pieces, file, artifact)
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod((0o777 if artifact["executable"] else 0o666) & ~mask)
        temporary.replace(path)
    except OSError as error:
        raise AlbatrosError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _copy(pieces: Iterator[bytes], file: BinaryIO, artifact: Artifact) -> None:
    hashed = hashlib.sha256()
    for piece in pieces:
        hashed.update(piece)
        file.write(piece)
    file.flush()
    found = f"sha256:{hashed.hexdigest()}"
    if found != artifact["digest"]:
        raise AlbatrosError(f"what came is {found}, not {artifact['digest']}; download it again")
