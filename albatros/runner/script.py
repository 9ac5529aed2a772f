"""Runs the repo's own program, `.albatros` at its root, in a checkout of the commit.

It runs as the runner's user, so it can do whatever that one can: which repos may is the operator's decision, and the
server sends no such order for what nobody trusted has pushed. Its secrets are a file that only this user reads.
"""

import ctypes
import json
import os
import shlex
import sys
from collections import deque

from albatros.runner.children import Task
from albatros.runner.failure import JobFailedError, Reason, shorten
from albatros.runner.nix import Nix
from albatros.runner.order import ScriptOrder
from albatros.runner.source import CREDENTIAL, Clone
from albatros.runner.work import Work

SCRIPT = ".albatros"
MOST_PROCESSES = 4096
LAST_LINES, LAST_LINES_LIMIT = 20, 2000
PR_SET_DUMPABLE = 4
NIX_VARIABLES = ("NIX_REMOTE", "NIX_USER_CONF_FILES", "XDG_CACHE_HOME")


def run_script(work: Work, nix: Nix, clone: Clone, order: ScriptOrder) -> None:
    """Run it to its end. Raises JobFailedError (build_failed) when it does not exit with 0."""
    if not clone.git.is_program(SCRIPT):
        text = f"{SCRIPT} of {work.order.repo.full_name} has to be a plain file that may be executed (mode 100755)."
        raise JobFailedError(Reason.BUILD_FAILED, text)
    clone.git.must("checkout", "--quiet", "--force", "albatros")
    _put_away_credentials(work)
    last: deque[str] = deque(maxlen=LAST_LINES)

    def take(line: str) -> None:
        last.append(line)
        work.log.line(line)

    work.log.line(f"running {SCRIPT}")
    # By a shell, which says what is wrong with a program that cannot be started.
    argv = ["/bin/sh", "-c", f"exec ./{SCRIPT}"]
    environment = _environment(work, nix, order)
    task = Task(argv, environment, clone.git.path, take, all_lines=True, most_processes=MOST_PROCESSES)
    status = work.children.run(task).status
    if status != 0:
        ended = f"was ended by signal {-status}" if status < 0 else f"ended with exit status {status}"
        lines = shorten("\n".join(last), LAST_LINES_LIMIT)
        text = f"{SCRIPT} {ended}." + (f"\nThe last lines of its log:\n{lines}" if lines else "")
        raise JobFailedError(Reason.BUILD_FAILED, text)


def _put_away_credentials(work: Work) -> None:
    """The clone is there: nothing that follows needs the credential, on the disk or in this process's memory."""
    for name in os.listdir(work.directory):
        if name.startswith(CREDENTIAL):
            os.unlink(work.path(name))
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def _environment(work: Work, nix: Nix, order: ScriptOrder) -> dict[str, str]:
    own = {"REPO_URL": order.repo_url, "COMMIT": work.order.repo.commit, "FLAVOR": order.flavor}
    own |= {name: value for name, value in (("BRANCH", order.branch), ("TAG", order.tag)) if value}
    environment = work.environment()
    return {
        **environment,
        "PATH": f"{_own_programs(work)}:{environment['PATH']}",
        **{name: nix.environment[name] for name in NIX_VARIABLES},
        "HOME": work.folder("script-home"),
        "ALBATROS_JOB": _job_file(work),
        "ALBATROS_SECRETS": work.write("secrets", secrets_file(order.secrets)),
        **own,
    }


def _own_programs(work: Work) -> str:
    """A directory with `alba`, which is this very zipapp."""
    folder = work.folder("bin")
    runner = [sys.executable, "-I", "-S", os.path.abspath(sys.argv[0]), "alba"]
    work.write("bin/alba", f'#!/bin/sh\nexec {shlex.join(runner)} "$@"\n', 0o700)
    return folder


def _job_file(work: Work) -> str:
    """What `alba` speaks to the server with: this Attempt's own token."""
    server = work.server
    return work.write("job", json.dumps({"url": server.url, "token": server.token, "nonce": server.nonce}))


def secrets_file(secrets: dict[str, str]) -> str:
    """Secrets as lines that every POSIX shell reads with `.`: nothing in a value is a command or is expanded."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(secrets.items()))
