"""What an operator types, at a line's server."""

import subprocess
import sys

from tests.support.line import Line
from tests.tools import ROOT


def make_operator(line: Line) -> None:
    """Make the token that `repo` commands are run with."""
    made = run(line, "token", "create", "operator", "--scope", "admin", "--config", str(line.paths.config))
    token = next(word for word in made.split() if word.startswith("alb_"))
    (line.paths.root / "operator.token").write_text(token)


def run(line: Line, *arguments: str, code: int = 0) -> str:
    """A command as an operator types it; what it printed."""
    token = line.paths.root / "operator.token"
    if arguments[0] == "repo":
        arguments = (*arguments, "--server", line.server.url, "--token-file", str(token))
    command = [sys.executable, "-m", "albatros", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def doctor(line: Line) -> str:
    """What doctor finds of the server, whether or not all is well."""
    done = subprocess.run(
        [sys.executable, "-m", "albatros", "doctor", "--config", str(line.paths.config)],
        cwd=ROOT, check=False, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout
