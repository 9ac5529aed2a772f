"""A repo's own settings, `.albatros.toml`: read from hostile text into values, and refused with a sentence.

Everything in it narrows what the operator allows; nothing widens it.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from albatros.domain import schedule
from albatros.domain.platforms import Platform
from albatros.domain.rules import OnConfig
from albatros.domain.tags import TagKind
from albatros.domain.text import plain
from albatros.errors import EvaluationError, UsageError

MAX_BYTES = 64 << 10
MAX_IMAGES = 100
MAX_NAME = 128
_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)*", re.ASCII)
_ATTRIBUTE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_'+-]{0,254}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """`[images.NAME]`."""

    name: str
    """As it is called in pages, and below the repo's own name in a registry unless it is the repo's main image."""
    output: str
    """The attribute below `packages.<system>`."""
    binary: str | None = None
    """A plain static binary inside the output, which becomes the image."""
    registry_name: str | None = None
    platforms: tuple[Platform, ...] = ()
    """Platforms that must be there; empty: those that the flake lists."""
    tags: tuple[TagKind, ...] | None = None
    publish: tuple[str, ...] | None = None
    """Registries by name; None: all that the operator allows."""
    on: tuple[str, ...] | None = None
    """Globs of refs that publish; None: all that the operator allows."""


@dataclass(frozen=True, slots=True)
class LimitConfig:
    """`[limits]`, in seconds and MiB; the operator's own limits are the ceiling."""

    job_seconds: int | None = None
    silence_seconds: int | None = None
    memory_mb: int | None = None
    """Memory of a build on a cluster."""


@dataclass(frozen=True, slots=True)
class RepoConfig:
    """The whole file; an absent one is all defaults."""

    images: tuple[ImageConfig, ...] | None = None
    """None: every output that is a container image becomes one."""
    artifacts: tuple[str, ...] | None = None
    """Attributes whose outputs are kept; None: all packages."""
    limits: LimitConfig = field(default_factory=LimitConfig)
    on: OnConfig = field(default_factory=OnConfig)
    schedule: tuple[str, ...] = ()
    """Cron expressions, in UTC, at which the default branch is built."""

    def binaries(self, attribute: str) -> tuple[str, ...]:
        """Paths inside the output of `packages.<system>.<attribute>` that images are made from."""
        return tuple(sorted({i.binary for i in self.images or () if i.output == attribute and i.binary}))

    def keeps(self, attribute: str) -> bool:
        """Whether the outputs of `packages.<system>.<attribute>` are kept, as Artifacts or for an image."""
        for_image = any(image.output == attribute and image.binary is None for image in self.images or ())
        return for_image or self.artifacts is None or attribute in self.artifacts


def parse(text: str | None) -> RepoConfig:
    """Read the text of `.albatros.toml`; None is an absent file. Raises EvaluationError."""
    if text is None:
        return RepoConfig()
    try:
        size = len(text.encode())
        data = tomllib.loads(text) if size <= MAX_BYTES else {}
    except (ValueError, RecursionError) as error:
        # More than TOMLDecodeError: half surrogates, and integers of too many digits.
        raise EvaluationError(f".albatros.toml is not TOML: {plain(str(error), 200)}") from error
    if size > MAX_BYTES:
        raise EvaluationError(f".albatros.toml is over {MAX_BYTES // 1024} KiB; make it smaller")
    _known(data, ("images", "artifacts", "limits", "on", "schedule"), "")
    images = _table(data, "images", "") if "images" in data else None
    artifacts = _table(data, "artifacts", "") if "artifacts" in data else None
    if len(images or ()) > MAX_IMAGES:
        raise EvaluationError(f".albatros.toml: at most {MAX_IMAGES} images can be made of one repo")
    return RepoConfig(
        images=None if images is None else tuple(_image(name, _table(images, name, "images.")) for name in images),
        artifacts=None
        if artifacts is None
        else tuple(_artifact(n, _table(artifacts, n, "artifacts.")) for n in artifacts),
        limits=_limits(_table(data, "limits", "")),
        on=_on(_table(data, "on", "")),
        schedule=_schedule(_table(data, "schedule", "")),
    )


def _image(name: str, table: Mapping[str, object]) -> ImageConfig:
    where = f"images.{name}."
    _known(table, ("output", "binary", "name", "platforms", "tags", "publish", "on"), where)
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise EvaluationError(
            f".albatros.toml: [images.{name[:MAX_NAME]}]: a name is at most {MAX_NAME} lower-case letters and digits, "
            "with single . _ - between"
        )
    registry_name = _text(table, "name", where)
    if registry_name is not None and not _NAME.fullmatch(registry_name):
        raise EvaluationError(
            f".albatros.toml: {where}name = {registry_name!r} is no image name; use lower-case letters, digits, . _ - /"
        )
    return ImageConfig(
        name=name,
        output=_output(table, name, where),
        binary=_inner_path(_text(table, "binary", where), where + "binary"),
        registry_name=registry_name,
        platforms=_platforms(_texts(table, "platforms", where) or (), where),
        tags=_tag_kinds(_texts(table, "tags", where), where),
        publish=_texts(table, "publish", where),
        on=_texts(table, "on", where),
    )


def _artifact(name: str, table: Mapping[str, object]) -> str:
    where = f"artifacts.{name}."
    _known(table, ("output",), where)
    return _output(table, name, where)


def _limits(table: Mapping[str, object]) -> LimitConfig:
    _known(table, ("job_seconds", "silence_seconds", "memory_mb"), "limits.")
    return LimitConfig(
        _count(table, "job_seconds", "seconds"),
        _count(table, "silence_seconds", "seconds"),
        _count(table, "memory_mb", "MiB"),
    )


def _on(table: Mapping[str, object]) -> OnConfig:
    _known(table, ("branches", "tags", "paths", "supersede", "merge"), "on.")
    branches, tags, paths = (_texts(table, key, "on.") for key in ("branches", "tags", "paths"))
    return OnConfig(branches, tags, paths, _flag(table, "supersede") or False, _flag(table, "merge"))


def _flag(table: Mapping[str, object], key: str) -> bool | None:
    value = table.get(key)
    if value is not None and not isinstance(value, bool):
        raise EvaluationError(f".albatros.toml: on.{key} must be true or false")
    return value


def _schedule(table: Mapping[str, object]) -> tuple[str, ...]:
    _known(table, ("cron",), "schedule.")
    return schedule.check(_texts(table, "cron", "schedule.") or ())


def _platforms(values: tuple[str, ...], where: str) -> tuple[Platform, ...]:
    try:
        return tuple(Platform.parse(value) for value in values)
    except UsageError as error:
        raise EvaluationError(f".albatros.toml: {where}platforms: {error.detail}") from error


def _tag_kinds(values: tuple[str, ...] | None, where: str) -> tuple[TagKind, ...] | None:
    if values is None:
        return None
    for value in values:
        if value not in set(TagKind):
            raise EvaluationError(f".albatros.toml: {where}tags: {value!r} is none of {', '.join(TagKind)}")
    return tuple(TagKind(value) for value in values)


def _output(table: Mapping[str, object], name: str, where: str) -> str:
    given = _text(table, "output", where)
    value = name if given is None else given
    if not _ATTRIBUTE.fullmatch(value):
        raise EvaluationError(f".albatros.toml: {where}output = {value!r} is no attribute name of a flake")
    return value


def _inner_path(value: str | None, where: str) -> str | None:
    if value is None:
        return None
    path = PurePosixPath(value)
    if not value or path.is_absolute() or ".." in path.parts or "\x00" in value or len(value) > 255:
        raise EvaluationError(
            f".albatros.toml: {where} = {value!r} must be a path inside the output, such as bin/hello"
        )
    return str(path)


def _known(table: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
            raise EvaluationError(f".albatros.toml: unknown key {where + key!r}; {hint}")


def _table(data: Mapping[str, object], key: str, where: str) -> Mapping[str, object]:
    value = data.get(key, {})
    if not isinstance(value, dict):
        raise EvaluationError(f".albatros.toml: {where}{key} must be a table")
    return value


def _text(table: Mapping[str, object], key: str, where: str) -> str | None:
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise EvaluationError(f".albatros.toml: {where}{key} must be text")
    return value


def _texts(table: Mapping[str, object], key: str, where: str) -> tuple[str, ...] | None:
    value = table.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value) or len(value) > 100:
        raise EvaluationError(f".albatros.toml: {where}{key} must be a list of at most 100 texts")
    return tuple(str(item) for item in value)


def _count(table: Mapping[str, object], key: str, unit: str) -> int | None:
    value = table.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value <= 0):
        raise EvaluationError(f".albatros.toml: limits.{key} must be a number of {unit} above 0")
    return value
