"""Platforms of an image: parsing, normal forms, and the correction of what image tools leave out.

Names are Go's, as the OCI image spec asks (image-index.md, `platform`). An arm that nobody qualifies is v6, because v6
code also runs on v7 while clients take an unqualified arm for v7; arm64 is always v8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from albatros.errors import ImageError, UsageError

_ALIASES: dict[str, tuple[str, str | None]] = {
    "amd64": ("amd64", None),
    "x86_64": ("amd64", None),
    "x86-64": ("amd64", None),
    "386": ("386", None),
    "i386": ("386", None),
    "i486": ("386", None),
    "i586": ("386", None),
    "i686": ("386", None),
    "arm64": ("arm64", None),
    "aarch64": ("arm64", None),
    "arm": ("arm", None),
    "armel": ("arm", "v6"),
    "armhf": ("arm", "v7"),
    "armv5": ("arm", "v5"),
    "armv5tel": ("arm", "v5"),
    "armv6": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
    "armv7": ("arm", "v7"),
    "armv7a": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "riscv64": ("riscv64", None),
    "ppc64le": ("ppc64le", None),
    "powerpc64le": ("ppc64le", None),
    "s390x": ("s390x", None),
    "loong64": ("loong64", None),
    "loongarch64": ("loong64", None),
}
_DEFAULT_VARIANT = {"arm": "v6", "arm64": "v8"}
_ALLOWED_VARIANTS = {
    "arm": frozenset({"v5", "v6", "v7", "v8"}),
    "arm64": frozenset({"v8"}),
    "amd64": frozenset({"v1", "v2", "v3", "v4"}),
}
ARCHITECTURES = tuple(sorted({architecture for architecture, _ in _ALIASES.values()}))
_WORD = re.compile(r"[A-Za-z0-9._-]{1,40}")
_IN_FILE_NAME = re.compile(
    r"(?<![a-z0-9])("
    + "|".join(sorted(map(re.escape, _ALIASES), key=len, reverse=True))
    + r")(?:[./_-](v[5-8]))?(?![a-z0-9])"
)


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """What an image runs on, in normal form; `variant` is empty where the architecture has none."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `linux/arm/v6`, `arm/v6`, `amd64` or a Nix system such as `armv6l-linux`. Raises UsageError."""
        system = from_system(text)
        if system is not None:
            return system
        parts = text.lower().split("/")
        if parts[0] not in _ALIASES:
            operating_system, *parts = parts
        else:
            operating_system = "linux"
        if not 1 <= len(parts) <= 2:
            raise UsageError(f"{text!r} is not a platform; write it as amd64, arm/v6 or linux/arm/v6")
        try:
            return normal_form(operating_system, parts[0], parts[1] if len(parts) == 2 else None)
        except ImageError as error:
            raise UsageError(error.detail) from error

    def as_json(self) -> dict[str, str]:
        """The `platform` object of an index, and the keys of the same names in a config."""
        fields = {"architecture": self.architecture, "os": self.os}
        return fields | {"variant": self.variant} if self.variant else fields


@dataclass(frozen=True, slots=True)
class PlatformHints:
    """What is known of a source's platform beside the source itself.

    `explicit` was asked for by a person and must agree; `system` is the flake attribute's Nix system, `file_name` the
    source's name. These two only fill in what the config leaves open, in this order.
    """

    explicit: Platform | None = None
    system: str = ""
    file_name: str = ""

    def candidates(self) -> tuple[Platform, ...]:
        """The platforms these hints name, the strongest first."""
        found = (self.explicit, from_system(self.system), from_file_name(self.file_name))
        return tuple(platform for platform in found if platform is not None)


def normal_form(operating_system: str, architecture: str, variant: str | None) -> Platform:
    """Bring names into their normal form, with the default variant. Raises ImageError for what is not known."""
    if operating_system.lower() != "linux":
        raise ImageError(f"operating system {operating_system[:40]!r} is not supported; images are built for linux")
    known = _ALIASES.get(architecture.lower())
    if known is None:
        raise ImageError(f"architecture {architecture[:40]!r} is not known; known are {', '.join(ARCHITECTURES)}")
    name, implied = known
    given = (variant or "").lower()
    if given and not given.startswith("v"):
        given = f"v{given}"
    given = given or implied or _DEFAULT_VARIANT.get(name, "")
    if given and given not in _ALLOWED_VARIANTS.get(name, frozenset()):
        raise ImageError(f"{name} has no variant {given[:40]!r}")
    return Platform("linux", name, given)


def published_form(operating_system: str, architecture: str, variant: str) -> Platform:
    """The normal form, or what others publish for as they say it: another system, or `unknown` for an attestation.

    Raises ImageError for what is no word.
    """
    try:
        return normal_form(operating_system, architecture, variant)
    except ImageError:
        said = (operating_system, architecture, variant)
        if not all(_WORD.fullmatch(part) for part in said[:2]) or (variant and not _WORD.fullmatch(variant)):
            raise
        return Platform(*said)


def from_system(system: str) -> Platform | None:
    """The platform of a Nix system such as `i686-linux`; None when it is none that images are built for."""
    architecture, dash, operating_system = system.lower().rpartition("-")
    if not dash or operating_system != "linux" or architecture not in _ALIASES:
        return None
    return normal_form(operating_system, architecture, None)


def from_file_name(name: str) -> Platform | None:
    """The platform that a name such as `linux.arm64.tar.gz` or `linux/arm/v7/hello` tells; None for none or two."""
    found = {(match[1], match[2]) for match in _IN_FILE_NAME.finditer(name.lower())}
    if len(found) != 1:
        return None
    architecture, variant = found.pop()
    try:
        return normal_form("linux", architecture, variant)
    except ImageError:
        return None


def resolve(operating_system: str, architecture: str, variant: str, hints: PlatformHints) -> Platform:
    """The platform of an image whose config says this much, empty for nothing. Raises ImageError when it stays unknown.

    Image tools write no variant for arm, which clients then take for v7: a hint of the same architecture gives it.
    """
    candidates = hints.candidates()
    if not architecture:
        if not candidates:
            raise ImageError("nothing says its platform: neither its config, nor a system, nor its file name")
        return candidates[0]
    bare_variant = variant or _ALIASES.get(architecture.lower(), ("", None))[1]
    platform = normal_form(operating_system or "linux", architecture, variant)
    if not bare_variant:
        platform = next((hint for hint in candidates if hint.architecture == platform.architecture), platform)
    explicit = hints.explicit
    if explicit is not None and explicit != platform:
        raise ImageError(f"it is for {platform}, not for {explicit} as asked")
    return platform
