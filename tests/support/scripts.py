"""Repos that bring a script: the commit, the images that it publishes, and a server that lets it run."""

from collections.abc import Mapping, Sequence
from typing import cast

from tests.support.archives import Archive, gzipped, layer
from tests.support.bare_repo import BareRepo
from tests.support.flakes import AMD64, ARMV6, Machine, elf
from tests.support.line import Line, Section

MACHINES = (AMD64, ARMV6)


def start_with_scripts(line: Line) -> None:
    """Start a server that lets every script run."""
    forges = cast("Sequence[Section]", line.settings["forges"])
    allowed = {"executor": {"allow_unisolated_scripts": True}, "forges": [{**forges[0], "scripts": ["alba/*"]}]}
    line.write_config(allowed)
    line.server.start()


def push_script(repo: BareRepo, text: str, files: Mapping[str, bytes]) -> str:
    """Push a commit with a script and other files beside it; the commit's id."""
    for name, data in {".albatros": text.encode(), **files}.items():
        path = repo.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (repo.work / ".albatros").chmod(0o755)
    commit = repo.commit_all()
    repo.push()
    return commit


def image_files(word: str) -> dict[str, bytes]:
    """`images/linux.ARCH.tar.gz` for each machine."""
    return {f"images/linux.{machine.architecture}.tar.gz": image_of(machine, word) for machine in MACHINES}


def image_of(machine: Machine, word: str) -> bytes:
    """A docker-archive with one program."""
    config = {"architecture": machine.architecture, "os": "linux"}
    return gzipped(Archive([layer(**{"bin/hello": elf(machine, word)})], config).tar())
