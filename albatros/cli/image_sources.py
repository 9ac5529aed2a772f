"""The SOURCE arguments of `albatros image push` as sources of an image."""

from __future__ import annotations

import os
from pathlib import Path

from albatros.domain.platforms import Platform, PlatformHints
from albatros.errors import UsageError
from albatros.images.base import Source

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst")


def parse_sources(arguments: list[str], entrypoint: str) -> list[Source]:
    """Every file that the arguments name, directories opened out. Raises UsageError for what is not there."""
    return [source for argument in arguments for source in _parse(argument, entrypoint)]


def _parse(argument: str, entrypoint: str) -> list[Source]:
    explicit, path = _split(argument)
    if not path.is_dir():
        return [_file(path, explicit, entrypoint)]
    if explicit is not None:
        raise UsageError(f"{argument}: a directory holds several platforms; name its files instead")
    files = sorted(entry for entry in path.iterdir() if entry.name.endswith(ARCHIVE_SUFFIXES) and entry.is_file())
    if not files:
        raise UsageError(f"{path} holds no archive such as linux.amd64.tar.gz")
    return [_file(file, None, entrypoint) for file in files]


def _split(argument: str) -> tuple[Platform | None, Path]:
    platform, equals, rest = argument.partition("=")
    if not equals or Path(argument).exists():
        return None, Path(argument)
    return Platform.parse(platform), Path(rest)


def _file(path: Path, explicit: Platform | None, entrypoint: str) -> Source:
    if not path.is_file() or not os.access(path, os.R_OK):
        raise UsageError(f"{path} is not a file or directory that can be read")
    hints = PlatformHints(explicit=explicit, file_name=path.name)
    return Source(str(path), lambda: path.open("rb"), path.stat().st_size, hints, entrypoint)
