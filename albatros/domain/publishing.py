"""Who may publish what, where, from which ref. Repo text can only narrow what the operator's settings allow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from albatros.domain.plan import PlannedImage
from albatros.domain.references import check_name
from albatros.domain.repo_config import ImageConfig
from albatros.domain.states import Trigger
from albatros.domain.tags import default_tags, why_not
from albatros.errors import ForbiddenError, ImageError, UsageError


@dataclass(frozen=True, slots=True)
class Origin:
    """The Build that an image comes from, as far as publishing asks."""

    owner: str
    repo: str
    private: bool
    ref: str
    commit: str
    default_branch: str
    trigger: Trigger
    trusted: bool
    is_merge: bool = False
    """It is a merge result, which nobody has pushed."""


@dataclass(frozen=True, slots=True)
class RegistryRule:
    """What a registry's settings say of who may publish."""

    name: str
    public: bool
    names: Sequence[str]
    repos: Sequence[str]
    refs: Sequence[str]
    required: bool


@dataclass(frozen=True, slots=True)
class Destination:
    """One image at one registry: its name there, and the tags to move."""

    registry: str
    name: str
    tags: tuple[str, ...]
    required: bool


def destinations(image: PlannedImage, origin: Origin, rules: Iterable[RegistryRule]) -> tuple[Destination, ...]:
    """Where an image of this Build goes. Raises ImageError for a name that cannot be."""
    config = image.config
    if not origin.trusted or (config.on is not None and not _any(origin.ref, config.on)):
        return ()
    tags = default_tags(origin.ref, origin.commit, origin.default_branch, origin.trigger)
    wanted = tuple(tag for tag, kind in tags.items() if config.tags is None or kind in config.tags)
    if not wanted:
        return ()
    return tuple(
        Destination(rule.name, registry_name(image, origin, rule.names), wanted, rule.required)
        for rule in rules
        if _may_publish(origin, rule) and (config.publish is None or rule.name in config.publish)
    )


def asked_destination(name: str, tag: str, origin: Origin, rule: RegistryRule) -> Destination:
    """Where an image goes that a script asks for. Raises ForbiddenError, or ImageError for a name that cannot be.

    The repo's own name is its main image; another one is a name that the registry allows it, or goes below that.
    """
    repo = f"{origin.owner}/{origin.repo}"
    if not origin.trusted:
        raise ForbiddenError(f"a commit that nobody trusted has pushed publishes nothing to {rule.name}")
    if origin.private and rule.public:
        raise ForbiddenError(f"{repo} is private and {rule.name} is public: anybody could pull the image")
    if not _may_publish(origin, rule):
        raise ForbiddenError(
            f"{origin.ref} of {repo} may not publish to {rule.name}: an operator sets its `repos` and `refs`"
        )
    if why := why_not(tag, origin.ref, origin.commit, origin.default_branch, origin.trigger):
        raise ForbiddenError(why)
    is_main = name == _part(origin.repo)
    config = ImageConfig(name=name, output="", registry_name=None if is_main else name)
    place = registry_name(PlannedImage(config, is_main, ()), origin, rule.names)
    return Destination(rule.name, place, (tag,), rule.required)


def _may_publish(origin: Origin, rule: RegistryRule) -> bool:
    if origin.is_merge or (origin.private and rule.public):
        return False
    return _any(f"{origin.owner}/{origin.repo}", rule.repos) and _any(origin.ref, rule.refs)


def registry_name(image: PlannedImage, origin: Origin, templates: Sequence[str]) -> str:
    """The image's name in a registry: one of the registry's names for this Repo, or below it. Raises ImageError."""
    bases = [_fill(template, origin) for template in templates]
    if not bases:
        raise ImageError(
            f"image {image.config.name}: the registry allows this repo no name; set `names` of the registry"
        )
    wanted = image.config.registry_name
    if wanted is not None:
        allowed = next((base for base in bases if wanted == base or wanted.startswith(f"{base}/")), None)
        return _checked(wanted if allowed is not None else f"{bases[0]}/{wanted}")
    return _checked(bases[0] if image.is_main else f"{bases[0]}/{image.config.name}")


def _fill(template: str, origin: Origin) -> str:
    """Names in registries are lower case; what a forge allows beyond that becomes `-`."""
    owner = "/".join(_part(part) for part in origin.owner.split("/"))
    return template.replace("{owner}", owner).replace("{repo}", _part(origin.repo))


def _part(text: str) -> str:
    return re.sub(r"[^a-z0-9]*[^a-z0-9._-]+[^a-z0-9]*", "-", text.lower()).strip("._-")


def _checked(name: str) -> str:
    try:
        return check_name(name)
    except UsageError as error:
        raise ImageError(error.detail) from error


def _any(text: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(text, glob) for glob in globs)
