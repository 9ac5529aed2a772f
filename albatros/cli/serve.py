"""`albatros serve`: web, API, scheduler and publisher in one process, or the roles that were asked for."""

from __future__ import annotations

import argparse
import gc
from pathlib import Path
from typing import TYPE_CHECKING

from albatros.errors import UsageError

if TYPE_CHECKING:
    from albatros.roles import Role

M_ARENA_MAX = -8
"""In glibc's malloc.h."""
ARENAS = 2
YOUNG_OBJECTS = 20_000
"""How many objects come between two looks for garbage: thousands of webhooks that wait are none, and live on."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("serve", help="run the server", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the server's albatros.toml")
    parser.add_argument(
        "--roles", default="web,scheduler,publisher", help="what this process does, separated by commas (default: all)"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM, then end in order; a second signal ends at once."""
    from albatros import log, settings
    from albatros.bootstrap import Server
    from albatros.cli.stopping import StopSignal

    loaded = settings.load(args.config)
    log.configure(level=loaded.server.log_level, json_lines=loaded.server.log_json)
    logger = log.get_logger("albatros")
    _share_arenas()
    server = Server(loaded, roles=_roles(args.roles), private=settings.private_files(args.config))
    stop = StopSignal()
    # What the imports made stays for ever: to look through it for garbage takes a busy server half of its time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    recovered = server.start()
    for warning in server.warnings():
        logger.warning(warning)
    logger.info("listening" if server.has_web else "at work", url=server.local_url, recovered=str(recovered))
    stop.wait()
    logger.info("stopping; press Ctrl-C again to end at once")
    server.stop()
    return 0


def _share_arenas() -> None:
    """Have all threads share a few of malloc's arenas: what one of them freed is of use to the others then.

    glibc gives threads up to eight arenas for each processor, and keeps what is free in them (mallopt(3)).
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, ARENAS)


def _roles(text: str) -> frozenset[Role]:
    from albatros.roles import Role

    names = {name.strip() for name in text.split(",") if name.strip()}
    unknown = names - set(Role)
    if unknown or not names:
        raise UsageError(f"--roles {text!r}: use some of {', '.join(Role)}")
    return frozenset(Role(name) for name in names)
