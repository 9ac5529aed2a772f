"""Inputs of images made in memory: docker-archives as dockerTools writes them, and the smallest ELF files."""

import gzip
import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from albatros.domain.platforms import PlatformHints
from albatros.images.base import Source

MACHINES = {"amd64": 62, "386": 3, "arm64": 183, "arm": 40}


@dataclass
class Archive:
    """A docker-archive to be written: change a field to break it."""

    layers: Sequence[bytes] = ()
    config: Mapping[str, object] = field(default_factory=lambda: {"architecture": "amd64", "os": "linux"})
    diff_ids: list[str] | None = None
    config_bytes: bytes | None = None
    manifest_bytes: bytes | None = None
    manifest_first: bool = False
    layer_names: list[str] | None = None
    extra: Sequence[tuple[tarfile.TarInfo, bytes]] = ()

    def tar(self) -> bytes:
        """The archive's bytes."""
        names = self.layer_names or [f"{sha256_hex(layer)}/layer.tar" for layer in self.layers]
        diff_ids = [f"sha256:{sha256_hex(layer)}" for layer in self.layers] if self.diff_ids is None else self.diff_ids
        config = dict(self.config) | {"rootfs": {"type": "layers", "diff_ids": diff_ids}}
        config_bytes = json.dumps(config).encode() if self.config_bytes is None else self.config_bytes
        config_name = f"{sha256_hex(config_bytes)}.json"
        entry = {"Config": config_name, "RepoTags": ["hello:latest"], "Layers": names}
        manifest = json.dumps([entry]).encode() if self.manifest_bytes is None else self.manifest_bytes
        files = [(member(name), layer) for name, layer in dict(zip(names, self.layers, strict=True)).items()]
        files += [*self.extra, (member(config_name), config_bytes)]
        files.insert(0 if self.manifest_first else len(files), (member("manifest.json"), manifest))
        return write_tar(files)


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mtime = kind, target, 1
    return info


def write_tar(files: Sequence[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for info, data in files:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def layer(**files: bytes) -> bytes:
    """A layer's tar of files at the root."""
    return write_tar([(member(name), data) for name, data in files.items()])


def elf(architecture: str = "amd64", *, interpreter: bool = False, kind: int = 2, payload: bytes = b"code") -> bytes:
    """An executable of one program header; with `interpreter`, that asks for a dynamic linker."""
    wide = architecture.endswith("64")
    segment = 3 if interpreter else 1
    start = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    if wide:
        header = struct.pack("<HHIQQQIHHHHHH", kind, MACHINES[architecture], 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        program = struct.pack("<I", segment) + bytes(52)
    else:
        header = struct.pack("<HHIIIIIHHHHHH", kind, MACHINES[architecture], 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0)
        program = struct.pack("<I", segment) + bytes(28)
    return start + header + program + payload


def source(
    data: bytes, label: str = "input", hints: PlatformHints | None = None, entrypoint: str = "/bin/hello"
) -> Source:
    """Bytes at hand as a source of an image."""
    return Source(label, lambda: io.BytesIO(data), len(data), hints or PlatformHints(), entrypoint)


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, 1)
