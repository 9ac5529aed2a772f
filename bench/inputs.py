"""Image archives of a given size for four platforms, of the bytes of real programs so that they compress as such."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.archives import Archive, layer

PLATFORMS: Mapping[str, Mapping[str, object]] = {
    "amd64": {"architecture": "amd64", "os": "linux"},
    "arm64": {"architecture": "arm64", "os": "linux"},
    "386": {"architecture": "386", "os": "linux"},
    "armv6": {"architecture": "arm", "os": "linux", "variant": "v6"},
}
CHANGED = "amd64"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Plain docker-archives by platform, before and after one of them changed; bytes of a layer in `mib`."""

    mib: int
    first: Mapping[str, Path]
    changed: Mapping[str, Path]


def make_inputs(directory: Path, mib: int) -> Inputs:
    """Write the archives: each has one layer with one program."""
    programs = _go_programs()
    first = {}
    for number, platform in enumerate(PLATFORMS):
        data = _cut(programs, number * len(programs) // len(PLATFORMS), mib << 20)
        first[platform] = _write(directory / f"linux.{platform}.tar", platform, data)
    again = b"changed" + first[CHANGED].name.encode() + _cut(programs, len(programs) // 9, mib << 20)[16:]
    changed = dict(first) | {CHANGED: _write(directory / f"changed.linux.{CHANGED}.tar", CHANGED, again)}
    return Inputs(mib, first, changed)


def _go_programs() -> bytes:
    """The Go toolchain's own programs, one after the other: about 85 MiB."""
    root = Path(subprocess.run(["go", "env", "GOROOT"], check=True, capture_output=True, text=True).stdout.strip())
    files = sorted([*(root / "bin").iterdir(), *(root / "pkg" / "tool").glob("*/*")])
    return b"".join(file.read_bytes() for file in files if file.is_file())


def _cut(programs: bytes, start: int, size: int) -> bytes:
    turned = programs[start:] + programs[:start]
    return (turned * (size // len(turned) + 1))[:size]


def _write(path: Path, platform: str, data: bytes) -> Path:
    config = {**PLATFORMS[platform], "config": {"Entrypoint": ["/bin/app"]}}
    path.write_bytes(Archive([layer(**{"bin/app": data})], config).tar())
    return path
