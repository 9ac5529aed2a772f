"""Names of what is published: digests, image names, tags, references and addresses of registries, checked once.

Grammar: OCI distribution spec 1.1, "Pulling manifests". Only sha256 digests are used. An address never holds a
credential, so it may be shown and logged.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import NewType
from urllib.parse import urlsplit

from albatros.domain.s3 import FORM, S3Location
from albatros.errors import BadInputError, UsageError

Digest = NewType("Digest", str)
"""`sha256:` and 64 lower-case hexadecimal digits."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
)
_MAX_NAME = 255
_PLAIN_HTTP = "?http=true"
_S3_REFERENCE = "s3://BUCKET/PREFIX/NAME:TAG?endpoint=URL"


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes known by their digest; `size` in bytes."""

    digest: Digest
    size: int


def parse_digest(text: str) -> Digest:
    """Check a digest. Raises BadInputError."""
    if not _DIGEST.fullmatch(text):
        raise BadInputError(f"{text[:80]!r} is not a digest; write sha256: and 64 lower-case hexadecimal digits")
    return Digest(text)


def is_digest(text: str) -> bool:
    """True for a digest in normal form."""
    return _DIGEST.fullmatch(text) is not None


def digest_of(data: bytes) -> Digest:
    """The digest of bytes at hand."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def check_name(name: str) -> str:
    """Check an image name such as `owner/hello` and give it back. Raises UsageError."""
    if len(name) > _MAX_NAME:
        raise UsageError(f"image name {name[:40]!r}… has {len(name)} characters; at most {_MAX_NAME} are allowed")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not an image name; use lower-case letters and digits, parted by single '.', '_', '-' or '/'"
        )
    return name


def check_tag(tag: str) -> str:
    """Check a tag and give it back. Raises UsageError."""
    if not _TAG.fullmatch(tag):
        raise UsageError(
            f"{tag[:140]!r} is not a tag; use up to 128 letters, digits, '_', '.' or '-', not starting with '.' or '-'"
        )
    return tag


def split_tag(text: str) -> tuple[str, str | None]:
    """Split `NAME[:TAG]` of an image name without a host, both checked. Raises UsageError."""
    name, colon, tag = text.partition(":")
    return check_name(name), check_tag(tag) if colon else None


class RegistryKind(StrEnum):
    """Kinds of registry that an address can name."""

    DOCKER = "docker"
    """An OCI distribution registry, `docker://HOST[/PREFIX]`."""
    DIR = "dir"
    """A static registry in a directory, `dir:PATH`."""
    S3 = "s3"
    """A static registry in a bucket, `s3://BUCKET[/PREFIX]?endpoint=…`."""


@dataclass(frozen=True, slots=True)
class RegistryUrl:
    """Where images go: a host and a prefix of names, a directory (`path`), or a place in a bucket (`s3`)."""

    kind: RegistryKind
    host: str = ""
    prefix: str = ""
    path: Path = Path()
    plain_http: bool = False
    s3: S3Location | None = None

    @classmethod
    def parse(cls, text: str) -> RegistryUrl:
        """Read `docker://HOST[:PORT][/PREFIX][?http=true]`, `dir:PATH` or `s3://BUCKET[/PREFIX]?…`.

        Raises UsageError, which never repeats a password.
        """
        scheme, colon, rest = text.partition(":")
        if colon and scheme == RegistryKind.DIR and rest:
            return cls(RegistryKind.DIR, path=Path(rest).expanduser().absolute())
        if colon and scheme == RegistryKind.DOCKER and rest.startswith("//"):
            return cls._parse_docker(rest[2:])
        if colon and scheme == RegistryKind.S3:
            return cls(RegistryKind.S3, s3=S3Location.parse(text))
        shown = scheme[:20] + ":…" if colon else "the address"
        raise UsageError(f"{shown} is not the address of a registry; use docker://HOST/PREFIX, dir:PATH or {FORM}")

    @classmethod
    def _parse_docker(cls, rest: str) -> RegistryUrl:
        if "@" in rest:
            raise UsageError(
                "an address of a registry holds no credentials; put them into the configuration or docker's config.json"
            )
        place, question, options = rest.partition("?")
        host, _, prefix = place.partition("/")
        prefix = prefix.strip("/")
        if not _HOST.fullmatch(host):
            raise UsageError(f"docker://{host[:80]} has no usable host; write docker://HOST[:PORT]/PREFIX")
        if f"{question}{options}" not in ("", _PLAIN_HTTP):
            raise UsageError(f"docker://{host}/… takes no option but {_PLAIN_HTTP}, for a registry without TLS")
        prefix = check_name(prefix) if prefix else ""
        return cls(RegistryKind.DOCKER, host=host.lower(), prefix=prefix, plain_http=bool(question))

    def __str__(self) -> str:
        if self.kind is RegistryKind.DIR:
            return f"dir:{self.path}"
        if self.s3 is not None:
            return str(self.s3)
        place = f"docker://{self.host}" + (f"/{self.prefix}" if self.prefix else "")
        return place + (_PLAIN_HTTP if self.plain_http else "")


@dataclass(frozen=True, slots=True)
class ImageReference:
    """One published image: a registry, a name relative to it, and a tag or a digest."""

    registry: RegistryUrl
    name: str
    reference: str

    @classmethod
    def parse(cls, text: str, is_registry: Callable[[RegistryUrl], bool]) -> ImageReference:
        """Read `PLACE/NAME[:TAG|@DIGEST]`; no tag is `latest`. PLACE is `[docker://]HOST`, `dir:PATH` or `s3://BUCKET`.

        What an address of such a registry has behind `?` stands at the end. A static registry is the deepest place on
        the path for which `is_registry` holds, and the rest is the name. Raises UsageError, and what that raises.
        """
        body, question, options = (text, "", "") if text.startswith("dir:") else text.partition("?")
        body, at, digest = body.partition("@")
        head, slash, last = body.rpartition("/")
        last, colon, tag = last.partition(":")
        if not slash or not last or head == "s3:/":
            raise UsageError(f"{text!r} is not a reference; write HOST/NAME:TAG, dir:PATH/NAME:TAG or {_S3_REFERENCE}")
        if at and not is_digest(digest):
            raise UsageError(f"{text!r}: what stands after @ is not a sha256 digest")
        reference = digest if at else check_tag(tag) if colon else "latest"
        if head.startswith(("dir:", "s3:")):
            for url, above in _static_places(head, f"{question}{options}"):
                if is_registry(url):
                    return cls(url, check_name("/".join([*above, last])), reference)
            raise UsageError(f"{head} is not in a static registry: neither it nor a place above it holds v2/index.html")
        host, _, above_name = head.removeprefix("docker://").partition("/")
        registry = RegistryUrl.parse(f"docker://{host}{question}{options}")
        return cls(registry, check_name(f"{above_name}/{last}" if above_name else last), reference)

    def __str__(self) -> str:
        return self.pinned("")

    def pinned(self, digest: str) -> str:
        """With a digest behind the tag, if there is one to add."""
        address, question, options = str(self.registry), "", ""
        if self.registry.kind is not RegistryKind.DIR:
            address, question, options = address.removeprefix("docker://").partition("?")
        text = format_reference(address, self.name, self.reference)
        return f"{text}@{digest}{question}{options}" if digest else f"{text}{question}{options}"


def _static_places(head: str, options: str) -> Iterator[tuple[RegistryUrl, tuple[str, ...]]]:
    """Places where a static registry may be, the deepest first, each with the names below it."""
    url = RegistryUrl.parse(head + options)
    if url.kind is RegistryKind.DIR:
        for root in (url.path, *url.path.parents):
            yield RegistryUrl(RegistryKind.DIR, path=root), url.path.relative_to(root).parts
    elif url.s3 is not None:
        parts = tuple(url.s3.prefix.split("/")) if url.s3.prefix else ()
        for depth in range(len(parts), -1, -1):
            place = replace(url.s3, prefix="/".join(parts[:depth]))
            yield RegistryUrl(RegistryKind.S3, s3=place), parts[depth:]


def format_reference(address: str, name: str, reference: str) -> str:
    """A reference as people paste it: `HOST/NAME:TAG`, `HOST/NAME@sha256:…` or with `dir:PATH`."""
    return f"{address}/{name}{'@' if is_digest(reference) else ':'}{reference}"


def is_loopback(host: str) -> bool:
    """True when `host[:port]` is this machine by its very name: localhost, 127.0.0.0/8 or ::1."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
