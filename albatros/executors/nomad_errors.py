"""What goes wrong with calls to Nomad: refused for good, refused for now, or not known."""

from __future__ import annotations

import re
from http import HTTPStatus

from albatros.domain.text import plain
from albatros.errors import ExecutorError, ExecutorUnavailableError

MAX_SAID = 500
EXISTS = re.compile(r"Enforcing job modify index 0: job (already )?exists")
_PASSING = re.compile(
    r"no cluster leader|leadership|not ready to serve|rpc error|\beof\b|connection|timed? ?out|deadline"
    r"|no path to region|too many|i/o|raft|shutting down|eventually consistent",
    re.IGNORECASE,
)
"""Nomad answers 500 to what it refuses for good and to what will pass: these words tell the latter."""


class NomadBusyError(ExecutorUnavailableError):
    """Nomad has too much to do (429): slow down."""


class NomadMissingError(ExecutorError):
    """What was asked about is not there (404)."""


class NomadForbiddenError(ExecutorError):
    """The ACL token may not do that (403)."""


def unreachable(what: str, error: object) -> ExecutorUnavailableError:
    """Nomad did not answer when it was asked to do something; an answer may have been lost after it took effect."""
    return ExecutorUnavailableError(f"Nomad could not be asked to {what}: {plain(str(error), MAX_SAID)}")


def refusal(what: str, status: int, body: bytes) -> ExecutorError:
    """What an answer of Nomad means that is no success."""
    said = plain(body[: MAX_SAID * 4].decode("utf-8", "replace").strip(), MAX_SAID)
    sentence = f"Nomad was asked to {what} and answered {status}: {said}"
    match status:
        case HTTPStatus.NOT_FOUND:
            return NomadMissingError(sentence)
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return NomadForbiddenError(f"{sentence}; give nomad.token the rights that docs/how-to/nomad.md lists")
        case HTTPStatus.TOO_MANY_REQUESTS:
            return NomadBusyError(sentence)
        case HTTPStatus.INTERNAL_SERVER_ERROR if not _PASSING.search(said) or EXISTS.search(said):
            return ExecutorError(sentence)
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return ExecutorUnavailableError(sentence)
        case _:
            return ExecutorError(sentence)
