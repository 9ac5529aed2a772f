"""Running git on a bare repository that other people write to: no hooks, no user or system config, no prompt, bounded.

When the server is root, git runs as the repository's owner, so that nothing in it becomes root's and its pushers can
go on writing.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from albatros.domain.refs import one_line
from albatros.errors import ForgeError, ForgeUnavailableError
from albatros.users import Start, as_user

GIT_SECONDS = 20
MAX_OUTPUT = 32 << 20
IDENTITY = ("Albatros", "albatros@localhost")


def run_git(repo: Path, *arguments: str, data: bytes = b"") -> bytes:
    """What a git command printed. Raises ForgeError when it failed, ForgeUnavailableError when it took too long."""
    process = try_git(repo, *arguments, data=data)
    if process.returncode != 0:
        said = one_line(process.stderr.decode("utf-8", "replace"), 300)
        raise ForgeError(f"git {arguments[0]} in {repo} failed: {said or f'exit code {process.returncode}'}")
    return process.stdout


def try_git(repo: Path, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a git command that may fail. Raises ForgeError or ForgeUnavailableError."""
    return try_program(repo, ["git", f"--git-dir={repo}", *arguments], f"git {arguments[0]}", data=data)


def try_program(repo: Path, argv: Sequence[str], what: str, *, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a program at a repository, in the same way as git. Raises ForgeError or ForgeUnavailableError."""
    start = _as_owner(repo, argv) if os.geteuid() == 0 else Start(list(argv))
    # Spooled to a file: whoever pushes decides how long git's answers are.
    with tempfile.TemporaryFile() as stdout:
        try:
            process = subprocess.run(
                start.argv,
                input=data,
                stdout=stdout,
                stderr=subprocess.PIPE,
                cwd="/",
                env=_environment(repo),
                timeout=GIT_SECONDS,
                check=False,
                user=start.user,
                group=start.group,
                extra_groups=start.extra_groups,
            )
        except subprocess.TimeoutExpired:
            raise ForgeUnavailableError(f"{what} in {repo} took over {GIT_SECONDS} s") from None
        except OSError as error:
            raise ForgeError(f"{argv[0]} cannot be started: {error.strerror}; install it") from error
        stdout.seek(0)
        output = stdout.read(MAX_OUTPUT + 1)
    if len(output) > MAX_OUTPUT:
        raise ForgeError(f"{what} in {repo} printed over {MAX_OUTPUT} bytes")
    return subprocess.CompletedProcess(process.args, process.returncode, output, process.stderr)


def _as_owner(repo: Path, command: Sequence[str]) -> Start:
    owner = repo.stat()
    return as_user(owner.st_uid, owner.st_gid, command)


def _environment(repo: Path) -> dict[str, str]:
    config = {
        "safe.directory": str(repo),
        "core.hooksPath": "/dev/null",
        "core.fsmonitor": "false",
        "gc.auto": "0",
        "maintenance.auto": "false",
    }
    name, email = IDENTITY
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": email,
        "GIT_CONFIG_COUNT": str(len(config)),
    }
    for number, (key, value) in enumerate(config.items()):
        environment[f"GIT_CONFIG_KEY_{number}"] = key
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    return environment
