"""Registries as their users see them: everything here is asked of the registry by skopeo, never of Albatros."""

import hashlib
import io
import json
import struct
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tests.support.flakes import Machine
from tests.tools import find

PULL_SECONDS = 60


def skopeo(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run skopeo; its errors are in the text of the exception."""
    command = [find("skopeo"), "--insecure-policy", *arguments]
    done = subprocess.run(command, capture_output=True, check=False, timeout=PULL_SECONDS)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr.decode()}")
    return done


@dataclass(frozen=True, slots=True)
class Remote:
    """One image name at one registry that speaks plain HTTP."""

    host: str
    name: str

    def _reference(self, tag: str) -> str:
        separator = "@" if tag.startswith("sha256:") else ":"
        return f"docker://{self.host}/{self.name}{separator}{tag}"

    def index(self, tag: str) -> bytes:
        """The bytes that a tag or digest names."""
        return skopeo("inspect", "--raw", "--tls-verify=false", self._reference(tag)).stdout

    def digest(self, tag: str) -> str:
        """The digest of those bytes."""
        return f"sha256:{hashlib.sha256(self.index(tag)).hexdigest()}"

    def has(self, tag: str) -> bool:
        """Whether the registry has this tag or digest."""
        return skopeo("inspect", "--raw", "--tls-verify=false", self._reference(tag), check=False).returncode == 0

    def tags(self) -> set[str]:
        """Every tag of the name."""
        answer = skopeo("list-tags", "--tls-verify=false", f"docker://{self.host}/{self.name}").stdout
        return set(cast("list[str]", json.loads(answer)["Tags"]))

    def platforms(self, tag: str) -> set[tuple[str, str]]:
        """Architecture and variant of everything that the index lists."""
        entries = cast("list[dict[str, dict[str, str]]]", json.loads(self.index(tag))["manifests"])
        return {(entry["platform"]["architecture"], entry["platform"].get("variant", "")) for entry in entries}

    def pull(self, tag: str, machine: Machine, program: str = "bin/hello") -> bytes:
        """Pull a machine's image as that machine would, and give the program in it."""
        which = ["--override-os=linux", f"--override-arch={machine.architecture}"]
        which += [f"--override-variant={machine.variant}"] if machine.variant else []
        with tempfile.TemporaryDirectory(prefix="alba-pull-") as directory:
            skopeo(*which, "copy", "--src-tls-verify=false", self._reference(tag), f"dir:{directory}")
            manifest = json.loads((Path(directory) / "manifest.json").read_bytes())
            for layer in manifest["layers"]:
                data = (Path(directory) / layer["digest"].removeprefix("sha256:")).read_bytes()
                with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
                    names = {member.name.lstrip("./"): member for member in archive}
                    content = archive.extractfile(names[program]) if program in names else None
                    if content is not None:
                        return content.read()
        raise AssertionError(f"{self._reference(tag)} for {machine.architecture} holds no {program}")


def elf_machine(program: bytes) -> int:
    """The machine in an ELF header (little endian)."""
    assert program.startswith(b"\x7fELF"), program[:16]
    return cast("int", struct.unpack_from("<H", program, 18)[0])
