"""Claims the Attempt that the environment names, does its Job, reports the result.

Exit status: 0 reported, 2 started wrongly, 3 the Attempt is lost or closed.
"""

import os
import sys
import time

from albatros.runner.failure import EXIT_LOST, JobFailedError, LeaseLostError
from albatros.runner.logstream import LogStream
from albatros.runner.order import Order, parse_order
from albatros.runner.protocol import Server

EXIT_USAGE = 2
LOG_BYTES_UNTIL_ORDERED = 1 << 20


def main() -> int:
    """Run one Attempt, or `alba` for its script; the process's exit status."""
    if sys.argv[1:2] == ["alba"]:
        from albatros.runner.alba import main as alba  # noqa: PLC0415 - as said below

        return alba(sys.argv[2:])
    try:
        token = _take_token(os.environ["ALBATROS_TOKEN_FILE"])
        server = Server(os.environ["ALBATROS_URL"], token, os.urandom(16).hex())
        directory = os.environ["ALBATROS_WORKDIR"]
    except (KeyError, OSError, ValueError) as error:
        print(f"albatros-runner: {error}; an executor of albatros starts this program", file=sys.stderr)
        return EXIT_USAGE
    try:
        return _attempt(server, directory)
    except LeaseLostError as error:
        print(f"albatros-runner: {error} Ending.", file=sys.stderr)
        return EXIT_LOST


def _take_token(path: str) -> str:
    with open(path, encoding="ascii") as file:
        token = file.read().strip()
    os.unlink(path)
    if not token:
        raise ValueError(f"{path} holds no token")
    return token


def _attempt(server: Server, directory: str) -> int:
    started = time.monotonic()
    document = server.claim(os.uname().nodename, os.getpid(), os.environ.get("NOMAD_ALLOC_ID"))
    spool = os.path.join(directory, "log")
    try:
        order = parse_order(document)
    except JobFailedError as error:
        log = LogStream(server, spool, LOG_BYTES_UNTIL_ORDERED, [], error.message)
        failed: dict[str, object] = {"outcome": "failed", "reason": str(error.reason), "message": error.message}
        return _report(server, log, {**failed, "nix_version": None, "evaluation": None, "outputs": []})
    server.lease_seconds = float(order.lease_seconds)
    first = f"claimed on {os.uname().nodename}; cloning {order.repo.full_name} at {order.repo.commit}"
    log = LogStream(server, spool, order.limits.log_bytes, [*order.secrets(), server.token], first)
    return _do(server, log, order, directory, started)


def _do(server: Server, log: LogStream, order: Order, directory: str, started: float) -> int:
    # Imported here and not above, so that a log has its first line soon.
    from albatros.runner.children import Children  # noqa: PLC0415
    from albatros.runner.job import run_job  # noqa: PLC0415
    from albatros.runner.lease import Lease  # noqa: PLC0415
    from albatros.runner.nix import choose_store  # noqa: PLC0415
    from albatros.runner.work import Work  # noqa: PLC0415

    children = Children(order.limits)
    Lease(server, children).start()
    home = os.environ.get("HOME") or directory
    store = choose_store(os.environ.get("ALBATROS_NIX_REMOTE", ""), home)
    work = Work(order, directory, log, children, server, store)
    result = run_job(work)
    children.kill_all()
    log.line(f"{result['outcome']} after {time.monotonic() - started:.1f} s")
    return _report(server, log, result)


def _report(server: Server, log: LogStream, result: dict[str, object]) -> int:
    pieces, size = log.close()
    server.result({**result, "log_pieces": pieces, "log_bytes": size})
    server.hang_up()
    return 0


if __name__ == "__main__":
    sys.exit(main())
