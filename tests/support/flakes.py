"""Flakes without inputs whose builders are /bin/sh: a static binary is a few hundred bytes that `printf` writes."""

import platform
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HOST_SYSTEM = f"{platform.machine()}-linux"


@dataclass(frozen=True, slots=True)
class Machine:
    """A platform: its Nix system, its names in an image index, and its ELF machine (System V ABI)."""

    system: str
    architecture: str
    variant: str
    elf: int
    wide: bool


AMD64 = Machine("x86_64-linux", "amd64", "", 62, True)
ARM64 = Machine("aarch64-linux", "arm64", "v8", 183, True)
I386 = Machine("i686-linux", "386", "", 3, False)
ARMV6 = Machine("armv6l-linux", "arm", "v6", 40, False)
MACHINES = (AMD64, ARM64, I386, ARMV6)
IMAGE_CONFIG = '[images.hello]\noutput = "hello"\nbinary = "bin/hello"\n'
_IMAGE_SCRIPT = Path(__file__).resolve().parents[1] / "fixtures/flakes/docker-archive/image.sh"
WORKS = "PATH=/usr/bin:/bin\n"


def elf(machine: Machine, text: str, *, interpreter: bool = False) -> bytes:
    """An executable that nobody runs: a header, one segment, and `text`; `interpreter` makes it a dynamic one."""
    word, kind = ("Q", 3 if interpreter else 1) if machine.wide else ("I", 3 if interpreter else 1)
    header_size, segment_size = (64, 56) if machine.wide else (52, 32)
    flags = 0x05000000 if machine is ARMV6 else 0
    sizes = (header_size, segment_size, 1, 0, 0, 0)
    ident = bytes([0x7F, *b"ELF", 2 if machine.wide else 1, 1, 1]).ljust(16, b"\0")
    header = ident + struct.pack(f"<HHI3{word}I6H", 2, machine.elf, 1, 0, header_size, 0, flags, *sizes)
    return header + struct.pack("<I", kind).ljust(segment_size, b"\0") + text.encode()


def write_bytes(data: bytes, path: str) -> str:
    """Shell text that writes these bytes, with nothing but the shell's own `printf`."""
    octal = "".join(f"\\{byte:03o}" for byte in data)
    return f"printf '{octal}' > {path}\n"


def write_program(machine: Machine, text: str, to: str = "$out") -> str:
    """Shell text of a builder that puts a program into bin/hello of its output, or of another directory."""
    program = write_bytes(elf(machine, text), f"{to}/bin/hello")
    return f"{WORKS}mkdir -p {to}/bin\n{program}chmod 755 {to}/bin/hello\n"


def derivation(name: str, script: str, *, system: str = HOST_SYSTEM, more: str = "") -> str:
    """A derivation that /bin/sh builds, as Nix text; `more` are further attributes, such as `src = ./.;`."""
    text = script.replace("''", "'''").replace("${", "''${")
    return f"""derivation {{ {more} name = "{name}"; system = "{system}"; builder = "/bin/sh"; args = [ "-c" ''
{text}'' ]; }}"""


def flake(attributes: Mapping[str, str]) -> str:
    """flake.nix with these outputs: attribute path to Nix text."""
    lines = "".join(f"    {path} = {value};\n" for path, value in attributes.items())
    return f"{{\n  outputs = {{ self }}: {{\n{lines}  }};\n}}\n"


def hello(word: str, machines: Sequence[Machine] = MACHINES, before: str = "") -> dict[str, str]:
    """A repo's files: one image `hello` with a binary for each machine that holds `word`; `before` runs first."""
    attributes = {
        f"packages.{machine.system}.hello": derivation("hello", f"{WORKS}{before}\n{write_program(machine, word)}")
        for machine in machines
    }
    return {"flake.nix": flake(attributes), ".albatros.toml": IMAGE_CONFIG}


def archives(word: str, machines: Sequence[Machine] = MACHINES) -> dict[str, str]:
    """A repo's files: `docker` outputs as dockerTools makes them, gzipped tarballs, with a program of each machine."""
    attributes = {}
    for machine in machines:
        program = f"hello=$PWD/hello\n{write_program(machine, word, to='$hello')}"
        script = f"{program}architecture={machine.architecture}\n{_IMAGE_SCRIPT.read_text()}"
        attributes[f"packages.{machine.system}.docker"] = derivation("docker-image-hello.tar.gz", script)
    return {"flake.nix": flake(attributes)}


def wait_for(path: object) -> str:
    """Shell text that waits until a file is there, in a directory that the sandbox shows."""
    return f"echo waiting; while [ ! -e {path} ]; do sleep 0.05; done; echo let go"
