"""The SOURCE arguments of `albatros image push` as sources of an image."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from albatros.domain.platforms import Platform, PlatformHints, from_file_name
from albatros.errors import UsageError
from albatros.images.base import Source
from albatros.images.directory import is_layout, open_layout
from albatros.images.memory import stamp

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst")
DESCRIPTION_SUFFIX = ".json"
STANDARD_INPUT = "-"
_OPERATING_SYSTEM = "linux"


def parse_sources(arguments: list[str], entrypoint: str) -> list[Source]:
    """Every file that the arguments name, directories opened out. Raises UsageError for what is not there."""
    if sum(_split(argument)[1] == STANDARD_INPUT for argument in arguments) > 1:
        raise UsageError("standard input holds one archive; name the others as files")
    return [source for argument in arguments for source in _parse(argument, entrypoint)]


def _parse(argument: str, entrypoint: str) -> list[Source]:
    explicit, name = _split(argument)
    if name == STANDARD_INPUT:
        return [_standard_input(explicit)]
    path = Path(name)
    if is_layout(path):
        return [_layout(path, explicit)]
    if not path.is_dir():
        return [_file(path, explicit, path.name, entrypoint)]
    if explicit is not None:
        raise UsageError(f"{argument}: a directory holds several platforms; name its files instead")
    found = [*_archives(path, entrypoint), *_binaries(path, entrypoint)]
    if not found:
        raise UsageError(f"{path} holds neither an archive such as linux.amd64.tar.gz nor a linux/amd64/BINARY")
    return found


def _split(argument: str) -> tuple[Platform | None, str]:
    platform, equals, rest = argument.partition("=")
    if not equals or Path(argument).exists():
        return None, argument
    return Platform.parse(platform), rest


def _archives(directory: Path, entrypoint: str) -> Iterator[Source]:
    for entry in sorted(directory.iterdir()):
        described = entry.suffix == DESCRIPTION_SUFFIX
        if entry.is_file() and (entry.name.endswith(ARCHIVE_SUFFIXES) or (described and _is_description(entry))):
            yield _file(entry, None, entry.name, entrypoint)
        elif is_layout(entry):
            yield _layout(entry, None)


def _binaries(directory: Path, entrypoint: str) -> Iterator[Source]:
    """`linux/ARCH/BINARY` and `linux/ARCH/VARIANT/BINARY`."""
    for pattern in ("*/*", "*/*/*"):
        for file in sorted((directory / _OPERATING_SYSTEM).glob(pattern)):
            place = file.parent.relative_to(directory).as_posix()
            if file.is_file() and from_file_name(place) is not None:
                yield _file(file, None, place, entrypoint)


def _file(path: Path, explicit: Platform | None, place: str, entrypoint: str) -> Source:
    if not path.is_file() or not os.access(path, os.R_OK):
        raise UsageError(f"{path} is not a file or directory that can be read")
    hints = PlatformHints(explicit=explicit, file_name=place)
    if _is_description(path):
        return _description(path, hints)
    stat = path.stat()
    return Source(str(path), lambda: path.open("rb"), stat.st_size, hints, entrypoint, digest=stamp(stat))


def _is_description(path: Path) -> bool:
    """Whether a file is JSON of nix2container; few are, and what reads it takes time to load."""
    try:
        with path.open("rb") as file:
            if file.read(1) != b"{":
                return False
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    from albatros.images import nix2container

    return nix2container.is_description(path)


def _description(path: Path, hints: PlatformHints) -> Source:
    """Read once: its layers are named after their diff_ids, so nothing is learned by looking ahead."""
    from albatros.images import nix2container

    return Source(str(path), lambda: nix2container.open_archive(path), None, hints, reopens=False)


def _layout(path: Path, explicit: Platform | None) -> Source:
    return Source(str(path), lambda: open_layout(path), None, PlatformHints(explicit=explicit, file_name=path.name))


def _standard_input(explicit: Platform | None) -> Source:
    return Source(
        "standard input",
        lambda: nullcontext(sys.stdin.buffer),
        hints=PlatformHints(explicit=explicit),
        reopens=False,
    )
