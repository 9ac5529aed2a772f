"""What the commands share that talk to a server: its address, the token, JSON or tables."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from albatros.errors import UsageError

if TYPE_CHECKING:
    from albatros.client import Client

SERVER_VARIABLE = "ALBATROS_SERVER"
TOKEN_VARIABLE = "ALBATROS_TOKEN"  # noqa: S105 - the name of a variable
DEFAULT_SERVER = "http://127.0.0.1:8080"


def options() -> argparse.ArgumentParser:
    """The options of every command that talks to a server, as a parent parser."""
    parent = argparse.ArgumentParser(add_help=False)
    group = parent.add_argument_group("server")
    group.add_argument("--server", default="", help=f"its address (default: ${SERVER_VARIABLE}, or {DEFAULT_SERVER})")
    group.add_argument("--token-file", type=Path, help=f"a file that holds the token (default: ${TOKEN_VARIABLE})")
    parent.add_argument("--json", action="store_true", help="print JSON")
    return parent


def client_of(args: argparse.Namespace) -> Client:
    """A client for the server that the options name. Raises UsageError."""
    from albatros.client import Client

    return Client(args.server or os.environ.get(SERVER_VARIABLE) or DEFAULT_SERVER, _token(args.token_file))


def _token(path: Path | None) -> str:
    if path is None:
        token = os.environ.get(TOKEN_VARIABLE, "")
    else:
        try:
            token = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--token-file {path} cannot be read: {error}") from error
    token = token.strip()
    if not token.isascii() or any(not char.isprintable() for char in token):
        raise UsageError("the token has characters that no token of Albatros has; copy it again")
    return token
