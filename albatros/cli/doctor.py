"""`albatros doctor`: what is missing on this machine or wrong with a server's configuration, and the fix for each."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from albatros.cli.doctor_forges import Finding, Verdict
from albatros.cli.doctor_forges import check as check_reach
from albatros.cli.doctor_nomad import check as check_nomad
from albatros.errors import AlbatrosError, ConfigError

if TYPE_CHECKING:
    from albatros.forges.base import Forge
    from albatros.registries.base import Registry
    from albatros.settings import BuilderSettings, Settings

OLDEST_NIX = (2, 8)
OLDEST_PYTHON = (3, 11)
CALL_SECONDS = 20
PROBE_NAME = "albatros-doctor"
SUBJECT_WIDTH = 16


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("doctor", help="what is missing on this machine, and the fix", description=__doc__)
    parser.add_argument("--config", type=Path, help="also check the server of this albatros.toml")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print every finding; 1 when something is missing."""
    missing = 0
    for finding in _findings(args.config):
        print(f"{finding.verdict:8}{finding.subject:{SUBJECT_WIDTH}} {finding.text}", flush=True)
        missing += finding.verdict is Verdict.MISSING
    return 1 if missing else 0


def _findings(config: Path | None) -> Iterator[Finding]:
    yield _python()
    yield _tool("git", "apt-get install git", needed=True)
    yield _nix()
    yield _tool("git-lfs", "apt-get install git-lfs; only repos with LFS need it", needed=False)
    yield _isolation()
    yield Finding(
        Verdict.NOTE, "network", "fixed-output derivations keep the host's network: Nix needs it to fetch sources"
    )
    if config is not None:
        from albatros import settings

        loaded = settings.load(config)
        yield Finding(Verdict.OK, "config", f"{config} is read")
        yield from _server(loaded)


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        return Finding(Verdict.MISSING, "python", f"{found} is too old; install Python 3.11 or later")
    return Finding(Verdict.OK, "python", found)


def _tool(name: str, fix: str, *, needed: bool) -> Finding:
    path = shutil.which(name)
    if path is not None:
        return Finding(Verdict.OK, name, path)
    return Finding(Verdict.MISSING if needed else Verdict.NOTE, name, f"not on PATH: {fix}")


def _nix() -> Finding:
    if shutil.which("nix") is None:
        return Finding(Verdict.MISSING, "nix", "not on PATH: apt-get install nix-bin, or see nixos.org")
    try:
        done = subprocess.run(["nix", "--version"], capture_output=True, text=True, timeout=CALL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(Verdict.MISSING, "nix", f"does not run: {error}")
    match = re.search(r"(\d+)\.(\d+)", done.stdout)
    if match is None or (int(match[1]), int(match[2])) < OLDEST_NIX:
        return Finding(
            Verdict.MISSING, "nix", f"{done.stdout.strip() or 'unknown version'}: 2.8 is the oldest that works"
        )
    return Finding(Verdict.OK, "nix", done.stdout.strip())


def _isolation() -> Finding:
    if os.geteuid() == 0:
        return Finding(Verdict.OK, "isolation", "runs as root, so runners get a user of their own")
    if shutil.which("bwrap") is not None:
        return Finding(Verdict.OK, "isolation", "bubblewrap keeps runners away from the server's data")
    text = "not root and no bubblewrap: runners could read the server's data (apt-get install bubblewrap)"
    return Finding(Verdict.NOTE, "isolation", text)


def _server(loaded: Settings) -> Iterator[Finding]:
    from albatros import bootstrap

    yield _try("database", lambda: _database(loaded.database_url))
    yield _try("store", lambda: _store(loaded))
    if loaded.executor.kind == "nomad":
        yield from check_nomad(loaded.nomad)
    for builder in loaded.builders:
        yield _try(f"builder {builder.name}", partial(_builder, loaded, builder))
    for forge in loaded.forges:
        adapter = bootstrap.build_forge(forge)
        yield _try(f"forge {forge.name}", partial(_forge, adapter))
        yield from check_reach(loaded, forge, bootstrap.build_hooks(forge))
    for item in loaded.registries:
        yield _try(f"registry {item.name}", partial(_registry, bootstrap.registry_opener(item)))


def _database(url: str) -> str:
    from albatros.db import migrate

    found, wanted = migrate.current(url), migrate.head()
    if not found and url.startswith("sqlite:"):
        return "is not there yet; the server makes it when it starts"
    if found != wanted:
        raise ConfigError(
            f"is at revision {found or 'none'}, not {wanted}; run `albatros db upgrade`, or start the server"
        )
    return f"answers, at revision {found}"


def _store(loaded: Settings) -> str:
    from albatros.bootstrap import open_store
    from albatros.db import migrate, shared_keys
    from albatros.db.session import connect

    store = open_store(loaded)
    store.check()
    if migrate.current(loaded.database_url) == migrate.head():
        database = connect(loaded.database_url)
        try:
            shared_keys.check_store(database, loaded.store_url, store.identity(), learn=False)
        finally:
            database.dispose()
    return f"{loaded.store_url} takes and gives a blob"


def _builder(loaded: Settings, item: BuilderSettings) -> str:
    from albatros import bootstrap

    builder = bootstrap.build_builder(loaded, item)
    try:
        builder.check()
        return f"can be dispatched to: job {item.job}"
    finally:
        builder.close()


def _forge(adapter: Forge) -> str:
    return f"is set up; {sum(1 for _ in adapter.repos())} repos are found without being named"


def _registry(open_registry: Callable[[], Registry]) -> str:
    registry = open_registry()
    try:
        registry.list_tags(PROBE_NAME)
        return f"{registry.address} answers"
    finally:
        registry.close()


def _try(subject: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(Verdict.OK, subject, check())
    except (AlbatrosError, OSError) as error:
        return Finding(Verdict.MISSING, subject, str(error))
