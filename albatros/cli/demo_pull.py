"""Pulls the demo's image back over plain HTTP as any client would, checks every byte, and runs the binary."""

from __future__ import annotations

import os
import platform
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from albatros.domain.platforms import from_system
from albatros.domain.references import RegistryUrl
from albatros.errors import AlbatrosError, ImageError
from albatros.images.model import Image, PlatformManifest
from albatros.images.streams import Reader, unpacked
from albatros.images.verify import read_config, read_published, verify_platform
from albatros.registries.base import Registry
from albatros.registries.opening import open_registry

RUN_SECONDS = 30
UNTRUSTED_USER = 65534


def pull_and_check(host: str, name: str, tag: str, digest: str, say: Callable[[str], None]) -> None:
    """Raise AlbatrosError unless `HOST/NAME:TAG` is the index `digest`, whole, and its binary for this machine runs."""
    registry = open_registry(RegistryUrl.parse(f"docker://{host}"))
    try:
        image = read_published(registry, name, tag)
        if image.digest != digest:
            raise ImageError(f"{host}/{name}:{tag} is {image.digest}, but {digest} was published")
        for manifest in image.manifests:
            proven = verify_platform(registry, name, manifest)
            say(f"pull       {proven.platform}: {proven.bytes_read} bytes read, every digest right")
        _run_own(registry, name, image, say)
    finally:
        registry.close()


def _run_own(registry: Registry, name: str, image: Image, say: Callable[[str], None]) -> None:
    own = from_system(f"{platform.machine()}-linux")
    manifest = next((manifest for manifest in image.manifests if manifest.platform == own), None)
    if manifest is None:
        say(f"run        skipped: the image has no {own}, which this machine is")
        return
    with tempfile.TemporaryDirectory(prefix="albatros-demo-") as directory:
        program = _unpack(registry, name, manifest, Path(directory))
        say(f"run        {own}: {_run(program)}")


def _unpack(registry: Registry, name: str, manifest: PlatformManifest, directory: Path) -> Path:
    config = read_config(registry, name, manifest).get("config")
    entrypoint = config.get("Entrypoint") if isinstance(config, dict) else None
    if not isinstance(entrypoint, list) or not entrypoint:
        raise ImageError(f"the image of {manifest.platform} has no entrypoint to run")
    wanted = str(entrypoint[0]).lstrip("/")
    for layer in manifest.layers:
        with registry.open_blob(name, layer.blob) as stream:
            content = _find(unpacked(stream), wanted)
        if content is not None:
            program = directory / "program"
            program.write_bytes(content)
            program.chmod(0o755)
            directory.chmod(0o755)
            return program
    raise ImageError(f"no layer of {manifest.platform} holds {wanted}")


def _find(tar: Reader, wanted: str) -> bytes | None:
    """The bytes of one file of a layer. Not by tarfile's own `r|gz`, which ends after the first gzip member."""
    with tarfile.open(fileobj=cast("IO[bytes]", tar), mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.name.lstrip("./") == wanted else None
            if content is not None:
                return content.read()
    return None


def _run(program: Path) -> str:
    """Run it as nobody when we are root: it came out of a build."""
    user = UNTRUSTED_USER if os.geteuid() == 0 else None
    done = subprocess.run(
        [program], capture_output=True, text=True, timeout=RUN_SECONDS, check=False, env={}, user=user, group=user
    )
    if done.returncode != 0:
        raise AlbatrosError(f"the pulled binary ended with {done.returncode}: {done.stderr.strip()[:200]}")
    return f"it says {done.stdout.strip()[:200]!r}"
